"""The programs of the demo, each started as atlasd would start it, and without atlasd."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

DEMO = Path(__file__).parents[2] / "etc" / "demo"
DEADLINE = 30.0

# What a supervisor does with a listening socket: descriptor 3, and three words in the environment.
PASS_ON = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="http", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "SHOP_DATABASE": str(tmp_path / "data" / "shop.sqlite"),
        "SHOP_PAUSE": "0.05",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.fixture
def start(env: dict[str, str]) -> Iterator[Start]:
    with ExitStack() as started:

        def start(
            program: str, *, listening: socket.socket | None = None, **extra: str
        ) -> "subprocess.Popen[str]":
            passed = [] if listening is None else [listening.fileno()]
            wrapped = (
                [sys.executable, "-c", PASS_ON, str(passed[0])] if passed else [sys.executable]
            )
            child = subprocess.Popen(
                [*wrapped, str(DEMO / program)],
                env=env | extra,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=passed,
            )
            started.enter_context(child)
            started.callback(child.kill)
            return child

        yield start


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@pytest.fixture
def url(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def books(start: Start) -> None:
    prepared = start("prepare.py")
    assert prepared.wait(DEADLINE) == 0


def get(url: str) -> str:
    with urlopen(url, timeout=DEADLINE) as answer:
        text: str = answer.read().decode()
        return text


def post(url: str, body: str = "") -> str:
    with urlopen(Request(url, body.encode(), method="POST"), timeout=DEADLINE) as answer:
        text: str = answer.read().decode()
        return text


def until(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not seen():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_preparing_twice_keeps_the_orders(start: Start) -> None:
    for _ in range(2):
        prepared = start("prepare.py")
        assert prepared.wait(DEADLINE) == 0
        assert prepared.stdout is not None
        assert "0 orders so far" in prepared.stdout.read()


@pytest.mark.usefixtures("books")
def test_an_order_is_shown_and_packed(start: Start, listening: socket.socket, url: str) -> None:
    start("shop.py", listening=listening)
    assert get(url + "/healthz") == "open\n"
    assert "order 1</td><td>teapot</td><td>waiting" in post(url + "/orders", "thing=teapot")
    assert json.loads(post(url + "/pack")) == {"number": 1, "thing": "teapot", "packed": True}
    assert json.loads(post(url + "/pack")) is None
    assert "order 1</td><td>teapot</td><td>packed" in get(url)


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize(
    ("path", "body", "status"), [("/orders", "thing=x", 400), ("/no", "", 404)]
)
def test_what_the_shop_does_not_have_is_refused(
    start: Start, listening: socket.socket, url: str, path: str, body: str, status: int
) -> None:
    start("shop.py", listening=listening)
    with pytest.raises(HTTPError) as refused:
        post(url + path, body)
    assert refused.value.code == status
    refused.value.close()


@pytest.mark.usefixtures("books")
def test_the_shop_closes_politely(start: Start, listening: socket.socket, url: str) -> None:
    shop = start("shop.py", listening=listening)
    get(url)
    shop.send_signal(signal.SIGTERM)
    assert shop.wait(DEADLINE) == 0
    assert shop.stdout is not None
    assert shop.stdout.read().splitlines()[-2:] == ["closing on SIGTERM", "closed"]


@pytest.mark.usefixtures("books")
def test_two_instances_share_the_socket_and_one_may_die(
    start: Start, listening: socket.socket, url: str
) -> None:
    shops = [start("shop.py", listening=listening) for _ in range(2)]
    for shop in shops:
        assert shop.stdout is not None
        assert "open on" in shop.stdout.readline()
    shops[0].kill()
    shops[0].wait()
    assert f"process {shops[1].pid}" in get(url)


def test_a_shop_without_a_socket_says_that_its_configuration_is_wrong(start: Start) -> None:
    shop = start("shop.py")
    assert shop.wait(DEADLINE) == os.EX_CONFIG
    assert shop.stdout is not None
    assert "no socket was passed" in shop.stdout.read()


@pytest.mark.usefixtures("books")
def test_the_packer_tells_that_it_is_ready_and_packs(
    start: Start, listening: socket.socket, url: str, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(DEADLINE)
        start("shop.py", listening=listening)
        post(url + "/orders", "thing=atlas")
        packer = start("packer.py", SHOP_URL=url, NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert notify.recv(1000).splitlines()[0] == b"READY=1"
        assert notify.recv(1000) == b"STATUS=packed 1 orders"
        assert packer.stdout is not None
        assert packer.stdout.readline() == "packed order 1: one atlas\n"


def test_the_packer_outlives_a_shop_that_is_closed(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        gone = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    packer = start("packer.py", SHOP_URL=gone)
    assert packer.stdout is not None
    assert "the shop doesn't answer" in packer.stdout.readline()
    assert "the shop doesn't answer" in packer.stdout.readline()
    assert packer.poll() is None


@pytest.mark.usefixtures("books")
def test_a_clumsy_customer_buys_and_crashes_with_a_traceback(
    start: Start, listening: socket.socket, url: str
) -> None:
    start("shop.py", listening=listening)
    customer = start("customer.py", SHOP_URL=url, SHOP_CLUMSY="1")
    assert customer.wait(DEADLINE) == 1
    assert customer.stdout is not None
    said = customer.stdout.read()
    assert "bought one" in said
    assert "ZeroDivisionError" in said


@pytest.mark.usefixtures("books")
def test_a_careful_customer_goes_on_buying(
    start: Start, listening: socket.socket, url: str
) -> None:
    start("shop.py", listening=listening)
    customer = start("customer.py", SHOP_URL=url, SHOP_CLUMSY="0")
    until(lambda: "order 3</td>" in get(url))
    assert customer.poll() is None
