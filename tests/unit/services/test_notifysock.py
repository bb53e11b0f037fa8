"""The notify socket: what messages mean, who sent them, and what a hostile sender achieves."""

import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd import notify
from atlasd.clock import HandClock
from atlasd.services.loop import Loop
from atlasd.services.notifysock import (
    MESSAGE_LIMIT,
    REST,
    Message,
    Notification,
    NotifySocket,
    address_of,
    parse,
)

# --- the parser


@pytest.mark.parametrize(
    ("data", "means"),
    [
        (b"READY=1", {"ready": True}),
        (b"READY=1\nSTATUS=up, 3 workers\n", {"ready": True, "status": "up, 3 workers"}),
        (b"READY=1\0", {"ready": True}),
        (b"RELOADING=1\nMONOTONIC_USEC=123", {"reloading": True, "monotonic_usec": 123}),
        (b"STOPPING=1", {"stopping": True}),
        (b"STATUS=", {"status": ""}),
        (b"STATUS=a=b", {"status": "a=b"}),
        ("STATUS=größer".encode(), {"status": "größer"}),
        (b"STATUS=\x1b[31mred\x07", {"status": " [31mred "}),
        (b"ERRNO=2", {"errno": 2}),
        (b"WATCHDOG=1", {"watchdog": "ping"}),
        (b"WATCHDOG=trigger", {"watchdog": "trigger"}),
        (b"WATCHDOG_USEC=0", {"watchdog_usec": 0}),
        (b"EXTEND_TIMEOUT_USEC=5000000", {"extend_timeout_usec": 5_000_000}),
        (b"MAINPID=4711", {"main_pid": 4711}),
        (
            b"FDSTORE=1\nFDNAME=db\nFDPOLL=0",
            {"fd_store": True, "fd_name": "db", "fd_poll": False},
        ),
        (b"FDSTOREREMOVE=1\nFDNAME=db", {"fd_store_remove": True, "fd_name": "db"}),
        (b"BARRIER=1", {"barrier": True}),
        (b"X_SOMETHING=1\nREADY=1", {"ready": True}),
        (b"MAINPID=1\nMAINPID=2", {"main_pid": 1}),
        (b"", {}),
        (b"READY", {}),
    ],
)
def test_what_messages_mean(data: bytes, means: dict[str, object]) -> None:
    assert parse(data) == Notification(**means)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [
        b"READY=yes",
        b"READY=0",
        b"WATCHDOG=2",
        b"WATCHDOG_USEC=-1",
        b"WATCHDOG_USEC=1e6",
        b"MAINPID=0",
        b"MAINPID=-1",
        b"MAINPID=99999999999",
        b"ERRNO=",
        b"ERRNO=" + b"9" * 40,
        b"STATUS=\xff\xfe",
        b"FDNAME=a:b",
        b"FDNAME=",
        b"MONOTONIC_USEC=\xd9\xa1",
    ],
)
def test_values_that_cannot_be_are_passed_over_and_counted(line: bytes) -> None:
    notification = parse(line + b"\nSTOPPING=1")
    assert notification == Notification(stopping=True, malformed=1)


@pytest.mark.parametrize("data", [b"READY=1\0\0", b"a\0b", b"x" * (MESSAGE_LIMIT + 1)])
def test_what_is_not_text_of_the_protocol(data: bytes) -> None:
    assert parse(data) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data: bytes) -> None:
    notification = parse(data)
    if notification is not None:
        assert notification.status is None or notification.status.isprintable()
        assert notification.main_pid is None or notification.main_pid > 0


names = ["READY", "STOPPING", "STATUS", "MAINPID", "WATCHDOG", "ERRNO", "FDNAME", "X_OTHER"]
lines = st.tuples(
    st.sampled_from(names), st.text(st.characters(codec="ascii", exclude_characters="\n\0"))
)


