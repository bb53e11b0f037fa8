"""Cgroups of this very host: who is in them, ending them all, and limits that really bite."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atlasd.services import cgroup_files, spawn
from atlasd.services.cgroup import Cgroup, Cgroups, open_cgroups
from atlasd.services.loop import Loop
from atlasd.services.notifysock import NotifySocket
from atlasd.services.spec import Limits

FORKS = "for i in $(seq 20); do (trap '' TERM; setsid sleep 600) & done; sleep 600"


@pytest.fixture
def cgroups(tmp_path: Path) -> Iterator[Cgroups]:
    found, place = open_cgroups("auto", str(tmp_path))
    if found is None:
        pytest.skip(f"no cgroup of our own on this host: {place.detail}")
    yield found
    for parent in (found.place.v2, *found.place.v1.values()):
        for folder in sorted(Path(parent).glob("**/"), reverse=True):
            if (folder / "cgroup.procs").exists():
                folder.rmdir()


@pytest.fixture
def web(cgroups: Cgroups) -> Iterator[Cgroup]:
    made = cgroups.create("web", 0)
    yield made
    if made.fd >= 0:
        made.kill()
        until(lambda: reap() and not made.populated())
        assert made.remove()


STARTED: set[int] = set()


def reap() -> bool:
    """Wait for those of our programs that have ended."""
    for pid in tuple(STARTED):
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0]
        except ChildProcessError:
            ended = pid  # the test itself has waited for it
        if ended:
            STARTED.discard(pid)
    return True


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def start(cgroup: Cgroup, *argv: str) -> int:
    """A program in the cgroup, as services are started."""
    nothing = os.open("/dev/null", os.O_RDWR)
    try:
        pid = spawn.start(
            spawn.Launch(
                argv=argv,
                env=dict(os.environ),
                fds={0: nothing, 1: nothing, 2: nothing},
                cgroup_fd=cgroup.fd,
                join=cgroup.join_paths,
            )
        )
    finally:
        os.close(nothing)
    STARTED.add(pid)
    return pid


def test_a_program_starts_in_its_cgroup_and_stays_there(web: Cgroup) -> None:
    assert not web.populated()
    pid = start(web, "sleep", "600")
    assert web.populated()
    assert web.processes() == (pid,)
    os.kill(pid, signal.SIGKILL)
    until(lambda: reap() and not web.populated())
    assert web.processes() == ()


def test_everything_is_found_and_killed_at_once_escapees_too(web: Cgroup) -> None:
    start(web, "sh", "-c", FORKS)
    until(lambda: len(web.processes()) >= 22)
    usage = web.usage()
    assert usage.tasks is not None
    assert usage.tasks >= 21
    assert usage.memory_bytes is not None
    assert usage.memory_bytes > 0
    assert usage.cpu_seconds is not None
    web.kill()
    until(lambda: reap() and not web.populated())
    assert web.processes() == ()


def test_killing_works_without_the_kernels_own_way(
    web: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(web, "sh", "-c", FORKS)
    until(lambda: len(web.processes()) >= 22)
    monkeypatch.setattr(
        "atlasd.services.cgroup.write",
        lambda path, text: not path.endswith("cgroup.kill") and cgroup_files.write(path, text),
    )
    web.kill()
    until(lambda: reap() and not web.populated())


def test_the_last_ones_going_is_told(web: Cgroup) -> None:
    loop = Loop()
    told: list[bool] = []
    pid = start(web, "sleep", "600")
    web.watch_empty(loop, lambda: told.append(web.populated()))
    loop.turn(limit=0.05)
    assert told == []
    os.kill(pid, signal.SIGKILL)
    while not told:
        loop.turn(limit=0.5)
    assert told == [False]
    web.unwatch()
    reap()
    pid = start(web, "true")
    until(lambda: reap() and not web.populated())
    loop.turn(limit=0.05)
    assert told == [False]
    loop.close()


def test_a_program_may_make_cgroups_of_its_own(web: Cgroup) -> None:
    inner = Path(web.path) / "inner"
    inner.mkdir()
    pid = start(web, "sleep", "600")
    (inner / "cgroup.procs").write_text(str(pid))
    assert web.processes() == (pid,)
    assert web.populated()
    assert not web.remove()
    web.kill()
    until(lambda: reap() and not web.populated())
    assert web.remove()
    assert not inner.exists()


def test_an_existing_cgroup_is_taken_over(cgroups: Cgroups, web: Cgroup) -> None:
    pid = start(web, "sleep", "600")
    again = cgroups.create("web", 0)
    assert again.processes() == (pid,)
    again.close()


def test_members_are_known_and_strangers_are_not(web: Cgroup) -> None:
    pid = start(web, "sleep", "600")
    pidfd, own = os.pidfd_open(pid), os.pidfd_open(os.getpid())
    try:
        assert web.holds(pid)
        assert web.holds(pid, pidfd)
        assert not web.holds(os.getpid())
        assert not web.holds(os.getpid(), own)
    finally:
        os.close(pidfd)
        os.close(own)


@pytest.mark.skipif(
    tuple(int(p) for p in os.uname().release.split(".")[:2]) < (6, 15),
    reason="needs Linux 6.15 to know the cgroup of a process that has ended",
)
def test_one_who_has_spoken_and_ended_still_belongs(web: Cgroup, tmp_path: Path) -> None:
    """As a shell script's notifier does, which is gone before its message is read."""
    loop = Loop()
    heard: list[tuple[bool, bool]] = []
    listening = NotifySocket(
        loop,
        str(tmp_path / "n"),
        lambda m: heard.append((m.pid in web.processes(), web.holds(m.pid, m.pidfd))),
    )
    code = "import os; from atlasd import notify; os._exit(0 if notify.ready() else 1)"
    os.environ["NOTIFY_SOCKET"] = listening.address
    try:
        pid = start(web, sys.executable, "-c", code)
    finally:
        del os.environ["NOTIFY_SOCKET"]
    assert os.waitpid(pid, 0)[1] == 0
    loop.turn(limit=5)
    assert heard == [(False, True)]
    listening.close()
    loop.close()


