"""Listening sockets: opened, taken over, and kept while their address stays; over unix sockets."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlasd.services.sockets import SocketError, adopt_socket, open_socket
from atlasd.services.spec import Socket
from atlasd.states import Wanted
from tests.unit.services.stage import Stage, spec


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 bytes


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()


def answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError:
            return False
        return True


def unix(name: str, **more: int) -> Socket:
    return Socket(name=name, address=f"unix:{name}.sock", **more)


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def test_a_socket_is_opened_with_its_mode_and_in_place_of_a_stale_one() -> None:
    open_socket(unix("http", mode=0o600)).close()
    assert not answers("http.sock")
    with open_socket(unix("http", mode=0o622)):
        assert answers("http.sock")
        assert Path("http.sock").stat().st_mode & 0o777 == 0o622


def test_a_socket_that_somebody_listens_on_is_not_taken_away() -> None:
    with open_socket(unix("http")):
        with pytest.raises(SocketError, match=r"cannot listen on unix:http\.sock") as e:
            open_socket(unix("http"))
        assert e.value.in_use
        assert answers("http.sock")


def test_a_file_that_is_no_socket_is_not_removed() -> None:
    Path("http.sock").write_text("precious")
    with pytest.raises(SocketError):
        open_socket(unix("http"))
    assert Path("http.sock").read_text() == "precious"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://127.0.0.1", "the port is missing"),
        ("tcp://127.0.0.1:99999", "out of range"),
        ("carrier://pigeon", "unknown kind of address"),
    ],
)
def test_an_address_that_is_none_is_refused(address: str, said: str) -> None:
    with pytest.raises(SocketError, match=said):
        open_socket(Socket(name="http", address=address))


def test_a_held_socket_is_taken_over_only_by_its_own_declaration() -> None:
    made = open_socket(unix("http"))
    fd = made.detach()
    again = adopt_socket(fd, unix("http"))
    assert again is not None
    fd = again.detach()
    assert adopt_socket(fd, unix("other")) is None
    assert not is_open(fd), "what is nobody's is closed"
    fd = os.open("/dev/null", os.O_RDONLY)
    assert adopt_socket(fd, unix("http")) is None
    assert not is_open(fd)


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("tcp://127.0.0.1:{port}", True),
        ("tcp://localhost:{port}", True),
        ("tcp://0.0.0.0:{port}", False),
        ("tcp://[::1]:{port}", False),
        ("tcp://127.0.0.1:1", False),
        ("udp://127.0.0.1:{port}", False),
        ("unix:x.sock", False),
    ],
)
def test_a_held_address_must_be_the_declared_one(address: str, *, ours: bool) -> None:
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    wanted = Socket(name="http", address=address.format(port=held.getsockname()[1]))
    found = adopt_socket(held.detach(), wanted)
    assert (found is not None) is ours
    if found is not None:
        found.close()


# ---------------------------------------------------------------------- of a service


def test_an_address_that_stays_is_listened_on_whatever_its_name_or_mode(stage: Stage) -> None:
    web = spec("web", instances=2, sockets=(unix("http"), unix("admin")))
    stage.apply(web)
    numbers = {n: s.fileno() for n, s in stage.supervisor.services["web"].sockets.items()}
    renamed = Socket(name="public", address="unix:http.sock", mode=0o600, backlog=7)
    stage.apply(spec("web", instances=2, sockets=(renamed,)))
    assert stage.supervisor.services["web"].sockets["public"].fileno() == numbers["http"]
    assert Path("http.sock").stat().st_mode & 0o777 == 0o600
    assert (answers("http.sock"), answers("admin.sock")) == (True, False)
    assert "socket/web/public" in stage.held.entries()
    assert not {"socket/web/http", "socket/web/admin"} & set(stage.held.entries())
    stage.dies("web", 0)
    stage.wind(2)
    assert stage.process("web", 0).launch.env["LISTEN_FDNAMES"] == "public"


def test_the_sockets_of_a_service_go_with_it(stage: Stage) -> None:
    stage.apply(spec("web", sockets=(unix("http"),)))
    stage.requests.stop("web", None, actor="test")
    stage.dies("web")
    assert answers("http.sock"), "as long as it is configured, somebody may connect and wait"
    stage.apply()
    assert not answers("http.sock")


def test_the_socket_of_what_is_not_wanted_is_not_opened(stage: Stage) -> None:
    stage.apply(spec("web", sockets=(unix("http"),)), wanted={"web": Wanted.DOWN})
    assert not Path("http.sock").exists()


def test_two_services_on_one_address_is_a_failed_start_in_words(stage: Stage) -> None:
    stage.apply(
        spec("a", sockets=(unix("http"),)),
        spec("b", sockets=(unix("http"),)),
    )
    assert stage.state("a") == "starting"
    assert "cannot listen on unix:http.sock: Address already in use" in (
        stage.unit("b").machine.detail
    )