@given(st.lists(lines, max_size=8))
def test_each_line_stands_for_itself(parts: list[tuple[str, str]]) -> None:
    """A message means the sum of its lines, with the first good one of each name."""
    whole = parse("\n".join(f"{n}={v}" for n, v in parts).encode())
    assert whole is not None
    seen: dict[str, object] = {}
    malformed = 0
    for name, value in parts:
        if name in seen:
            continue
        one = parse(f"{name}={value}".encode())
        assert one is not None
        malformed += one.malformed
        field = {"MAINPID": "main_pid", "FDNAME": "fd_name"}.get(name, name.lower())
        if name != "X_OTHER" and not one.empty:
            seen[name] = getattr(one, field)
            assert getattr(whole, field) == seen[name]
    assert whole.malformed == malformed


# --- the socket


class Ground:
    """A loop, a socket on it, and what came."""

    def __init__(self, path: Path) -> None:
        self.clock = HandClock()
        self.errors: list[str] = []
        self.loop = Loop(self.clock, report=self.errors.append)
        self.messages: list[Message] = []
        self.socket = NotifySocket(self.loop, str(path), self.messages.append)
        self.environ = {"NOTIFY_SOCKET": self.socket.address}

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.turn(limit=0)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path / "n")
    yield made
    made.socket.close()
    made.loop.close()


def test_a_message_and_its_sender(ground: Ground) -> None:
    notify.ready("fine", environ=ground.environ)
    ground.turn()
    (message,) = ground.messages
    assert message.notification == Notification(ready=True, status="fine")
    assert (message.pid, message.uid, message.gid) == (os.getpid(), os.getuid(), os.getgid())


def test_the_sender_is_pinned_where_the_kernel_can(ground: Ground) -> None:
    pids: list[str] = []

    def receive(message: Message) -> None:
        assert message.pidfd is not None
        info = Path(f"/proc/self/fdinfo/{message.pidfd}").read_text()
        pids.append(next(x for x in info.splitlines() if x.startswith("Pid:")).split()[1])

    ground.socket._receive = receive
    if tuple(int(p) for p in os.uname().release.split(".")[:2]) < (6, 5):
        pytest.skip("SCM_PIDFD came with Linux 6.5")
    notify.ready(environ=ground.environ)
    ground.turn()
    assert ground.errors == []
    assert pids == [str(os.getpid())]


def test_junk_is_dropped_and_counted(ground: Ground) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(ground.socket.address)
        sender.send(b"a\0b")
        sender.send(b"STATUS=" + b"x" * 10_000)
        sender.send(b"")
        sender.send(b"READY=maybe")
        sender.send(b"NOTHING=1")
        sender.send(b"STOPPING=1")
    ground.turn()
    assert [m.notification for m in ground.messages] == [Notification(stopping=True)]
    assert ground.socket.dropped == 2
    assert ground.socket.malformed == 1


def test_descriptors_belong_to_who_takes_them_and_are_closed_else(ground: Ground) -> None:
    taken: list[int] = []

    def receive(message: Message) -> None:
        ground.messages.append(message)
        taken.append(message.fds.pop(0))

    ground.socket._receive = receive
    pipes = [os.pipe(), os.pipe()]
    notify.store("two", [write for _, write in pipes], environ=ground.environ)
    for _, write in pipes:
        os.close(write)
    ground.turn()
    assert ground.messages[0].notification.fd_name == "two"
    os.write(taken[0], b"x")
    assert os.read(pipes[0][0], 1) == b"x"
    assert os.read(pipes[1][0], 1) == b""  # its last writer is gone: ours was closed
    assert not os.get_inheritable(taken[0])
    for fd in (*taken, pipes[0][0], pipes[1][0]):
        os.close(fd)


