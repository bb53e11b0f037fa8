"""Stages out of tags, held against labels that simply move."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.contracts.secrets import CURRENT, PENDING, PREVIOUS
from atlasd_plugins.secrets_azure.stages import (
    ORDER,
    PUT,
    SINCE,
    WAITS,
    Seen,
    moved,
    newest_first,
    stages_of,
)


def seen(id: str, second: int, **tags: str) -> Seen:
    names = {"order": ORDER, "since": SINCE, "waits": WAITS, "put": PUT}
    return Seen(
        id=id,
        created=datetime.fromtimestamp(second, tz=UTC),
        tags={names[name]: text for name, text in tags.items()},
    )


class Labels:
    """What stages are by the contract."""

    def __init__(self) -> None:
        self.at: dict[str, str] = {}

    def move(self, stage: str, version: str) -> None:
        before = self.at.get(stage)
        if stage == CURRENT and before not in {None, version}:
            self.at[PREVIOUS] = str(before)
        self.at[stage] = version
        if stage == CURRENT and self.at.get(PENDING) == version:
            del self.at[PENDING]


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["put", "put pending", "foreign", CURRENT, PENDING]),
        st.integers(0, 9),
        st.integers(0, 1),
    ),
    max_size=14,
)


@given(MOVES)
def test_tags_say_what_labels_would(moves: list[tuple[str, int, int]]) -> None:
    versions: dict[str, Seen] = {}
    labels = Labels()
    second, order = 1_800_000_000, 0
    for action, which, later in moves:
        second += later
        order += 1000
        if action in {CURRENT, PENDING}:
            if not versions:
                continue
            version = list(versions.values())[which % len(versions)]
            held = stages_of(list(versions.values()))
            if held.get(action) != version.id or (held.get(PENDING), action) == (
                version.id,
                CURRENT,
            ):
                tags = moved(list(versions.values()), version, action)
                versions[version.id] = Seen(id=version.id, created=version.created, tags=tags)
            labels.move(action, version.id)
            order = max(order, int(tags_order(versions)) + 1000)
        else:
            id = f"v{len(versions):02}"
            tags = {"put": {"order": str(order)}, "foreign": {}}.get(
                action, {"order": str(order), "put": PENDING}
            )
            if action == "foreign":
                second += 1  # only what atlasd has put is ordered within a second
            versions[id] = seen(id, second, **tags)
            labels.move(PENDING if action == "put pending" else CURRENT, id)
        assert stages_of(list(versions.values())) == labels.at


def tags_order(versions: dict[str, Seen]) -> Any:
    """The largest number in any tag: real ones are nanoseconds, and outgrow those of moves."""
    texts = [t for v in versions.values() for t in v.tags.values() if t != PENDING]
    return max((int(text.rpartition(".")[2]) for text in texts), default=0)


def test_a_version_of_somebody_else_is_current_from_its_making() -> None:
    versions = [seen("a", 10, order="5"), seen("b", 20), seen("c", 30)]
    assert stages_of(versions) == {CURRENT: "c", PREVIOUS: "b"}


def test_a_rollback_is_overtaken_by_whatever_is_made_later() -> None:
    versions = [seen("a", 10), seen("b", 20)]
    versions[0] = Seen(
        id="a", created=versions[0].created, tags=moved(versions, versions[0], CURRENT)
    )
    assert stages_of(versions) == {CURRENT: "a", PREVIOUS: "b"}
    assert stages_of([*versions, seen("c", 21)]) == {CURRENT: "c", PREVIOUS: "a"}


def test_an_older_pending_version_does_not_come_back() -> None:
    versions = [
        seen("a", 10, order="1"),
        seen("p", 11, order="2", put=PENDING),
        seen("q", 12, order="3", put=PENDING),
    ]
    assert stages_of(versions) == {CURRENT: "a", PENDING: "q"}
    tags = moved(versions, versions[2], CURRENT)
    versions[2] = Seen(id="q", created=versions[2].created, tags=tags)
    assert stages_of(versions) == {CURRENT: "q", PREVIOUS: "a"}


def test_two_promotions_at_once_have_one_outcome_for_everybody() -> None:
    versions = [seen("a", 10), seen("b", 11), seen("c", 12)]
    raced = [
        Seen(id=v.id, created=v.created, tags=moved(versions, v, CURRENT)) for v in versions[:2]
    ]
    expected = {CURRENT: "b", PREVIOUS: "a"}
    assert stages_of([*raced, versions[2]]) == expected
    assert stages_of([versions[2], *raced[::-1]]) == expected


@pytest.mark.parametrize("nonsense", ["", "x", "1", "1.", ".1", "1.2.3", "-1.2", "１.２"])
def test_tags_that_somebody_has_spoiled_do_not_count(nonsense: str) -> None:
    versions = [seen("a", 10, since=nonsense, waits=nonsense, order=nonsense), seen("b", 11)]
    assert stages_of(versions) == {CURRENT: "b", PREVIOUS: "a"}
    assert [version.id for version in newest_first(versions)] == ["b", "a"]


def test_there_are_no_stages_without_versions() -> None:
    assert stages_of([]) == {}