def test_cgroups_of_forgotten_instances_are_swept(cgroups: Cgroups, web: Cgroup) -> None:
    cgroups.create("old", 3).close()
    cgroups.sweep(frozenset({"web.0"}))
    assert [p.name for p in Path(cgroups.place.v2).iterdir() if p.is_dir()] == ["web.0"]


# --- limits


def limited(cgroup: Cgroup, **limits: float) -> None:
    """Set limits or skip by name."""
    unmet = cgroup.apply_limits(Limits(**limits))  # type: ignore[arg-type]
    if unmet:
        pytest.skip(f"this host has no controller for: {', '.join(unmet)}")


def test_too_much_memory_is_an_oom_kill_and_is_counted(web: Cgroup) -> None:
    limited(web, memory=32 << 20)
    before = web.oom_kills()
    assert before is not None
    eat = "x = [bytearray(1 << 20) for _ in range(256)]"
    pid = start(web, sys.executable, "-S", "-c", eat)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert web.oom_kills() == before + 1
    usage = web.usage()
    assert usage.memory_peak_bytes is None or usage.memory_peak_bytes > 16 << 20


def test_too_many_tasks_are_refused(web: Cgroup) -> None:
    limited(web, tasks=3)
    pid = start(web, "sh", "-c", "sleep 600 & sleep 600 & sleep 600 & sleep 600 & wait")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) != 0


def test_processor_time_is_limited_and_counted(web: Cgroup) -> None:
    limited(web, cpu=0.2)
    web.begin()
    began = time.monotonic()
    pid = start(web, sys.executable, "-S", "-c", "while True: pass")
    until(lambda: (web.usage().cpu_seconds or 0) > 0.3)
    took = time.monotonic() - began
    os.kill(pid, signal.SIGKILL)
    # 0.3 s of processor time at a fifth of one; half of that allows for the first period.
    assert took > 0.75


def test_a_limit_reaches_a_running_program_and_is_lifted_again(web: Cgroup) -> None:
    pid = start(web, "sleep", "600")
    limited(web, tasks=50)
    paths = [*(Path(p) for p in web.join_paths), Path(web.path) / "cgroup.procs"]
    folder = next(p.parent for p in paths if (p.parent / "pids.max").exists())
    assert (folder / "pids.max").read_text().strip() == "50"
    assert str(pid) in (folder / "cgroup.procs").read_text().split()
    assert web.apply_limits(Limits()) == ()
    assert (folder / "pids.max").read_text().strip() == "max"


def test_a_program_that_was_limited_leaves_no_cgroup_behind(web: Cgroup) -> None:
    limited(web, memory=64 << 20, tasks=10)
    pid = start(web, "sleep", "600")
    folders = [web.path, *web.v1_paths.values()]
    for folder in folders:
        assert str(pid) in Path(folder, "cgroup.procs").read_text().split()
    web.kill()
    until(lambda: reap() and not web.populated())
    until(web.remove)
    assert not any(Path(folder).exists() for folder in folders)


def test_a_successor_keeps_the_limits_in_sight(cgroups: Cgroups, web: Cgroup) -> None:
    limited(web, memory=64 << 20)
    again = cgroups.create("web", 0)
    assert again.join_paths == web.join_paths
    assert again.oom_kills() == 0
    again.close()


def test_the_place_is_the_same_for_a_successor(cgroups: Cgroups, tmp_path: Path) -> None:
    code = (
        "import sys; from atlasd.services.cgroup import open_cgroups; "
        "print(open_cgroups('auto', sys.argv[1])[1].v2)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == cgroups.place.v2
