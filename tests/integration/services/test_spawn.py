"""Starting programs, by both ways: what they find, and what is said when it does not work."""

import fcntl
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from atlasd.services import procinfo, spawn
from atlasd.services.restart import Exit
from atlasd.services.spawn import Launch, SpawnError
from atlasd.services.spec import Limits
from tests.integration.services.host import SYSTEM_PYTHON

ROOT = os.geteuid() == 0
NOBODY = 65534

SHOW = """
import json, os, resource, signal, sys
found = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        found[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        pass
print(json.dumps({
    "argv": sys.argv[1:],
    "env": dict(os.environ),
    "cwd": os.getcwd(),
    "umask": os.umask(0),
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "leads": [os.getpid() == os.getsid(0), os.getpid() == os.getpgrp()],
    "pid": os.getpid(),
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "fds": sorted(found),
    "targets": found,
    "status": {
        line.split(":")[0]: line.split(":")[1].strip()
        for line in open("/proc/self/status") if ":" in line
    },
}))
"""
WAYS = ["posix_spawn", "clone"]


@pytest.fixture
def null() -> Iterator[int]:
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(null: int, tmp_path: Path) -> Run:
    """Start a program that tells of itself, and wait for it."""

    def start(
        way: str, *, argv: tuple[str, ...] = (), fds: Mapping[int, int] | None = None, **more: Any
    ) -> dict[str, Any]:
        out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if way == "clone":
            more.setdefault("nice", 0)
        launch = Launch(
            argv=(SYSTEM_PYTHON, "-I", "-S", "-c", SHOW, *argv),
            env={"PATH": "/bin", **more.pop("env", {})},
            fds={0: null, 1: out, 2: 2, **(fds or {})},
            **more,
        )
        assert launch.plain is (way == "posix_spawn")
        try:
            pid = spawn.start(launch)
            _, status = os.waitpid(pid, 0)
            assert status == 0
            return dict(json.loads((tmp_path / "out").read_text()), child=pid)
        finally:
            os.close(out)

    return start


def is_ours_alone(fd: int) -> bool:
    try:
        return not os.get_inheritable(fd)
    except OSError:
        return False


@pytest.mark.parametrize("way", WAYS)
def test_a_program_finds_what_it_was_given_and_nothing_else(
    run: Run, way: str, tmp_path: Path
) -> None:
    close_on_exec = {fd for fd in range(4, 200) if is_ours_alone(fd)}
    before = len(list(Path("/proc/self/fd").iterdir()))
    mask = os.umask(0o022)
    os.umask(mask)
    found = run(way, argv=("a b", "ü"), env={"COLOUR": "grün"}, cwd=str(tmp_path), umask=0o077)
    assert found["argv"] == ["a b", "ü"]
    assert found["env"].items() >= {"PATH": "/bin", "COLOUR": "grün"}.items()
    assert "HOME" not in found["env"]
    assert found["cwd"] == str(tmp_path)
    assert found["umask"] == 0o077
    assert found["leads"] == [True, True]
    assert found["pid"] == found["child"]
    assert not set(found["fds"]) & close_on_exec, "what is ours stays ours"
    assert found["status"]["SigBlk"] == "0000000000000000"
    assert Path.cwd() != tmp_path
    assert os.umask(mask) == mask
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("way", WAYS)
def test_what_python_ignores_a_program_does_not(null: int, tmp_path: Path, way: str) -> None:
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    pid = spawn.start(
        Launch(
            argv=("grep", "SigIgn", "/proc/self/status"),
            env={"PATH": "/bin:/usr/bin"},
            fds={0: null, 1: out, 2: 2},
            nice=0 if way == "clone" else None,
        )
    )
    os.waitpid(pid, 0)
    os.close(out)
    ignored = int((tmp_path / "out").read_text().split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1)
    assert not ignored & (1 << signal.SIGXFSZ - 1)


