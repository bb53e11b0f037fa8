"""The services role is replaced in place; a successor that is no good gives way to the old one."""

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.integration.services.host import (
    REPOSITORY,
    Host,
    Moments,
    alive,
    environment,
    program,
    until,
)

SERVICES = 5

LISTEN = "    listener = _listen("
ANSWER = "    return json.dumps({"
CHANGES = {
    # What is put before a line of which file; at its end, without a line.
    "cannot-be-imported": ("main.py", "def main(", "raise SystemExit('broken')\n"),
    "answers-nonsense": ("upgrade.py", ANSWER, "    return 'what?'\n"),
    "hangs": ("upgrade.py", ANSWER, "    __import__('time').sleep(3600)\n"),
    "reads-other-states": ("upgrade.py", ANSWER, "    READS = (2,)\n"),
    "fails-at-once": ("main.py", "    lock = _lock(", "    raise RuntimeError('oh')\n"),
    "fails-in-adoption": (
        "adoption.py",
        "    unit.process.adopt(",
        "    raise RuntimeError('oh')\n",
    ),
    "fails-after-adoption": ("main.py", LISTEN, "    raise RuntimeError('oh')\n"),
    "hangs-after-adoption": ("main.py", LISTEN, "    __import__('time').sleep(3600)\n"),
    "dies": ("main.py", LISTEN, "    os.kill(os.getpid(), signal.SIGKILL)\n"),
}
slow = pytest.mark.soak


@pytest.fixture
def counting(host: Host) -> dict[str, list[int]]:
    host.start(
        {
            f"count-{n}": {
                "command": program("count", 0.002, f"mark-{n}"),
                "min_uptime": "0s",
                "ready": {"log": "^1$"},
            }
            for n in range(SERVICES)
        }
        | {"plain": {"command": program("sleep"), "min_uptime": "0s"}}
    )
    return host.all_running([f"count-{n}" for n in range(SERVICES)])


def other_program(host: Host, change: str | None, version: str = "9.9.9") -> str:
    """An interpreter that finds a changed atlasd: its own version, and a line put in somewhere."""
    package = host.root / "other" / "atlasd"
    shutil.copytree(REPOSITORY / "atlasd", package, ignore=shutil.ignore_patterns("__pycache__"))
    init = package / "__init__.py"
    text = init.read_text()
    start = text.index('__version__ = "')
    init.write_text(text[:start] + f'__version__ = "{version}"\n' + text[text.index("\n", start) :])
    if change is not None:
        name, where, line = CHANGES[change]
        file = package / "services" / name
        text = file.read_text()
        assert not where or text.count(where) == 1, f"{name} has changed: put it elsewhere"
        file.write_text(text.replace(where, line + where) if where else text + line)
    return wrapper(host.root / "python", f"{package.parent}:{REPOSITORY / 'plugins'}")


