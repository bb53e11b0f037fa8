import io
from datetime import UTC, datetime

import pytest

from atlasd.cli import style


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (-3, "0ms"),
        (0.4321, "432ms"),
        (1.5, "1.5s"),
        (12.9, "12s"),
        (192, "3m12s"),
        (3600, "1h00m"),
        (7500, "2h05m"),
        (9 * 86400 + 4 * 3600, "9d04h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert style.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0KiB"),
        (5 * 1024**2, "5.0MiB"),
        (3 * 1024**4, "3.0TiB"),
        (5000 * 1024**4, "5000.0TiB"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert style.size(count) == text


def test_how_long_ago() -> None:
    now = datetime(2026, 11, 23, 17, 47, 55, tzinfo=UTC)
    assert style.since("2026-11-23T17:44:43.000000Z", now) == "3m12s"


def test_a_table_is_as_wide_as_it_must_be() -> None:
    text = style.table(
        ("NAME", "N", "STATE"),
        [("web", "1", "running"), ("a-long-name", "12", "")],
        right=frozenset({"N"}),
        colours=False,
    )
    assert text == ("NAME          N  STATE\nweb           1  running\na-long-name  12\n")


def test_colours_do_not_move_the_columns() -> None:
    plain = style.table(("A", "B"), [("running", "x"), ("failed", "y")], colours=False)
    coloured = style.table(("A", "B"), [("running", "x"), ("failed", "y")], colours=True)
    assert "\x1b[32mrunning\x1b[0m" in coloured
    stripped = coloured
    for code in ("32", "31", "1", "0", "2"):
        stripped = stripped.replace(f"\x1b[{code}m", "")
    assert stripped == plain


def test_no_colours_without_a_terminal_or_against_the_will(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert style.coloured(Terminal())
    assert not style.coloured(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not style.coloured(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not style.coloured(Terminal())


def test_nouns_are_counted() -> None:
    assert style.count(1, "instance") == "1 instance"
    assert style.count(0, "instance") == "0 instances"
    assert style.count(2, "thing is", "things are") == "2 things are"
