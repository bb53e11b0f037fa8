"""Rotation: what goes, what stays, and that nobody pays for somebody else's flood."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.services.rotation import (
    DAY,
    SMALLEST,
    Rotated,
    current_name,
    expired,
    next_rotated,
    over_budget,
    parse_name,
    rotate_at,
    size_limit,
    stamp_of,
    stamp_time,
)
from atlasd.services.spec import Log

WALLS = st.floats(min_value=0, max_value=4_000_000_000)
FILES = st.lists(
    st.builds(
        Rotated,
        service=st.sampled_from(["web", "db", "worker"]),
        instance=st.integers(0, 2),
        stamp=st.integers(1_700_000_000, 1_700_000_300).map(stamp_of),
        serial=st.integers(0, 2),
        size=st.integers(0, 1000),
        compressed=st.booleans(),
    ),
    unique_by=lambda file: file.key,
    max_size=40,
)
CURRENT = st.dictionaries(st.sampled_from(["web", "db", "worker", "idle"]), st.integers(0, 1500))


def a_file(service: str, size: int, at: float) -> Rotated:
    return Rotated(service=service, instance=0, stamp=stamp_of(at), size=size)


@given(WALLS)
def test_a_stamp_reads_back_as_its_second(wall: float) -> None:
    assert stamp_time(stamp_of(wall)) == int(wall)


@pytest.mark.parametrize("text", ["20261123", "20261123T174443", "20261323T174443Z", "x" * 16])
def test_what_is_no_stamp_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"stamp|month"):
        stamp_time(text)


@given(
    st.sampled_from(["web", "a-b"]), st.integers(0, 99), WALLS, st.integers(0, 12), st.booleans()
)
def test_a_name_reads_back_as_the_file(
    service: str, instance: int, wall: float, serial: int, compressed: bool
) -> None:
    file = Rotated(
        service=service,
        instance=instance,
        stamp=stamp_of(wall),
        serial=serial,
        size=7,
        compressed=compressed,
    )
    assert parse_name(service, file.name, 7) == file


@pytest.mark.parametrize(
    "name",
    [
        "0.log",
        "00.log.20261123T174443Z",
        "0.log.20261123T174443Z.0",
        "0.log.20261323T174443Z",
        ".0.log.20261123T174443Z.gz.tmp",
        "0.log.20261123T174443Z.bz2",
        "notes.txt",
    ],
)
def test_strange_names_are_not_ours(name: str) -> None:
    assert parse_name("web", name) is None


def test_the_current_file_is_named_for_its_instance() -> None:
    assert current_name(3) == "3.log"


@given(st.lists(WALLS, min_size=2, max_size=20))
def test_names_keep_the_order_of_rotation_whatever_the_clock_does(walls: list[float]) -> None:
    last = None
    orders = []
    for wall in walls:
        file = next_rotated("web", 0, 1, last, wall)
        last = file.order
        orders.append(last)
    assert orders == sorted(set(orders))
    assert len(orders) == len(walls)


def test_a_file_is_rotated_daily_or_sooner_where_output_may_not_be_kept_a_day() -> None:
    assert rotate_at(1000.0, Log()) == 1000.0 + DAY
    assert rotate_at(1000.0, Log(max_age=600.0)) == 1600.0


def test_a_few_files_are_as_large_as_configured_and_many_share_half_of_the_budget() -> None:
    log = Log(max_size=10_000_000)
    assert size_limit(log, 1_000_000_000, 3) == 10_000_000
    assert size_limit(log, 1_000_000_000, 200) == 2_500_000
    assert size_limit(log, 1_000_000, 200) == SMALLEST


@given(FILES, st.integers(0, 5), st.floats(0, 400))
def test_count_and_age_limits(files: list[Rotated], count: int, age: float) -> None:
    own = [file for file in files if (file.service, file.instance) == ("web", 0)]
    log = Log(max_files=count, max_age=age)
    wall = 1_700_000_300.0
    gone = expired(own, log, wall)
    kept = [file for file in own if file not in gone]
    assert len(kept) <= count
    assert all(wall - file.since < age for file in kept)
    # Nothing goes without a reason, and the oldest go first.
    assert all(
        wall - file.since >= age or sum(other.order > file.order for other in own) >= count
        for file in gone
    )
    assert [file.order for file in gone] == sorted(file.order for file in gone)


@given(FILES, CURRENT, st.integers(0, 20_000))
def test_the_budget_is_exceeded_by_current_files_at_most(
    files: list[Rotated], current: dict[str, int], budget: int
) -> None:
    gone = over_budget(files, current, budget)
    kept = [file for file in files if file not in gone]
    total = sum(file.size for file in kept) + sum(current.values())
    assert total <= max(budget, sum(current.values()))
    assert len(gone) == len(set(gone))
    # No more goes than has to.
    if gone:
        assert total + gone[-1].size > budget


@given(FILES, CURRENT, st.integers(0, 20_000), st.randoms(use_true_random=False))
def test_the_choice_depends_on_nothing_but_the_files(
    files: list[Rotated], current: dict[str, int], budget: int, random: object
) -> None:
    shuffled = list(files)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert over_budget(shuffled, current, budget) == over_budget(files, current, budget)


@given(FILES, CURRENT, st.integers(0, 20_000))
def test_who_uses_most_pays_and_with_the_oldest_first(
    files: list[Rotated], current: dict[str, int], budget: int
) -> None:
    usage = Counter(current)
    history: dict[str, list[Rotated]] = {}
    for file in files:
        usage[file.service] += file.size
        history.setdefault(file.service, []).append(file)
    for file in over_budget(files, current, budget):
        payers = [service for service, kept in history.items() if kept]
        assert usage[file.service] == max(usage[service] for service in payers)
        assert file.order == min(other.order for other in history[file.service])
        history[file.service].remove(file)
        usage[file.service] -= file.size


def test_a_flood_eats_its_own_history_and_nobody_elses() -> None:
    quiet = [a_file("db", 100, 1_700_000_000 + n) for n in range(5)]
    flood = [a_file("web", 1000, 1_700_001_000 + n) for n in range(20)]
    gone = over_budget([*quiet, *flood], {"web": 500, "db": 50}, 5000)
    assert {file.service for file in gone} == {"web"}
    assert gone == flood[: len(gone)]


def test_nothing_goes_within_the_budget() -> None:
    files = [a_file("web", 400, 1_700_000_000), replace(a_file("db", 500, 1), compressed=True)]
    assert over_budget(files, {"web": 100}, 1000) == []
