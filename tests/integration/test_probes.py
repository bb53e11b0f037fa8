"""Probes against real sockets and real commands on the real loop."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from atlasd.redaction import Redactor
from atlasd.services.commands import TAIL, Commands, Finished
from atlasd.services.loop import READ, Loop
from atlasd.services.probes import Prober
from atlasd.services.probing import Verdict
from atlasd.services.spec import Probe

ENV = {"PATH": os.environ.get("PATH", os.defpath)}


class Ground:
    """A real loop that reaps its commands, and what was heard on it."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.commands = Commands(self.loop)
        self.verdicts: list[Verdict] = []
        self.ended: list[Finished] = []

    def until(self, condition: Callable[[], object], seconds: float = 20) -> None:
        """Turn the loop until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition was not met in time"
            self.loop.turn(limit=0.01)
            self.reap()

    def reap(self) -> None:
        for pid in self.commands.pids():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.commands.reaped(done, status)

    def run(self, *argv: str, timeout: float | None = 10, cwd: str = "/") -> Finished:
        """One command, waited for."""
        self.ended.clear()
        self.commands.run(argv, on_exit=self.ended.append, env=ENV, timeout=timeout, cwd=cwd)
        assert not self.ended
        self.until(lambda: self.ended)
        return self.ended[0]

    def probe(
        self, kind: str, target: str = "", *, env: Mapping[str, str] = ENV, **settings: object
    ) -> Verdict:
        """The first verdict of a probe."""
        self.verdicts.clear()
        made = Probe(kind=kind, target=target, **settings)  # type: ignore[arg-type]
        prober = Prober(
            self.loop,
            made,
            started=time.monotonic(),
            on_verdict=self.verdicts.append,
            spawn=self.commands.run,
            env=env,
        )
        prober.start()
        self.until(lambda: self.verdicts)
        prober.stop()
        return self.verdicts[0]


@pytest.fixture
def ground() -> Iterator[Ground]:
    made = Ground()
    yield made
    made.commands.close()
    made.until(lambda: not made.commands.pids())
    made.loop.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """Answers each connection with given pieces on the loop, then closes (or not)."""

    def __init__(
        self, ground: Ground, listener: socket.socket, *pieces: bytes, close: bool = True
    ) -> None:
        self.requests: list[bytes] = []
        self._held: list[socket.socket] = []
        self._pieces = pieces
        self._close = close
        self._ground = ground
        listener.setblocking(False)
        ground.loop.watch(listener.fileno(), lambda _mask: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        peer, _ = listener.accept()
        self._held.append(peer)
        self._ground.loop.watch(peer.fileno(), lambda _mask: self._answer(peer), READ)

    def _answer(self, peer: socket.socket) -> None:
        self.requests.append(peer.recv(65536))
        self._ground.loop.unwatch(peer.fileno())
        try:
            for piece in self._pieces:
                peer.sendall(piece)
        except OSError:
            pass
        if self._close:
            peer.close()

    def close(self) -> None:
        for peer in self._held:
            peer.close()


# --- tcp


def test_tcp_passes_where_somebody_listens(ground: Ground, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert ground.probe("tcp", f"127.0.0.1:{port}").health == "pass"
    assert ground.probe("tcp", f"localhost:{port}").health == "pass"
    assert ground.probe("tcp", f":{port}").health == "pass"


def test_tcp_fails_with_the_reason_where_nobody_listens(ground: Ground) -> None:
    verdict = ground.probe("tcp", f"localhost:{free_port()}", fail_after=1)
    assert verdict.health == "fail"
    assert "connection refused" in verdict.result.detail


def test_tcp_over_ipv6(ground: Ground) -> None:
    try:
        made = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 loopback on this host")
    with made:
        port = made.getsockname()[1]
        assert ground.probe("tcp", f"[::1]:{port}").health == "pass"
        assert ground.probe("tcp", f"localhost:{port}").health == "pass"


def test_tcp_to_a_unix_socket(ground: Ground, tmp_path: Path) -> None:
    path = tmp_path / "s"
    missing = ground.probe("tcp", f"unix:{path}", fail_after=1)
    assert missing.health == "fail"
    assert "no such file" in missing.result.detail
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(path))
        refused = ground.probe("tcp", f"unix:{path}", fail_after=1)
        assert refused.health == "fail"
        made.listen()
        assert ground.probe("tcp", f"unix:{path}").health == "pass"


def test_a_path_that_no_socket_can_have_is_our_fault(ground: Ground) -> None:
    verdict = ground.probe("tcp", "unix:/" + "x" * 200, fail_after=1)
    assert verdict.health == "unknown"
    assert "path" in verdict.warning


def test_a_connect_that_is_not_answered_ends_at_the_deadline(ground: Ground) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        queued = [socket.socket() for _ in range(4)]
        try:
            for one in queued:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            target = f"127.0.0.1:{full.getsockname()[1]}"
            verdict = ground.probe("tcp", target, deadline=0.2, fail_after=1)
        finally:
            for one in queued:
                one.close()
    assert verdict.health == "fail"
    assert "within 0.2 s" in verdict.result.detail


def test_names_are_looked_up_beside_the_loop(
    ground: Ground, listener: socket.socket, tmp_path: Path
) -> None:
    getent = tmp_path / "getent"
    getent.write_text('#!/bin/sh\n[ "$*" = "ahosts db.internal" ] && echo 127.0.0.1 STREAM db\n')
    getent.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{ENV['PATH']}"}
    target = f"db.internal:{listener.getsockname()[1]}"
    assert ground.probe("tcp", target, env=env).health == "pass"


@pytest.mark.skipif(shutil.which("getent") is None, reason="needs getent (package libc-bin)")
def test_a_name_without_address_is_unknown(ground: Ground) -> None:
    verdict = ground.probe("tcp", "no-such-name.invalid:80", fail_after=1)
    assert verdict.health == "unknown"
    assert "no-such-name.invalid" in verdict.warning


# --- http


def test_http_asks_politely_and_passes(ground: Ground, listener: socket.socket) -> None:
    server = Server(ground, listener, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    port = listener.getsockname()[1]
    verdict = ground.probe("http", f"http://127.0.0.1:{port}/healthz?deep=1#x")
    assert verdict.health == "pass"
    assert "status 200" in verdict.result.detail
    request = server.requests[0].decode()
    assert request.startswith("GET /healthz?deep=1 HTTP/1.1\r\n")
    assert f"\r\nHost: 127.0.0.1:{port}\r\n" in request
    assert "\r\nConnection: close\r\n" in request
    assert request.endswith("\r\n\r\n")


@pytest.mark.parametrize(
    ("status", "statuses", "health"),
    [
        (204, ((200, 399),), "pass"),
        (302, ((200, 399),), "pass"),
        (404, ((200, 399),), "fail"),
        (503, ((200, 399),), "fail"),
        (503, ((200, 200), (503, 503)), "pass"),
        (200, ((418, 418),), "fail"),
    ],
)
def test_http_statuses(
    ground: Ground,
    listener: socket.socket,
    status: int,
    statuses: tuple[tuple[int, int], ...],
    health: str,
) -> None:
    Server(ground, listener, f"HTTP/1.1 {status} x\r\n\r\n".encode())
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    verdict = ground.probe("http", url, statuses=statuses, fail_after=1)
    assert verdict.health == health
    assert f"status {status}" in verdict.result.detail


def test_an_interim_answer_is_not_the_answer(ground: Ground, listener: socket.socket) -> None:
    Server(ground, listener, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 no\r\n\r\n")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    assert ground.probe("http", url, fail_after=1).health == "fail"


def test_a_server_that_keeps_the_connection_has_answered_all_the_same(
    ground: Ground, listener: socket.socket
) -> None:
    server = Server(ground, listener, b"HTTP/1.1 200 OK\r\n\r\npart", close=False)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    assert ground.probe("http", url, deadline=0.2).health == "pass"
    server.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [(b"220 mail ready\r\n", "not HTTP"), (b"HTTP/1.1 200", "closed before"), (b"", "closed")],
)
def test_no_answer_and_a_wrong_one_fail_with_the_reason(
    ground: Ground, listener: socket.socket, answer: bytes, says: str
) -> None:
    Server(ground, listener, answer)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    verdict = ground.probe("http", url, fail_after=1)
    assert verdict.health == "fail"
    assert says in verdict.result.detail


def test_a_hanging_server_fails_at_the_deadline(ground: Ground, listener: socket.socket) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    verdict = ground.probe("http", url, deadline=0.2, fail_after=1)
    assert verdict.health == "fail"
    assert "within 0.2 s" in verdict.result.detail


def test_a_large_answer_is_read_within_bounds(ground: Ground, listener: socket.socket) -> None:
    Server(ground, listener, b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 150_000)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    assert ground.probe("http", url).health == "pass"


def test_http_over_a_unix_socket(ground: Ground, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(path))
        made.listen()
        server = Server(ground, made, b"HTTP/1.1 200 OK\r\n\r\n")
        quoted = str(path).replace("/", "%2F")
        assert ground.probe("http", f"http+unix://{quoted}/up").health == "pass"
        assert server.requests[0].startswith(b"GET /up HTTP/1.1\r\nHost: localhost\r\n")
        ground.loop.unwatch(made.fileno())


# --- exec


@pytest.mark.parametrize(
    ("script", "health"),
    [("exit 0", "pass"), ("exit 1", "warn"), ("exit 2", "fail"), ("kill -9 $$", "fail")],
)
def test_exec_codes(ground: Ground, script: str, health: str) -> None:
    verdict = ground.probe("exec", command=("sh", "-c", script), fail_after=1)
    assert verdict.health == health


def test_an_exec_probe_that_hangs_is_ended_and_fails(ground: Ground) -> None:
    verdict = ground.probe("exec", command=("sleep", "600"), deadline=0.1, fail_after=1)
    assert verdict.health == "fail"
    assert "longer than" in verdict.result.detail


def test_an_exec_probe_that_is_missing_is_unknown(ground: Ground) -> None:
    verdict = ground.probe("exec", command=("no-such-program-here",), fail_after=1)
    assert verdict.health == "unknown"
    assert "no-such-program-here" in verdict.warning


# --- commands


def test_a_command_and_the_tail_of_its_output(ground: Ground, tmp_path: Path) -> None:
    script = "pwd; yes 0123456789 | head -n 20000; echo end >&2; exit 3"
    finished = ground.run("sh", "-c", script, cwd=str(tmp_path))
    assert (finished.code, finished.signal, finished.timed_out) == (3, None, False)
    assert finished.output.endswith(b"0123456789\nend\n")
    assert len(finished.output) == 4096
    assert finished.last_line() == "end"
    assert finished.describe() == "exit code 3"
    short = ground.run("pwd", cwd=str(tmp_path))
    assert short.output.decode().strip() == str(tmp_path)
    assert short.ok


def test_a_command_reads_nothing_and_has_its_environment_only(ground: Ground) -> None:
    finished = ground.run("sh", "-c", "cat; env | grep -v -e ^PWD= -e ^_= -e ^SHLVL=; :")
    assert finished.output.decode().strip() == f"PATH={ENV['PATH']}"


def test_a_killed_command_is_said_to_be_killed(ground: Ground) -> None:
    finished = ground.run("sh", "-c", "kill -TERM $$")
    assert (finished.code, finished.signal) == (None, signal.SIGTERM)
    assert finished.describe() == "killed by SIGTERM"


def test_a_command_that_ignores_term_is_killed_with_its_group(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("atlasd.services.commands.GRACE", 0.1)
    pid_file = tmp_path / "pid"
    script = f"trap '' TERM; (trap '' TERM; sleep 600) & echo $! > {pid_file}; wait; sleep 600"
    finished = ground.run("sh", "-c", script, timeout=0.3)
    assert finished.timed_out
    assert finished.signal == signal.SIGKILL
    assert gone(int(pid_file.read_text()))


def test_what_a_late_command_leaves_behind_is_killed_too(ground: Ground, tmp_path: Path) -> None:
    """The leader obeys TERM, its child does not: nobody may go on after the time is over."""
    pid_file = tmp_path / "pid"
    script = f"(trap '' TERM; sleep 600) & echo $! > {pid_file}; wait"
    finished = ground.run("sh", "-c", script, timeout=0.3)
    assert finished.timed_out
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    pid = int(pid_file.read_text())
    if release >= (6, 9):
        assert gone(pid)
    else:
        os.kill(pid, signal.SIGKILL)
        pytest.skip("Linux before 6.9 cannot signal a group through a pidfd")


def gone(pid: int) -> bool:
    """Whether a process has ended; as an orphan it may stay a zombie for a while."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