def test_a_barrier_is_answered_after_what_came_before(ground: Ground) -> None:
    read, write = os.pipe()
    notify.status("first", environ=ground.environ)
    notify.send("BARRIER=1", fds=[write], environ=ground.environ)
    os.close(write)
    poll = select.poll()
    poll.register(read, 0)
    assert poll.poll(0) == []
    ground.turn()
    assert [(_, mask & select.POLLHUP) for _, mask in poll.poll(0)] == [(read, select.POLLHUP)]
    assert [m.notification.status for m in ground.messages] == ["first", None]
    os.close(read)


def test_descriptors_of_junk_are_closed_too(ground: Ground) -> None:
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", write))]
        sender.sendmsg([b"a\0b"], rights, 0, ground.socket.address)
    os.close(write)
    ground.turn()
    assert ground.socket.dropped == 1
    assert os.read(read, 1) == b""
    os.close(read)


def test_a_receiver_that_fails_costs_only_its_message(ground: Ground) -> None:
    def receive(message: Message) -> None:
        if message.notification.ready:
            raise RuntimeError("cannot")
        ground.messages.append(message)

    ground.socket._receive = receive
    notify.ready(environ=ground.environ)
    notify.stopping(environ=ground.environ)
    ground.turn(2)
    assert len(ground.errors) == 1
    assert [m.notification.stopping for m in ground.messages] == [True]


def test_a_flood_is_taken_in_portions_with_rests(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atlasd.services.notifysock.PER_TURN", 4)
    for _ in range(6):
        assert notify.watchdog(environ=ground.environ)
    ground.turn(3)
    assert len(ground.messages) == 4
    ground.clock.wind(REST)
    ground.turn(2)
    assert len(ground.messages) == 6


def test_nothing_is_lost_when_a_program_ends_in_a_rest(ground: Ground) -> None:
    ground.loop.unwatch(ground.socket.fileno())  # as during a rest
    notify.stopping(environ=ground.environ)
    ground.turn()
    assert ground.messages == []
    ground.socket.drain()
    assert [m.notification.stopping for m in ground.messages] == [True]


def test_a_successor_at_the_same_path_is_heard(ground: Ground, tmp_path: Path) -> None:
    ground.loop.unwatch(ground.socket.fileno())
    ground.socket._socket.close()  # as its owner's death would: the path stays
    assert not notify.ready(environ=ground.environ)
    heard: list[Message] = []
    second = NotifySocket(ground.loop, str(tmp_path / "n"), heard.append)
    assert notify.ready(environ=ground.environ)
    ground.turn()
    assert [m.notification.ready for m in heard] == [True]
    second.close()
    assert not (tmp_path / "n").exists()


def test_a_successor_that_is_handed_the_socket_loses_nothing(
    ground: Ground, tmp_path: Path
) -> None:
    kept = os.dup(ground.socket.fileno())
    ground.loop.unwatch(ground.socket.fileno())
    ground.socket._socket.close()
    assert notify.ready(environ=ground.environ)
    heard: list[Message] = []
    second = NotifySocket(ground.loop, str(tmp_path / "n"), heard.append, fd=kept)
    ground.turn()
    assert [(m.notification.ready, m.pid) for m in heard] == [(True, os.getpid())]
    second.close()


def test_a_path_that_is_too_long_becomes_an_abstract_name(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    made = Ground(long)
    assert made.socket.address == address_of(str(long))
    assert made.socket.address.startswith("@atlasd/")
    assert address_of(str(long)) != address_of(str(long) + "y")
    assert notify.ready(environ=made.environ)
    made.turn()
    assert [m.notification.ready for m in made.messages] == [True]
    made.socket.close()
    made.socket.close()
    made.loop.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user_may_speak_and_is_named(ground: Ground, tmp_path: Path) -> None:
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect(ground.socket.address)
    credentials = struct.pack("3i", os.getpid(), 65534, 65534)
    sender.sendmsg([b"READY=1"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])
    sender.close()
    ground.turn()
    assert (ground.messages[0].uid, ground.messages[0].gid) == (65534, 65534)
    assert (tmp_path / "n").stat().st_mode & 0o777 == 0o666
