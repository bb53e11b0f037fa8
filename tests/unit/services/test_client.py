import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.services.client import MAX_DESCRIPTORS, HeldDescriptors


@pytest.fixture
def held() -> Iterator[HeldDescriptors]:
    made = HeldDescriptors()
    yield made
    made.close()


def descriptors(count: int) -> list[int]:
    return [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_what_is_entrusted_anew_replaces_and_closes_the_old(held: HeldDescriptors) -> None:
    first, second = descriptors(2)
    held.take(["pipe"], [first])
    held.take(["pipe"], [second])
    assert not is_open(first)
    assert is_open(second)
    assert len(held) == 1


def test_what_is_let_go_is_closed_and_unknown_names_do_no_harm(held: HeldDescriptors) -> None:
    (one,) = descriptors(1)
    held.take(["pipe"], [one])
    held.drop(["pipe", "never held"])
    assert not is_open(one)
    assert held.names() == ()


def test_what_a_predecessor_left_is_offered_in_messages_that_fit(held: HeldDescriptors) -> None:
    names = [f"n{n}" for n in range(MAX_DESCRIPTORS + 1)]
    held.take(names, descriptors(len(names)))
    assert held.to_offer() == []
    held.outlive()
    parts = held.to_offer()
    assert [len(part) for part, _ in parts] == [MAX_DESCRIPTORS, 1]
    assert [name for part, _ in parts for name in part] == names


def test_what_a_successor_entrusts_does_not_replace_what_was_left(held: HeldDescriptors) -> None:
    """In an old notify socket stands what nobody has heard; a new one may come before the offer."""
    old, new = descriptors(2)
    held.take(["notify"], [old])
    held.outlive()
    held.take(["notify"], [new])
    assert held.to_offer() == [(("notify",), (old,))]
    held.settle(["notify"], {"notify"})
    assert not is_open(old), "the successor has it now, and another one in its place"
    assert is_open(new)
    assert held.to_offer() == []


def test_what_is_not_taken_is_closed_and_what_is_taken_is_kept(held: HeldDescriptors) -> None:
    taken, unwanted, old = descriptors(3)
    held.take(["taken", "unwanted", "anew"], [taken, unwanted, old])
    held.outlive()
    ((names, _),) = held.to_offer()
    (new,) = descriptors(1)
    held.take(["anew"], [new])  # crosses the offer on its way
    held.settle(names, {"taken"})
    assert is_open(taken), "the successor may die before it entrusts it anew"
    assert not is_open(unwanted)
    assert not is_open(old)
    assert is_open(new)


def test_an_owner_that_lives_has_entrusted_everything_anew(held: HeldDescriptors) -> None:
    old, new = descriptors(2)
    held.take(["pipe"], [old])
    held.outlive()
    held.take(["pipe"], [new])
    held.forget_the_left()
    assert not is_open(old)
    assert is_open(new)


operations = st.lists(
    st.tuples(
        st.sampled_from(["take", "drop", "outlive", "settle", "forget"]),
        st.sets(st.sampled_from("abcd"), min_size=1),
    ),
    max_size=20,
)


@given(operations)
def test_no_descriptor_is_lost_or_closed_twice(steps: list[tuple[str, set[str]]]) -> None:
    held = HeldDescriptors()
    now: dict[str, int] = {}
    left: dict[str, int] = {}
    everything: list[int] = []
    for step, names in steps:
        if step == "take":
            # Numbers are given anew: what is open must be told by what is expected alone.
            new = descriptors(len(names))
            everything += new
            held.take(sorted(names), new)
            now.update(zip(sorted(names), new, strict=True))
        elif step == "drop":
            held.drop(names)
            for name in names:
                (now if name in now else left).pop(name, None)
        elif step == "outlive":
            held.outlive()
            left |= now
            now = {}
        elif step == "forget":
            held.forget_the_left()
            left = {}
        else:
            offered = {name: fd for part in held.to_offer() for name, fd in zip(*part, strict=True)}
            assert offered == left
            held.settle(offered, names)
            now = {name: fd for name, fd in left.items() if name in names} | now
            left = {}
        assert set(held.names()) == now.keys() | left.keys()
        assert len({*now.values(), *left.values()}) == len(now) + len(left)
        assert all(is_open(descriptor) for descriptor in (*now.values(), *left.values()))
    held.close()
    assert not any(is_open(descriptor) for descriptor in everything)
