"""Programs that are run for a moment: what they hear and say, and how they end."""

import os
import select
import sys
from pathlib import Path

import pytest

from atlasd.settings.commands import HEARD, DidNotAnswerError, Outcome, run, surroundings


def python(code: str, *, text: bytes = b"", seconds: float = 20.0) -> Outcome:
    return run(
        [sys.executable, "-c", code], text=text, cwd="/", env=surroundings(), seconds=seconds
    )


def test_it_hears_everything_and_says_how_it_ended() -> None:
    text = b"x" * 1_000_000
    done = python("import sys; print(len(sys.stdin.read())); sys.exit(3)", text=text)
    assert done == Outcome(code=3, said="1000000\n")


def test_one_that_does_not_listen_or_floods_holds_nobody_up() -> None:
    assert python("import os; os._exit(4)", text=b"x" * 1_000_000).code == 4
    done = python("import sys\nfor _ in range(4000): sys.stdout.write('y' * 1000)")
    assert done.code == 0
    assert len(done.said) == HEARD


def test_one_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))\n"
        "child.wait()"
    )
    with pytest.raises(DidNotAnswerError, match="longer than 2 s"):
        python(code, seconds=2.0)
    assert is_gone(int(note.read_text()))


def test_what_it_leaves_behind_dies_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL,"
        " stderr=subprocess.DEVNULL)\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))"
    )
    assert python(code).code == 0
    assert is_gone(int(note.read_text()))


def is_gone(pid: int) -> bool:
    """Whether a process ends, if it has not already."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], 20)[0])
    finally:
        os.close(watched)


def test_one_that_is_not_there_is_named() -> None:
    with pytest.raises(DidNotAnswerError, match="/nowhere/check cannot be run: No such file"):
        run(["/nowhere/check"], text=b"", cwd="/", env={}, seconds=5)


def test_nothing_of_the_daemons_environment_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATLASD_TOKEN", "secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    given = surroundings(ATLASD_ENV="production")
    assert "ATLASD_TOKEN" not in given
    assert given["LANG"] == "C.UTF-8"
    assert given["ATLASD_ENV"] == "production"
    assert given["PATH"] == os.environ["PATH"]
