"""The graph of services: against what a naive search finds."""

from collections.abc import Mapping
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.services import order
from atlasd.services.order import CycleError, Graph, UnknownServiceError
from atlasd.services.spec import Edge

NAMES = ("a", "b", "c", "d", "e")


def graph_of(pairs: Mapping[str, set[str]], kind: str = "requires") -> Graph:
    return {n: tuple(Edge(service=o, kind=kind) for o in sorted(to)) for n, to in pairs.items()}


GRAPHS = st.fixed_dictionaries({n: st.sets(st.sampled_from(NAMES), max_size=3) for n in NAMES})


def shortest(pairs: Mapping[str, set[str]]) -> int | None:
    """Length of the shortest cycle, by trying every path."""
    for length in range(1, len(NAMES) + 1):
        for path in permutations(NAMES, length):
            closed = (*path, path[0])
            if all(b in pairs[a] for a, b in pairwise(closed)):
                return length
    return None


@given(pairs=GRAPHS)
def test_the_cycle_that_is_found_is_one_and_none_is_shorter(pairs: dict[str, set[str]]) -> None:
    found = order.find_cycle(graph_of(pairs))
    naive = shortest(pairs)
    assert (found is None) is (naive is None)
    if found is not None:
        assert found[0] == found[-1]
        assert len(found) - 1 == naive
        assert all(b in pairs[a] for a, b in pairwise(found))
        assert order.find_cycle(graph_of(pairs)) == found


@given(pairs=GRAPHS)
def test_pulled_in_is_the_closure_and_after_pulls_nothing_in(pairs: dict[str, set[str]]) -> None:
    closed = {"a"}
    while (more := closed | {o for n in closed for o in pairs[n]}) != closed:
        closed = more
    assert order.pulled_in(graph_of(pairs), ["a"]) == closed
    assert order.pulled_in(graph_of(pairs, "wants"), ["a"]) == closed
    assert order.pulled_in(graph_of(pairs, "after"), ["a"]) == {"a"}


@given(pairs=GRAPHS)
def test_stopping_in_reverse_stops_everybody_and_nobody_before_his_dependents(
    pairs: dict[str, set[str]],
) -> None:
    graph = graph_of(pairs)
    if order.find_cycle(graph) is not None:
        return
    alive = set(NAMES)
    while alive:
        free = {n for n in alive if order.may_stop(graph, n, alive)}
        assert free, "without a cycle there is always one that may be stopped"
        for name in free:
            assert not any(name in pairs[other] for other in alive - {name})
        alive -= free


def test_an_unknown_service_is_named_with_who_names_it() -> None:
    with pytest.raises(UnknownServiceError, match="'web': requires names no known service: 'bd'"):
        order.check_graph({"web": (Edge(service="bd"),)})


def test_a_cycle_is_shown_as_a_path() -> None:
    with pytest.raises(CycleError, match="a → b → a"):
        order.check_graph(graph_of({"a": {"b"}, "b": {"a"}}))


def test_a_service_that_waits_for_itself_is_a_cycle() -> None:
    assert order.find_cycle(graph_of({"a": {"a"}})) == ("a", "a")


def test_dependents_are_those_with_an_edge_of_any_kind() -> None:
    graph = {
        "db": (),
        "web": (Edge(service="db", kind="after"),),
        "api": (Edge(service="db", kind="wants"),),
        "other": (),
    }
    assert order.dependents(graph, "db") == ("api", "web")
