"""Probes with a hand-wound clock: targets, results, what is told, and the asking again."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.clock import HandClock
from atlasd.services.commands import Finished
from atlasd.services.dial import Address, Endpoint, numeric, parse_endpoint, parse_getent
from atlasd.services.loop import Loop
from atlasd.services.probe_http import HEAD_LIMIT, parse_head, parse_url
from atlasd.services.probes import Prober, exec_result, file_result
from atlasd.services.probing import Verdict
from atlasd.services.readiness import LINE_LIMIT, LogProbe, ReadyPipe, UptimeProbe
from atlasd.services.spec import Probe
from atlasd.states import Health


class Ground:
    """A loop with a hand-wound clock, and the verdicts that came."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.loop = Loop(self.clock)
        self.verdicts: list[Verdict] = []

    @property
    def health(self) -> list[str]:
        return [str(v.health) for v in self.verdicts]

    def wind(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.clock.wind(seconds)
        self.turn()

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn(limit=0)


@pytest.fixture
def ground() -> Iterator[Ground]:
    made = Ground()
    yield made
    made.loop.close()


class FakeCommand:
    """A command that ends when the test says so."""

    def __init__(self, argv: Sequence[str], options: Mapping[str, object]) -> None:
        self.argv = tuple(argv)
        self.options = options
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def end(self, finished: Finished) -> None:
        on_exit = self.options["on_exit"]
        assert callable(on_exit)
        on_exit(finished)


class FakeSpawn:
    """Spawns nothing, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.commands: list[FakeCommand] = []

    def __call__(
        self,
        argv: Sequence[str],
        *,
        on_exit: Callable[[Finished], object],
        env: Mapping[str, str],
        cwd: str = "/",
        user: str | None = None,
        group: str | None = None,
        timeout: float | None = None,
    ) -> FakeCommand:
        options = {"on_exit": on_exit, "env": env, "cwd": cwd, "user": user, "timeout": timeout}
        self.commands.append(FakeCommand(argv, options))
        return self.commands[-1]


# --- targets


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:80", Endpoint(host="127.0.0.1", port=80)),
        ("localhost:8080", Endpoint(host="localhost", port=8080)),
        (":8080", Endpoint(host="localhost", port=8080)),
        ("[::1]:443", Endpoint(host="::1", port=443)),
        ("tcp://db.internal:5432", Endpoint(host="db.internal", port=5432)),
        ("unix:/run/app.sock", Endpoint(path="/run/app.sock")),
        ("unix:///run/app.sock", Endpoint(path="/run/app.sock")),
    ],
)
def test_tcp_targets(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("localhost", "port"),
        ("localhost:0", "port"),
        ("localhost:65536", "port"),
        ("localhost:http", "port"),
        ("::1:80", "brackets"),
        ("unix:app.sock", "absolute"),
        ("-x:80", "not the name"),
        ("a b:80", "not the name"),
        ("", "port"),
    ],
)
def test_wrong_tcp_targets_are_refused_with_what_is_right(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_endpoint(text)


def test_an_endpoint_is_written_as_it_is_read() -> None:
    for text in ("127.0.0.1:80", "[::1]:443", "unix:/run/x"):
        assert str(parse_endpoint(text)) == text


@pytest.mark.parametrize(
    ("url", "endpoint", "host", "path"),
    [
        ("http://127.0.0.1:8080/healthz", ("127.0.0.1", 8080, ""), "127.0.0.1:8080", "/healthz"),
        ("http://localhost", ("localhost", 80, ""), "localhost", "/"),
        ("HTTP://localhost?x=1#top", ("localhost", 80, ""), "localhost", "/?x=1"),
        ("http://[::1]:9/a/b", ("::1", 9, ""), "[::1]:9", "/a/b"),
        ("http://[::1]/", ("::1", 80, ""), "[::1]", "/"),
        ("http+unix://%2Frun%2Fa.sock/x", ("", 0, "/run/a.sock"), "localhost", "/x"),
        ("http+unix:///run/a.sock:/x?y", ("", 0, "/run/a.sock"), "localhost", "/x?y"),
        ("http+unix:///run/a.sock", ("", 0, "/run/a.sock"), "localhost", "/"),
    ],
)
def test_urls(url: str, endpoint: tuple[str, int, str], host: str, path: str) -> None:
    target = parse_url(url)
    assert tuple(target.endpoint) == endpoint
    assert (target.host, target.path) == (host, path)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://localhost/", "exec"),
        ("localhost:80/", "give a URL"),
        ("ftp://localhost/", "give a URL"),
        ("http://u:p@localhost/", "credentials"),
        ("http://:80/", "host is missing"),
        ("http://localhost:x/", "port"),
        ("http://localhost/a b", "percent-encode"),
        ("http://localhost/\r\nX: y", "percent-encode"),
        ("http://localhost/ü", "percent-encode"),
        ("http+unix://run/x", "socket's path"),
        ("http+unix://%2/x", "hex"),
    ],
)
def test_wrong_urls_are_refused_with_what_is_right(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_url(url)


def test_numeric_addresses_and_localhost_need_no_look_up() -> None:
    assert [a.address for a in numeric(Endpoint(host="localhost", port=1))] == [
        ("127.0.0.1", 1),
        ("::1", 1),
    ]
    assert [a.address for a in numeric(Endpoint(host="10.0.0.1", port=1))] == [("10.0.0.1", 1)]
    assert [a.address for a in numeric(Endpoint(path="/x"))] == ["/x"]
    assert numeric(Endpoint(host="db.internal", port=1)) == ()


def test_addresses_that_getent_found() -> None:
    output = b"10.1.2.3  STREAM db\n10.1.2.3  DGRAM\nfd00::1  STREAM\nrubbish here\n\n"
    found = parse_getent(output, 5432)
    assert [a.address for a in found] == [("10.1.2.3", 5432), ("fd00::1", 5432)]
    assert all(isinstance(a, Address) for a in found)


# --- answers


def test_the_head_of_an_answer() -> None:
    head = parse_head(b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n")
    assert head is not None
    assert (head.status, head.length) == (204, 0)
    data = b"HTTP/1.0 200 OK\r\ncontent-LENGTH: 5\r\n\r\nhello"
    head = parse_head(data)
    assert head is not None
    assert (head.status, head.length, data[head.end :]) == (200, 5, b"hello")
    bare = parse_head(b"HTTP/1.1 404\n\n")
    assert bare is not None
    assert bare.status == 404


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-OpenSSH\r\n\r\n", b"\x15\x03", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1\r\n\r\n"],
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        parse_head(data)


def test_an_endless_head_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than"):
        parse_head(b"HTTP/1.1 200 OK\r\n" + b"x" * HEAD_LIMIT)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_an_answer_the_beginning_of_one_or_refused(a: bytes, b: bytes) -> None:
    """More bytes may complete a head, but never change one that is complete."""
    try:
        first = parse_head(b"HTTP/1.1 200 " + a)
    except ValueError:
        return
    if first is not None:
        assert parse_head(b"HTTP/1.1 200 " + a + b) == first


@given(st.integers(0, 60))
def test_a_head_in_pieces_is_waited_for(cut: int) -> None:
    data = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    head = parse_head(data[:cut])
    assert (head is None) == (cut < len(data))


# --- exec and file


@pytest.mark.parametrize(
    ("finished", "health", "says"),
    [
        (Finished(code=0, output=b"fine\n"), Health.PASS, "fine"),
        (Finished(code=1, output=b"disk 91%\n"), Health.WARN, "disk 91%"),
        (Finished(code=2, output=b"first\nlast\n\n"), Health.FAIL, "last"),
        (Finished(code=255), Health.FAIL, "exit code 255"),
        (Finished(signal=9), Health.FAIL, "SIGKILL"),
        (Finished(code=0, timed_out=True), Health.FAIL, "longer"),
        (Finished(code=127, output=b"sh: nope: not found"), Health.UNKNOWN, "not found"),
        (Finished(code=126), Health.UNKNOWN, "126"),
        (Finished(code=127, timed_out=True), Health.FAIL, "longer"),
        (Finished(error="no such program: nope"), Health.UNKNOWN, "no such program"),
    ],
)
def test_what_the_end_of_a_probe_command_means(
    finished: Finished, health: Health, says: str
) -> None:
    result = exec_result(finished)
    assert result.health is health
    assert says in result.detail


def test_a_file_probe(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    assert file_result(str(path)).health is Health.FAIL
    assert file_result(str(path / "below")).health is Health.FAIL
    path.touch()
    assert file_result(str(path)).health is Health.PASS
    assert file_result(str(path / "below")).health is Health.FAIL
    assert file_result("nul\0byte").health is Health.UNKNOWN


# --- asking again


def test_the_first_probe_is_made_at_once_and_then_again(ground: Ground, tmp_path: Path) -> None:
    path = tmp_path / "ready"
    probe = Probe(kind="file", target=str(path), interval=10)
    prober = Prober(
        ground.loop,
        probe,
        started=ground.clock.monotonic(),
        on_verdict=ground.verdicts.append,
        uniform=lambda: 0.5,
    )
    prober.start()
    ground.turn()
    assert ground.health == ["unknown"]
    path.touch()
    ground.wind(0.2)
    assert ground.health == ["unknown"]
    ground.wind(0.05)
    assert ground.health == ["unknown", "pass"]
    path.unlink()
    ground.wind(9.9)
    assert len(ground.verdicts) == 2
    for _ in range(3):
        ground.wind(10)
    assert ground.health[2:] == ["pass", "pass", "fail"]
    prober.stop()
    ground.wind(100)
    assert len(ground.verdicts) == 5


def test_a_verdict_may_stop_its_prober(ground: Ground, tmp_path: Path) -> None:
    probe = Probe(kind="file", target=str(tmp_path))

    def hear(verdict: Verdict) -> None:
        ground.verdicts.append(verdict)
        prober.stop()

    prober = Prober(ground.loop, probe, started=0.0, on_verdict=hear)
    prober.start()
    for _ in range(5):
        ground.wind(100)
    assert ground.health == ["pass"]


def test_exec_probes_never_overlap_and_pass_on_the_services_surroundings(ground: Ground) -> None:
    spawn = FakeSpawn()
    probe = Probe(kind="exec", command=("check", "--fast"), interval=1, deadline=7)
    prober = Prober(
        ground.loop,
        probe,
        started=0.0,
        on_verdict=ground.verdicts.append,
        spawn=spawn,
        env={"A": "b"},
        cwd="/srv",
        user="www-data",
        uniform=lambda: 0.5,
    )
    prober.start()
    ground.wind(30)
    assert len(spawn.commands) == 1
    command = spawn.commands[0]
    assert command.argv == ("check", "--fast")
    assert command.options["env"] == {"A": "b"}
    assert (command.options["cwd"], command.options["user"]) == ("/srv", "www-data")
    assert command.options["timeout"] == 7
    command.end(Finished(code=0))
    ground.wind(1)
    assert ground.health == ["pass"]
    assert len(spawn.commands) == 2
    prober.stop()
    assert spawn.commands[1].cancelled


def test_a_missing_probe_command_never_fails_a_good_service(ground: Ground) -> None:
    spawn = FakeSpawn()
    probe = Probe(kind="exec", command=("nope",), interval=1, fail_after=1)
    prober = Prober(
        ground.loop,
        probe,
        started=0.0,
        on_verdict=ground.verdicts.append,
        spawn=spawn,
        health=Health.PASS,
    )
    prober.start()
    for _ in range(5):
        spawn.commands[-1].end(Finished(error="no such program: nope"))
        ground.wind(2)
    assert ground.health == ["unknown"] * 5
    assert ground.verdicts[0].changed
    assert "no such program" in ground.verdicts[0].warning


def test_an_adopted_instance_keeps_its_verdict_until_it_really_fails(ground: Ground) -> None:
    probe = Probe(kind="file", target="/nonexistent/file", interval=1, fail_after=2)
    prober = Prober(
        ground.loop,
        probe,
        started=0.0,
        on_verdict=ground.verdicts.append,
        health=Health.PASS,
        uniform=lambda: 0.5,
    )
    prober.start()
    ground.turn()
    assert ground.health == ["pass"]
    ground.wind(1)
    assert ground.health == ["pass", "fail"]


def test_a_name_is_looked_up_by_a_command_and_only_when_needed(ground: Ground) -> None:
    spawn = FakeSpawn()
    probe = Probe(kind="tcp", target="nowhere.invalid:80", interval=1)
    prober = Prober(ground.loop, probe, started=0.0, on_verdict=ground.verdicts.append, spawn=spawn)
    prober.start()
    assert spawn.commands[0].argv == ("getent", "ahosts", "nowhere.invalid")
    spawn.commands[0].end(Finished(code=2))
    ground.turn()
    assert ground.health == ["unknown"]
    assert "nowhere.invalid" in ground.verdicts[0].warning
    prober.stop()


def test_probes_that_cannot_be_are_refused_when_made(ground: Ground) -> None:
    for probe, says in [
        (Probe(kind="http", target="https://localhost/"), "plain HTTP"),
        (Probe(kind="tcp", target="nonsense"), "port"),
        (Probe(kind="exec", command=("x",)), "somebody to run it"),
        (Probe(kind="notify"), "told"),
    ]:
        with pytest.raises(ValueError, match=says):
            Prober(ground.loop, probe, started=0.0, on_verdict=ground.verdicts.append)


# --- told


def test_a_log_line_makes_ready_once(ground: Ground) -> None:
    probe = LogProbe(r"listening on \d+$", on_verdict=ground.verdicts.append)
    probe.feed(b"listening on 1\n")
    assert not ground.verdicts
    probe.start()
    probe.feed(b"starting\nlisten")
    probe.feed(b"ing on 80")
    probe.feed(b"listening on 9999 soon\n", "stderr")
    assert not ground.verdicts
    probe.feed(b"80\r\nlistening on 1\n")
    probe.feed(b"listening on 2\n")
    assert ground.health == ["pass"]
    assert "listening on 8080" in ground.verdicts[0].result.detail


def test_streams_are_not_mixed_into_one_line(ground: Ground) -> None:
    probe = LogProbe("ready", on_verdict=ground.verdicts.append)
    probe.start()
    probe.feed(b"rea", "stdout")
    probe.feed(b"dy\n", "stderr")
    assert not ground.verdicts


def test_an_endless_line_costs_no_memory(ground: Ground) -> None:
    probe = LogProbe("ready", on_verdict=ground.verdicts.append)
    probe.start()
    for _ in range(100):
        probe.feed(b"x" * LINE_LIMIT)
    probe.feed(b"ready\nready\n")
    assert len(ground.verdicts) == 1
    assert ground.verdicts[0].result.detail == "output says: ready"


@given(st.lists(st.binary(max_size=20), max_size=10), st.data())
def test_lines_are_the_same_however_they_are_cut(chunks: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(chunks) + b"\nthe end: ok\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    found: list[Verdict] = []
    probe = LogProbe("^the end: ok$", on_verdict=found.append)
    probe.start()
    for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        probe.feed(whole[a:b])
    assert len(found) == 1


def test_a_wrong_pattern_is_refused(ground: Ground) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        LogProbe("(", on_verdict=ground.verdicts.append)


def test_ready_after_a_time(ground: Ground) -> None:
    started = ground.clock.monotonic()
    ground.wind(2)
    probe = UptimeProbe(ground.loop, 5, started=started, on_verdict=ground.verdicts.append)
    probe.start()
    ground.wind(2.9)
    assert not ground.verdicts
    ground.wind(0.2)
    assert ground.health == ["pass"]


def test_a_stopped_uptime_probe_says_nothing(ground: Ground) -> None:
    probe = UptimeProbe(ground.loop, 5, started=0.0, on_verdict=ground.verdicts.append)
    probe.start()
    probe.stop()
    ground.wind(100)
    assert not ground.verdicts


def test_a_newline_on_the_pipe_makes_ready(ground: Ground, tmp_path: Path) -> None:
    path = str(tmp_path / "ready.web.0")
    pipe = ReadyPipe(ground.loop, path, on_verdict=ground.verdicts.append)
    theirs = os.dup(pipe.child_fd())
    pipe.spawned()
    pipe.start()
    os.write(theirs, b"not yet")
    ground.turn()
    assert not ground.verdicts
    os.write(theirs, b"\n")
    ground.turn()
    assert ground.health == ["pass"]
    assert not Path(path).exists()
    os.close(theirs)


def test_a_successor_hears_what_is_written_after_the_death_of_the_first(
    ground: Ground, tmp_path: Path
) -> None:
    path = str(tmp_path / "ready.web.0")
    first = ReadyPipe(ground.loop, path, on_verdict=ground.verdicts.append)
    theirs = os.dup(first.child_fd())
    first.spawned()
    os.close(first.fileno())  # as its death would
    os.write(theirs, b"\n")  # and no SIGPIPE comes
    second = ReadyPipe(ground.loop, path, on_verdict=ground.verdicts.append)
    second.start()
    ground.turn()
    assert ground.health == ["pass"]
    os.close(theirs)