def wrapper(path: Path, pythonpath: str) -> str:
    """An interpreter that looks for modules there."""
    path.write_text(f'#!/bin/sh\nPYTHONPATH={pythonpath} exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


def check_unharmed(host: Host, before: dict[str, list[int]], role: int) -> None:
    """The same role, the same services; then all their lines, to the last."""
    host.core_is_up()
    assert host.all_running(list(before)) == before
    assert host.ask_services("snapshot")["pid"] == role
    for name in before:
        assert host.instance(name)["restarts"] == 0
        assert host.crashes(name) == []
    assert len(host.running("count")) == SERVICES
    host.ctl("stop", "--all")
    assert host.left() == []
    for name in before:
        *numbers, last = host.lines(name)
        assert numbers == [str(n) for n in range(1, len(numbers) + 1)], name
        assert last == f"last {len(numbers)}", name


def test_the_same_program_anew(host: Host, counting: dict[str, list[int]]) -> None:
    role = host.pids["services"]
    for _ in range(5):
        done = json.loads(host.ctl("upgrade", "--json").stdout)
        assert done["pid"] == role
    # Nothing of the way comes along with what is started later.
    host.ctl("restart", "plain")
    descriptors = Path(f"/proc/{host.pid('plain')}/fd")
    # What it opens itself while it begins is closed soon.
    until(
        lambda: {path.name for path in descriptors.iterdir()} == {"0", "1", "2"},
        lambda: [path.readlink() for path in descriptors.iterdir()],
        seconds=10,
    )
    check_unharmed(host, counting, role)


def test_another_version_and_back(host: Host, counting: dict[str, list[int]]) -> None:
    role = host.pids["services"]
    version = host.ask_services("snapshot")["version"]
    done = host.ctl("upgrade", other_program(host, None))
    assert "9.9.9" in done.stdout
    assert host.ask_services("snapshot")["version"] == "9.9.9"
    # They are still its children: an end is seen as ever.
    os.kill(host.pid("plain"), signal.SIGKILL)
    until(lambda: host.crashes("plain"))
    assert host.crashes("plain")[0]["signal"] == "KILL"
    host.ctl("stop", "plain")
    (host.root / "state" / "crashes" / "plain.jsonl").unlink()
    back = wrapper(host.root / "back", f"{REPOSITORY}:{REPOSITORY / 'plugins'}")
    host.ctl("upgrade", back)
    assert host.ask_services("snapshot")["version"] == version
    host.ctl("restart", "plain")
    check_unharmed(host, counting, role)


@pytest.mark.parametrize(
    "change",
    [
        "cannot-be-imported",
        "answers-nonsense",
        pytest.param("hangs", marks=slow),
        "reads-other-states",
    ],
)
def test_one_that_is_not_fit_is_refused(
    host: Host, counting: dict[str, list[int]], change: str
) -> None:
    role = host.pids["services"]
    done = host.ctl("upgrade", other_program(host, change), check=False, timeout=120)
    assert done.returncode == 1
    assert "not fit to take over" in done.stderr
    assert "nothing was changed" in done.stderr
    check_unharmed(host, counting, role)


@pytest.mark.parametrize(
    "change",
    [
        "fails-at-once",
        "fails-in-adoption",
        "fails-after-adoption",
        pytest.param("hangs-after-adoption", marks=slow),
    ],
)
def test_one_that_does_not_come_up_gives_way_to_the_one_before(
    host: Host, counting: dict[str, list[int]], change: str
) -> None:
    role = host.pids["services"]
    version = host.ask_services("snapshot")["version"]
    done = host.ctl("upgrade", other_program(host, change), check=False, timeout=120)
    assert done.returncode == 1, done
    assert "the one before has taken its place again" in done.stderr
    assert host.ask_services("snapshot")["version"] == version
    # The one before is whole: it can be upgraded again, and is then no copy any more.
    host.ctl("upgrade")
    assert host.ask_services("snapshot")["version"] == version
    assert "/code/" not in environment(role).get("PYTHONPATH", "")
    check_unharmed(host, counting, role)


def test_the_old_code_is_found_though_the_disk_has_the_new(
    host: Host, counting: dict[str, list[int]]
) -> None:
    """An upgrade by a package manager overwrites what the old program was started from."""
    host.kill("services")
    other_program(host, None, version="0.0.1")
    package = host.root / "other"
    role = host.start_role("services", PYTHONPATH=str(package))
    host.all_running(list(counting))
    host.core_is_up()
    copies = host.run / "services" / "code" / "atlasd"
    originals = [package / "atlasd" / "__init__.py", *package.glob("atlasd/services/*.py")]
    wanted = [path.relative_to(package / "atlasd") for path in originals]
    until(lambda: all(same(copies / path, package / "atlasd" / path) for path in wanted))
    name, where, line = CHANGES["fails-after-adoption"]
    file = package / "atlasd" / "services" / name
    file.write_text(file.read_text().replace(where, line + where))
    done = host.ctl("upgrade", check=False, timeout=120)
    assert done.returncode == 1, done
    assert host.ask_services("snapshot")["version"] == "0.0.1"
    check_unharmed(host, counting, role)


def same(copy: Path, original: Path) -> bool:
    return copy.exists() and copy.read_bytes() == original.read_bytes()


def test_one_that_is_killed_on_the_way_is_adopted_from_as_ever(
    host: Host, counting: dict[str, list[int]]
) -> None:
    with contextlib.suppress(AssertionError):  # nobody answers any more
        host.ask_services("upgrade", seconds=0, executable=other_program(host, "dies"))
    until(lambda: not alive(host.pids["services"]))
    role = host.start_role("services")
    check_unharmed(host, counting, role)


def test_hangup_upgrades_too(host: Host, counting: dict[str, list[int]]) -> None:
    role = host.pids["services"]
    os.kill(role, signal.SIGHUP)
    out = Path(host.root / "services.out")
    until(lambda: out.read_text().count("services ready") == 2, out.read_text)
    check_unharmed(host, counting, role)


def test_killed_at_any_moment_of_an_upgrade(
    host: Host, counting: dict[str, list[int]], moments: Moments
) -> None:
    host.kill("core")
    for _ in range(15):
        host.all_running(list(counting))
        os.kill(host.pids["services"], signal.SIGHUP)
        moments.pause(0.4)
        host.restart_role("services")
    host.start_role("core")
    check_unharmed(host, counting, host.pids["services"])


def test_told_to_end_at_any_moment_of_an_upgrade(
    host: Host, counting: dict[str, list[int]], moments: Moments
) -> None:
    """It ends in order, with its services, and isn't killed by what it cannot answer just then."""
    host.kill("core")
    for _ in range(10):
        role = host.pids["services"]
        os.kill(role, signal.SIGHUP)
        moments.pause(0.4)
        os.kill(role, signal.SIGHUP)
        os.kill(role, signal.SIGTERM)
        until(lambda role=role: not alive(role))  # type: ignore[misc]
        assert host.left() == []
        host.start_role("services")
        host.all_running(list(counting))
