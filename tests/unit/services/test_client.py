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


def test_only_what_a_predecessor_left_is_offered_in_messages_that_fit(
    held: HeldDescriptors,
) -> None:
    names = [f"n{n}" for n in range(MAX_DESCRIPTORS + 1)]
    held.take(names, descriptors(len(names)))
    assert held.to_offer() == []
    held.outlive()
    held.take(["n0"], descriptors(1))  # the successor has entrusted it anew
    parts = held.to_offer()
    assert [len(part) for part, _ in parts] == [MAX_DESCRIPTORS]
    assert parts[0][0] == tuple(names[1:])


def test_what_is_not_taken_is_closed_unless_it_was_entrusted_anew_meanwhile(
    held: HeldDescriptors,
) -> None:
    taken, unwanted, old = descriptors(3)
    held.take(["taken", "unwanted", "anew"], [taken, unwanted, old])
    held.outlive()
    ((names, _),) = held.to_offer()
    (new,) = descriptors(1)
    held.take(["anew"], [new])  # crosses the offer on its way
    held.settle(names, {"taken"})
    assert is_open(taken)
    assert not is_open(unwanted)
    assert is_open(new)


operations = st.lists(
    st.tuples(
        st.sampled_from(["take", "drop", "outlive", "settle"]),
        st.sets(st.sampled_from("abcd"), min_size=1),
    ),
    max_size=20,
)


@given(operations)
def test_no_descriptor_is_lost_or_closed_twice(steps: list[tuple[str, set[str]]]) -> None:
    held = HeldDescriptors()
    model: dict[str, int] = {}
    everything: list[int] = []
    for step, names in steps:
        if step == "take":
            new = descriptors(len(names))
            everything += new
            held.take(sorted(names), new)
            model.update(zip(sorted(names), new, strict=True))
        elif step == "drop":
            held.drop(names)
            for name in names:
                model.pop(name, None)
        elif step == "outlive":
            held.outlive()
        else:
            offered = [name for part, _ in held.to_offer() for name in part]
            held.settle(offered, names)
            for name in set(offered) - names:
                model.pop(name, None)
        assert set(held.names()) == model.keys()
        assert all(is_open(descriptor) for descriptor in model.values())
    held.close()
    assert not any(is_open(descriptor) for descriptor in model.values())
