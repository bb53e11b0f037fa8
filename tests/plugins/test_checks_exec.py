"""The exec check, with real programs: every way in which a command can end, or not."""

import asyncio
import logging
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from atlasd.contracts.checks import CheckResult, Health
from atlasd.testing import PlainContext
from atlasd_plugins.checks_exec import ExecSettings, open_check

LONG = timedelta(seconds=60)


async def run(
    context: PlainContext, *command: str, limit: timedelta = LONG, **settings: Any
) -> CheckResult:
    model = ExecSettings.model_validate({"command": list(command), **settings})
    async with open_check(model, context) as check:
        return await check.run(limit)


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


async def gone(pid: int) -> bool:
    """Whether a process is no more, or nothing but a name; waits until it is."""
    async with asyncio.timeout(30):
        while True:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                return True
            if state == "Z":
                return True
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "status", "output"),
    [
        ("echo fine", Health.PASS, "fine"),
        ("exit 0", Health.PASS, ""),
        ("echo 81 % used; exit 1", Health.WARN, "exit code 1: 81 % used"),
        ("echo full >&2; exit 2", Health.FAIL, "exit code 2: full"),
        ("exit 3", Health.FAIL, "exit code 3"),
        ("exit 127", Health.FAIL, "exit code 127"),
        ("echo x; kill -SEGV $$", Health.FAIL, "killed by SIGSEGV: x"),
        ("kill -40 $$", Health.FAIL, "killed by signal 40"),
    ],
)
async def test_the_exit_code_is_the_verdict(
    context: PlainContext, script: str, status: Health, output: str
) -> None:
    result = await run(context, *shell(script))
    assert (result.status, result.output) == (status, output)
    assert result.observed_unit == "s"


async def test_a_command_that_cannot_be_run_is_unknown_and_warned_of(
    context: PlainContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = await run(context, "/no/such/program", "-x")
    assert result.status is Health.UNKNOWN
    assert result.output == (
        "cannot run /no/such/program -x: /no/such/program: No such file or directory"
    )
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, result.output)
    ]
    plain = tmp_path / "plain"
    plain.touch()
    result = await run(context, str(plain))
    assert (result.status, result.output) == (
        Health.UNKNOWN,
        f"cannot run {plain}: {plain}: Permission denied",
    )


async def test_a_folder_that_is_not_there_is_named(context: PlainContext, tmp_path: Path) -> None:
    result = await run(context, "true", cwd=str(tmp_path / "none"))
    assert result.status is Health.UNKNOWN
    assert str(tmp_path / "none") in result.output


async def test_one_text_is_split_as_a_shell_would_and_no_shell_runs(context: PlainContext) -> None:
    result = await run(context, command="printf %s, 'a b' $HOME '*' \\;")
    assert result.output == "a b,$HOME,*,;,"


async def test_it_runs_in_its_folder_with_its_own_environment(
    context: PlainContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    result = await run(
        context, "/usr/bin/env", "-0", cwd=str(tmp_path), env={"GREETING": "hello", "TZ": "UTC"}
    )
    found = dict(line.split("=", 1) for line in result.output.split("\0") if "=" in line)
    assert found["GREETING"] == "hello"
    assert found["TZ"] == "UTC"
    assert found["LC_ALL"] == "C.UTF-8"
    assert found["PATH"] == os.environ["PATH"]
    assert not {"NOTIFY_SOCKET", "DATABASE_PASSWORD"} & found.keys()
    assert (await run(context, "pwd", cwd=str(tmp_path))).output == str(tmp_path)


async def test_what_does_not_end_is_killed_with_all_it_started(
    context: PlainContext, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    tell = f"echo $$ $! > {pids}.new; mv {pids}.new {pids}"
    script = f"trap '' TERM; sleep 1000 & {tell}; echo on; wait"
    result = await run(context, *shell(script), limit=timedelta(seconds=2))
    assert result.status is Health.FAIL
    assert result.output == "it did not end within 2 s and was killed: on"
    for pid in map(int, pids.read_text().split()):
        assert await gone(pid)


async def test_what_it_leaves_behind_is_killed_too(context: PlainContext, tmp_path: Path) -> None:
    # The child holds the pipe open: the verdict must not wait for it.
    result = await run(context, *shell("sleep 1000 & echo $!"))
    assert result.status is Health.PASS
    assert await gone(int(result.output))


async def test_a_run_that_is_given_up_leaves_nothing(context: PlainContext, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    task = asyncio.create_task(
        run(context, *shell(f"echo $$ > {mark}.new; mv {mark}.new {mark}; exec sleep 1000"))
    )
    async with asyncio.timeout(30):
        while not mark.exists():  # noqa: ASYNC110  the program tells by a file
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(int(mark.read_text()))


async def test_long_output_is_kept_in_its_beginning(context: PlainContext) -> None:
    program = "import sys; sys.stdout.write('x' * 200_000); sys.exit(2)"
    result = await run(context, sys.executable, "-c", program)
    assert result.status is Health.FAIL
    assert result.output == "exit code 2: " + "x" * 4096 + "…"


async def test_a_flood_ends_the_command(context: PlainContext) -> None:
    result = await run(context, "/usr/bin/yes")
    assert result.status is Health.FAIL
    assert result.output.startswith("it wrote more than 1024 KiB and was killed: y\ny\n")
    assert len(result.output) < 5000


async def test_output_need_not_be_text(context: PlainContext) -> None:
    result = await run(context, "/usr/bin/printf", r"\377x")
    assert result.output == "\ufffdx"


async def test_it_gets_no_input_and_no_descriptors(context: PlainContext) -> None:
    reading = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(reading, True)
    result = await run(context, *shell("cat; ls /proc/self/fd | tr '\\n' ' '"))
    os.close(reading)
    assert str(reading) not in result.output.split()


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def test_many_runs_leave_no_descriptors_and_no_zombies(context: PlainContext) -> None:
    before = descriptors()
    for number in range(20):
        limit = timedelta(0) if number % 2 else LONG
        await run(context, "/bin/sleep", "1000" if number % 2 else "0", limit=limit)
    async with asyncio.timeout(30):
        while descriptors() - before:  # noqa: ASYNC110  it is reaped in passing
            await asyncio.sleep(0.01)
    # Others of this process's tests may have children of their own; none of ours may be left.
    ours = [child for child in psutil.Process().children() if child.name() == "sleep"]
    assert ours == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "Field required"),
        ({"command": []}, "at least 1 item"),
        ({"command": ""}, "at least 1 item"),
        ({"command": "echo 'open"}, "cannot be split into words"),
        ({"command": ["a", 1]}, "valid string"),
        ({"command": ["a"], "env": {"A": 1}}, "valid string"),
        ({"command": ["a"], "comand": ["a"]}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ExecSettings.model_validate(settings)