@pytest.mark.parametrize("way", WAYS)
def test_descriptors_come_at_the_numbers_asked_for(run: Run, way: str) -> None:
    read, write = os.pipe()
    try:
        found = run(way, fds={3: write, 7: read})
    finally:
        os.close(read)
        os.close(write)
    assert {3, 7} <= set(found["fds"])


@pytest.mark.parametrize("way", WAYS)
def test_descriptors_may_stand_at_each_others_numbers(run: Run, way: str) -> None:
    """Whoever is copied first must not be overwritten by the second."""
    a = os.open("/dev/zero", os.O_RDONLY)
    b = os.open("/dev/full", os.O_RDONLY)
    before = len(list(Path("/proc/self/fd").iterdir()))
    try:
        found = run(way, fds={a: b, b: a})
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    finally:
        for fd in (a, b):
            os.close(fd)
    assert {a, b} <= set(found["fds"])
    assert (found["targets"][str(a)], found["targets"][str(b)]) == ("/dev/full", "/dev/zero")


def test_who_listens_is_told_so_by_his_own_pid(run: Run) -> None:
    found = run("clone", listen_fds=True)
    assert found["env"]["LISTEN_PID"] == str(found["child"])


@pytest.mark.parametrize("way", WAYS)
def test_a_program_with_secrets_is_not_dumped_and_the_next_one_is(run: Run, way: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    assert run(way, no_core=True)["core"][0] == (1 if hard != 0 else 0)
    assert run(way)["core"] == [soft, hard]
    assert resource.getrlimit(resource.RLIMIT_CORE) == (soft, hard)
    if hard != 0:
        limits = Limits(core=512)
        assert run("clone", no_core=True, limits=limits)["core"] == [512, 512]


def test_limits_nice_and_no_new_privs_hold(run: Run) -> None:
    found = run("clone", nice=5, no_new_privs=True, limits=Limits(nofile=77, core=0), fds={})
    assert found["nice"] == 5
    assert found["nofile"] == [77, 77]
    assert found["core"] == [0, 0]
    assert found["status"]["NoNewPrivs"] == "1"


@pytest.mark.skipif(not ROOT, reason="needs root to become somebody else")
def test_a_program_runs_as_its_user_and_can_never_come_back(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    who = spawn.account(str(NOBODY), None)
    assert who is not None
    found = run("clone", account=who, cwd="/")
    assert found["ids"][0] == [NOBODY] * 3
    assert found["ids"][1] == [who.gid] * 3
    assert set(found["ids"][2]) <= {*who.groups}


@pytest.mark.parametrize("way", WAYS)
def test_a_raised_limit_of_open_files_is_not_handed_on(
    run: Run, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(spawn, "_soft_nofile", 200)
    try:
        found = run(way)
        assert found["nofile"] == [200, hard]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_descriptor_above_the_programs_limit_is_passed_all_the_same(
    run: Run, null: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when the role holds some hundred instances.
    monkeypatch.setattr(spawn, "_soft_nofile", 600)
    high = fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, 700)
    try:
        found = run("posix_spawn", fds={5: high})
    finally:
        os.close(high)
    assert found["targets"]["5"] == "/dev/null"
    assert found["nofile"][0] == 600


BAD = {
    "missing": "no such program: nowhere (searched /bin)",
    "missing-path": "no such program: {tmp}/nowhere",
    "folder": "not an executable file: {tmp}",
    "not-executable": "not an executable file: {tmp}/plain",
    "no-program": "cannot execute {tmp}/garbage: not a program (a script needs a #! line)",
    "no-interpreter": "the interpreter in its #! line is missing",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_started_is_said_in_words_and_nothing_is_left(
    null: int, tmp_path: Path, way: str, kind: str
) -> None:
    (tmp_path / "plain").write_text("x")
    for name, text in (("garbage", "\0\1\2"), ("orphan", "#!/nowhere/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    program = {
        "missing": "nowhere",
        "missing-path": f"{tmp_path}/nowhere",
        "folder": str(tmp_path),
        "not-executable": f"{tmp_path}/plain",
        "no-program": f"{tmp_path}/garbage",
        "no-interpreter": f"{tmp_path}/orphan",
    }[kind]
    before = len(list(Path("/proc/self/fd").iterdir()))
    launch = Launch(
        argv=(program,),
        env={"PATH": "/bin"},
        fds={0: null, 1: null, 2: null},
        nice=0 if way == "clone" else None,
    )
    with pytest.raises(SpawnError) as error:
        spawn.start(launch)
    assert BAD[kind].format(tmp=tmp_path) in str(error.value)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert procinfo.children(os.getpid()) == [] or all(
        s is None or s.state != "Z" for s in map(procinfo.stat, procinfo.children(os.getpid()))
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cwd": "/nowhere", "nice": 0}, "cannot change to folder /nowhere"),
        ({"cwd": "/nowhere"}, "/nowhere"),
        ({"limits": Limits(nofile=2**40)}, "cannot set limit nofile"),
    ],
)
def test_a_step_that_fails_is_named(null: int, changes: dict[str, Any], said: str) -> None:
    launch = Launch(argv=("/bin/true",), env={}, fds={0: null, 1: null, 2: null}, **changes)
    with pytest.raises(SpawnError) as error:
        spawn.start(launch)
    assert said in str(error.value)


def test_unknown_accounts_are_said_in_words() -> None:
    with pytest.raises(SpawnError, match="no such user: nobody-of-that-name"):
        spawn.account("nobody-of-that-name", None)
    with pytest.raises(SpawnError, match="no such group: nobody-of-that-name"):
        spawn.account(None, "nobody-of-that-name")
    assert spawn.account(None, None) is None


# ---------------------------------------------------------------------- what the kernel says


@pytest.fixture
def sleeper(null: int) -> Iterator[int]:
    pid = spawn.start(
        Launch(
            argv=("/bin/sh", "-c", "sleep 1000 & wait"),
            env={"PATH": "/bin", "MARK": "x"},
            fds={0: null, 1: null, 2: null},
        )
    )
    yield pid
    for process in procinfo.descendants([pid]):
        procinfo.signal_proven(process, signal.SIGKILL)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def test_a_process_is_proven_by_its_start_time(sleeper: int) -> None:
    found = procinfo.stat(sleeper)
    assert found is not None
    assert (found.sid, found.pgid, found.ppid) == (sleeper, sleeper, os.getpid())
    fd = procinfo.open_proven(sleeper, found.start_time)
    assert fd is not None
    assert procinfo.send(fd, 0)
    assert procinfo.open_proven(sleeper, found.start_time + 1) is None
    os.close(fd)


def test_the_end_of_a_process_is_known_before_and_after_it_is_reaped(sleeper: int) -> None:
    found = procinfo.stat(sleeper)
    assert found is not None
    fd = procinfo.open_proven(sleeper, found.start_time)
    assert fd is not None
    children = [p for p in procinfo.descendants([sleeper]) if p.pid != sleeper]
    for process in children:
        assert procinfo.signal_proven(process, signal.SIGKILL)
    os.kill(sleeper, signal.SIGTERM)
    os.waitid(os.P_PID, sleeper, os.WEXITED | os.WNOWAIT)
    told = procinfo.exit_of(fd, sleeper, found.start_time)
    assert told.signal == signal.SIGTERM or told.code is not None
    assert procinfo.exit_of(fd, sleeper, found.start_time + 1) != told, "a stranger's end"
    os.waitpid(sleeper, 0)
    assert procinfo.stat(sleeper) is None
    assert procinfo.exit_of(fd, sleeper, found.start_time) in (told, Exit())
    assert not procinfo.send(fd, signal.SIGTERM)
    os.close(fd)


def test_a_name_with_brackets_and_spaces_confuses_nobody(null: int, tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    pid = spawn.start(Launch(argv=(str(program), "1000"), env={}, fds={0: null, 1: null, 2: null}))
    try:
        found = procinfo.stat(pid)
        assert found is not None
        assert (found.ppid, found.sid) == (os.getpid(), pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
