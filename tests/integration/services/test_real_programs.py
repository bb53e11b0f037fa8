"""Programs as people run them: nginx, redis, gunicorn."""

import os
import shutil
import signal
import sys
import urllib.request

import pytest

from tests.integration.services.clients import Clients
from tests.integration.services.host import Host, alive, free_port, until

NGINX = """
daemon off;
pid {root}/nginx.pid;
error_log stderr;
user root;
worker_processes 2;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 "{words}\\n"; }}
  }}
}}
"""


def found(name: str) -> str:
    path = shutil.which(name, path=f"/usr/sbin:/usr/bin:{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    return path


def http(port: int, *, path: str = "/") -> str:
    """The body of an answer."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return str(answer.read().decode().strip())


def says(port: int, word: str) -> bool:
    try:
        return http(port) == word
    except OSError:
        return False


def test_nginx(host: Host) -> None:
    nginx, port = found("nginx"), free_port()
    config = host.root / "nginx.conf"
    config.write_text(NGINX.format(root=host.root, port=port, words="first"))
    url = f"http://127.0.0.1:{port}/"
    host.start(
        {
            "front": {
                "command": [nginx, "-c", str(config), "-e", "stderr"],
                "ready": {"http": url},
                "live": {"http": url, "interval": "1s"},
                "reload": {"signal": "HUP"},
                "stop": {"signal": "QUIT", "timeout": "20s"},
            }
        }
    )
    pid = host.wait_for("front")["pid"]
    assert http(port) == "first"
    processes = {p.pid for p in host.left()}
    assert len(processes) == 3, "a master and two workers"

    config.write_text(NGINX.format(root=host.root, port=port, words="second"))
    host.ctl("reload", "front")
    until(lambda: says(port, "second"))
    assert host.pid("front") == pid
    assert host.instance("front")["restarts"] == 0

    host.restart_role("services")
    assert host.wait_for("front")["pid"] == pid
    assert http(port) == "second"

    # The master dies, its workers don't: they must be gone before the port can be had again.
    host.core_is_up()
    os.kill(pid, signal.SIGKILL)
    until(lambda: host.instance("front")["pid"] not in (pid, None))
    host.wait_for("front")
    assert http(port) == "second"
    assert host.instance("front")["restarts"] == 1
    assert not any(map(alive, processes))

    host.ctl("stop", "front")
    assert host.left() == []
    assert host.crashes("front")[1:] == [], "QUIT has ended it in order"


def test_redis(host: Host) -> None:
    redis, port = found("redis-server"), free_port()
    folder = host.files / "redis"
    folder.mkdir()
    host.start(
        {
            "cache": {
                "command": f"{redis} --port {port} --dir {folder} --appendonly yes",
                "ready": {"tcp": f"127.0.0.1:{port}"},
                "live": {"exec": ["redis-cli", "-p", str(port), "ping"], "interval": "500ms"},
                "limits": {"nofile": 2048},
            },
            "user": {
                "command": ["sh", "-c", f"redis-cli -p {port} incr starts; exec sleep 1000"],
                "requires": ["cache:healthy"],
                "restart_with": ["cache"],
            },
        }
    )
    host.all_running(["cache", "user"])
    until(lambda: host.lines("user") == ["1"])
    pid = host.pid("cache")
    os.kill(pid, signal.SIGKILL)
    until(lambda: host.instance("cache")["pid"] not in (pid, None))
    host.wait_for("cache")
    until(lambda: host.instance("cache")["health"] == "pass")
    host.ctl("restart", "cache")
    # What it had promised to keep is there, so that the next start is told the next number.
    until(lambda: len(host.lines("user")) > 1)
    assert host.lines("user") == [str(n) for n in range(1, len(host.lines("user")) + 1)]
    assert any("Ready to accept connections" in line for line in host.lines("cache"))
    host.ctl("stop", "--all")
    assert host.left() == []


APP = """
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.environ['ATLASD_INSTANCE']} {os.getpid()}\\n".encode()]
"""


@pytest.fixture
def gunicorn(host: Host) -> int:
    """The port of a web application with two instances of gunicorn, two workers each."""
    pytest.importorskip("gunicorn", reason="gunicorn is not installed (pip install gunicorn)")
    (host.files / "shop.py").write_text(APP)
    port = free_port()
    host.start(
        {
            "web": {
                "command": [sys.executable, "-m", "gunicorn", "--workers", "2", "shop:app"],
                "cwd": str(host.files),
                "instances": 2,
                "sockets": {"http": f"tcp://127.0.0.1:{port}"},
                "ready": {"notify": True, "timeout": "60s"},
                "reload": {"signal": "HUP"},
                "env": {"PYTHONDONTWRITEBYTECODE": "1"},
            }
        }
    )
    host.all_running(["web"])
    return port


def test_gunicorn(host: Host, gunicorn: int) -> None:
    masters = host.all_running(["web"])["web"]
    answers = {http(gunicorn) for _ in range(100)}
    assert {a.split()[0] for a in answers} == {"0", "1"}, "both instances answer on one socket"
    until(lambda: len(host.left()) == 6)
    workers = {p.pid for p in host.left()} - set(masters)
    assert {int(a.split()[1]) for a in answers} <= workers

    host.restart_role("services")
    assert host.all_running(["web"])["web"] == masters
    assert {p.pid for p in host.left()} == {*masters, *workers}
    host.core_is_up()

    host.ctl("reload", "web")
    until(lambda: not workers & {p.pid for p in host.left()}, "new workers")
    assert host.all_running(["web"])["web"] == masters
    assert http(gunicorn)

    host.ctl("stop", "web")
    assert host.left() == []
    assert host.crashes("web") == []


def test_a_rolling_restart_of_gunicorn_refuses_nobody(host: Host, gunicorn: int) -> None:
    masters = host.all_running(["web"])["web"]
    request = b"GET / HTTP/1.0\r\n\r\n"
    with Clients(("127.0.0.1", gunicorn), number=2, request=request) as clients:
        until(lambda: clients.total > 20)
        host.ctl("restart", "web")
        before = clients.total
        until(lambda: clients.total > before + 20)
    assert clients.failures == []
    assert all(answer.startswith("HTTP/1.0 200") for answer in clients.answers), clients.answers
    assert not set(masters) & set(host.all_running(["web"])["web"])
