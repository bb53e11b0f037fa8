"""What atlasd tells systemd, read from a real datagram socket, and what it is given by it."""

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlasd import notify


class Listener:
    """The other end: a socket as systemd's, and the environment that names it."""

    def __init__(self, address: str | bytes, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": name}

    def lines(self) -> list[str]:
        """The lines of the next datagram."""
        return self.socket.recv(4096).decode().split("\n")


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    path = str(tmp_path / "n")
    made = Listener(path, path)
    yield made
    made.socket.close()


def test_without_a_listener_nothing_happens(tmp_path: Path) -> None:
    assert not notify.enabled({})
    assert not notify.ready(environ={})
    assert not notify.send("X=1", environ={"NOTIFY_SOCKET": str(tmp_path / "missing")})
    assert not notify.send("X=1", environ={"NOTIFY_SOCKET": "relative"})
    assert not notify.send("X=1", environ={"NOTIFY_SOCKET": "@"})


def test_the_words_of_the_protocol(listener: Listener) -> None:
    environ = listener.environ
    assert notify.enabled(environ)
    assert notify.ready("2 services\nrunning", environ=environ)
    assert listener.lines() == ["READY=1", "STATUS=2 services running"]
    notify.stopping(environ=environ)
    assert listener.lines() == ["STOPPING=1"]
    notify.status("fine", environ=environ)
    assert listener.lines() == ["STATUS=fine"]
    notify.watchdog(environ=environ)
    assert listener.lines() == ["WATCHDOG=1"]
    notify.main_pid(17, environ=environ)
    assert listener.lines() == ["MAINPID=17"]
    notify.extend_timeout(1.5, environ=environ)
    assert listener.lines() == ["EXTEND_TIMEOUT_USEC=1500000"]


def test_a_reload_carries_the_monotonic_time(listener: Listener) -> None:
    notify.reloading("reading", environ=listener.environ)
    first, usec, status = listener.lines()
    assert (first, status) == ("RELOADING=1", "STATUS=reading")
    name, _, value = usec.partition("=")
    assert name == "MONOTONIC_USEC"
    assert 0 < int(value) <= float(Path("/proc/uptime").read_text().split()[0]) * 1e6 + 1e6


def test_an_abstract_socket() -> None:
    name = f"atlasd-test-{os.getpid()}-{os.urandom(4).hex()}"
    made = Listener(b"\0" + name.encode(), f"@{name}")
    with made.socket:
        assert notify.ready(environ=made.environ)
        assert made.lines() == ["READY=1"]


def test_a_newline_cannot_smuggle_another_line(listener: Listener) -> None:
    with pytest.raises(ValueError, match="newline"):
        notify.send("STATUS=x\nMAINPID=1", environ=listener.environ)


def test_descriptors_are_given_to_the_store_by_name(listener: Listener) -> None:
    read, write = os.pipe()
    try:
        assert notify.store("out.web.0", [read, write], poll=False, environ=listener.environ)
    finally:
        os.close(read)
    data, fds, _, _ = socket.recv_fds(listener.socket, 4096, 4)
    assert data == b"FDSTORE=1\nFDNAME=out.web.0\nFDPOLL=0"
    os.write(write, b"x")
    assert os.read(fds[0], 1) == b"x"
    for fd in (*fds, write):
        os.close(fd)
    notify.unstore("out.web.0", environ=listener.environ)
    assert listener.lines() == ["FDSTOREREMOVE=1", "FDNAME=out.web.0"]


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "ü", "x" * 256])
def test_names_that_systemd_would_refuse_are_refused_here(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        notify.store(name, [], environ={})
    with pytest.raises(ValueError, match="cannot name"):
        notify.unstore(name, environ={})


def test_more_descriptors_than_the_kernel_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="253"):
        notify.store("x", [0] * 254, environ={})


def test_a_full_queue_stops_nobody(listener: Listener) -> None:
    sent = 0
    while sent < 2000 and notify.send("WATCHDOG=1", environ=listener.environ):
        sent += 1
    assert 0 < sent < 2000


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_how_often_the_watchdog_wants_to_hear(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert notify.watchdog_interval(environ) == seconds


def test_passed_descriptors_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    # The numbers 3, 4, … are taken in a test run: look at what is done to them instead.
    closed_on_exec: list[int] = []

    def fcntl_(fd: int, command: int, argument: int) -> int:
        assert (command, argument) == (fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        if fd == 5:
            raise OSError(9, "bad descriptor")
        closed_on_exec.append(fd)
        return 0

    monkeypatch.setattr("atlasd.notify.fcntl.fcntl", fcntl_)
    environ = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "5",
        "LISTEN_FDNAMES": "http:out:lost:out",
        "OTHER": "stays",
    }
    assert notify.listen_fds(environ) == {"http": [3], "out": [4, 6], "unknown": [7]}
    assert closed_on_exec == [3, 4, 6, 7]
    assert environ == {"OTHER": "stays"}


@pytest.mark.parametrize("pid", ["1", "", "x"])
def test_descriptors_for_another_process_are_not_ours(pid: str) -> None:
    environ = {"LISTEN_PID": pid, "LISTEN_FDS": "1"}
    assert notify.listen_fds(environ) == {}
    assert environ == {}
