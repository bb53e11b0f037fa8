from datetime import UTC, datetime

import pytest

from atlasd.cli.moments import moment, part, per_second
from atlasd.errors import AtlasError

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2h", "2026-11-23T10:00:00+00:00"),
        ("1.5h", "2026-11-23T10:30:00+00:00"),
        ("7d", "2026-11-16T12:00:00+00:00"),
        ("2026-11-23T09:00:00Z", "2026-11-23T09:00:00+00:00"),
    ],
)
def test_times(text: str, found: str) -> None:
    assert moment(text, "--since", NOW) == found


def test_a_time_without_zone_is_of_this_host() -> None:
    assert datetime.fromisoformat(moment("2026-11-23T09:00", "--since")).tzinfo is not None


@pytest.mark.parametrize("text", ["yesterday", "2y", "-1h", "9999999999999d", ""])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(AtlasError, match="--since"):
        moment(text, "--since", NOW)


def test_rates_and_parts() -> None:
    assert (per_second("5/s"), per_second("30/m"), per_second("2")) == (5.0, 0.5, 2.0)
    assert (part("20%"), part("0.2"), part("100%")) == (0.2, 0.2, 1.0)
    for wrong in ("0/s", "x", "5/d", "1000000"):
        with pytest.raises(AtlasError, match="--rate"):
            per_second(wrong)
    for wrong in ("0", "200%", "x", "nan"):
        with pytest.raises(AtlasError, match="--stop-on-fail"):
            part(wrong)
