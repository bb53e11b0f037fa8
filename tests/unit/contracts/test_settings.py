"""Settings of plugins: durations as operators write them, and no misspelt names."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from atlasd.contracts.settings import Duration, Settings, parse_duration


class Example(Settings):
    wait: Duration = timedelta(seconds=5)
    count: int = 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("500ms", 0.5),
        ("1h 30m", 5400),
        ("1h30m", 5400),
        (" 2d ", 172800),
        ("1w", 604800),
        ("0s", 0),
        ("1.5m", 90),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert Example.model_validate({"wait": text}).wait == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "  ", "30", "s", "30 seconds", "-1s", "1s,2s", "1 h x"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as .*'30s'"):
        parse_duration(text)


def test_a_bare_number_is_no_duration() -> None:
    with pytest.raises(ValidationError, match="in quotes and with its unit"):
        Example.model_validate({"wait": 30})


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from(["ms", "s", "m", "h", "d", "w"]))))
def test_parts_add_up(parts: list[tuple[int, str]]) -> None:
    if not parts:
        return
    unit = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    total = sum(
        (timedelta(**{unit.get(u, "weeks"): number}) for number, u in parts), start=timedelta()
    )
    text = "".join(f"{number}{u}" for number, u in parts)
    assert abs(parse_duration(text) - total) < timedelta(milliseconds=1)


def test_unknown_names_and_wrong_types_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Example.model_validate({"cuont": 2})
    with pytest.raises(ValidationError, match="valid integer"):
        Example.model_validate({"count": "2"})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example().count = 3  # type: ignore[misc]