def test_a_command_with_a_background_child_ends_when_it_ends(ground: Ground) -> None:
    finished = ground.run("sh", "-c", "echo started; sleep 600 & echo $!")
    assert finished.ok
    pid = int(finished.last_line())
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)


def test_a_cancelled_command_is_killed_and_reports_nothing(ground: Ground) -> None:
    command = ground.commands.run(("sleep", "600"), on_exit=ground.ended.append, env=ENV)
    (pid,) = ground.commands.pids()
    command.cancel()
    command.cancel()
    assert ground.commands.owns(pid)
    ground.until(lambda: not ground.commands.owns(pid))
    ground.loop.turn(limit=0)
    assert ground.ended == []


def test_a_command_that_cannot_start_says_why(ground: Ground, tmp_path: Path) -> None:
    assert "no-such-program-here" in ground.run("no-such-program-here").error
    assert ground.run("true", cwd=str(tmp_path / "missing")).error
    assert not ground.ended[0].ok
    plain = tmp_path / "plain"
    plain.write_text("no program")
    assert str(plain) in ground.run(str(plain)).error
    assert not ground.commands.pids()


def test_strangers_are_not_taken_for_commands(ground: Ground) -> None:
    assert not ground.commands.reaped(1, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_command_runs_as_the_user_that_is_asked_for(ground: Ground) -> None:
    ground.commands.run(
        ("id", "-un"), on_exit=ground.ended.append, env=ENV, user="nobody", timeout=10
    )
    ground.until(lambda: ground.ended)
    assert ground.ended[0].last_line() == "nobody"


def test_no_descriptor_is_left_over(ground: Ground) -> None:
    ground.run("true")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        ground.run("sleep", "600", timeout=0.05)
        ground.run("true")
        ground.run("no-such-program-here")
        ground.probe("tcp", f"localhost:{free_port()}")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_a_command_says_is_kept_and_passed_on_without_secrets(ground: Ground) -> None:
    heard: list[bytes] = []
    # In pieces, and more of it than is kept, so that the cut goes through the middle of values.
    script = "for n in $(seq 400); do printf hunt; printf er22-and-more; done; printf ' hunter22-'"
    ground.commands.run(
        ["/bin/sh", "-c", script],
        on_exit=ground.ended.append,
        env=ENV,
        on_output=heard.append,
        redactor=lambda: Redactor([("db", "hunter22-and-more")]),
    )
    ground.until(lambda: ground.ended)
    text = b"[secret:db]" * 400 + b" [secret:db]"
    assert b"".join(heard) == text
    assert ground.ended[0].output == text[-TAIL:]
