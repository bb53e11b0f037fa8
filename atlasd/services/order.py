"""Which service waits for which: the graph's checks, and the order of starting and stopping."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from atlasd.services.spec import Edge

Graph = Mapping[str, Sequence[Edge]]
"""Service → its edges, as `ServiceSpec.edges`."""


class UnknownServiceError(ValueError):
    """An edge names a service that does not exist."""

    def __init__(self, service: str, edge: Edge) -> None:
        super().__init__(
            f"service {service!r}: {edge.kind} names no known service: {edge.service!r}"
        )
        self.service = service
        self.edge = edge


class CycleError(ValueError):
    """Services that wait for each other; `path` starts and ends with the same one."""

    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__("services wait for each other: " + " → ".join(path))
        self.path = path


def check_graph(graph: Graph) -> None:
    """Raise `UnknownServiceError`, or `CycleError` with the shortest circle, for a bad graph."""
    for service, edges in graph.items():
        for edge in edges:
            if edge.service not in graph:
                raise UnknownServiceError(service, edge)
    cycle = find_cycle(graph)
    if cycle:
        raise CycleError(cycle)


def find_cycle(graph: Graph) -> tuple[str, ...] | None:
    """A shortest cycle as a closed path, the same for the same graph; null when there is none."""
    best: tuple[str, ...] | None = None
    remaining = _in_cycles(graph)
    for start in sorted(remaining):
        previous: dict[str, str] = {}
        frontier = [start]
        while frontier and start not in previous:
            following: list[str] = []
            for node in frontier:
                for edge in graph[node]:
                    if edge.service in remaining and edge.service not in previous:
                        previous[edge.service] = node
                        following.append(edge.service)
            frontier = following
        if start in previous:
            path = [start]
            node = previous[start]
            while node != start:
                path.append(node)
                node = previous[node]
            path.append(start)
            if best is None or len(path) < len(best):
                best = tuple(reversed(path))
    return best


def _in_cycles(graph: Graph) -> set[str]:
    # Peel off what waits for nothing that is left; what stays is in or behind a cycle.
    left = {name: {e.service for e in edges if e.service in graph} for name, edges in graph.items()}
    while True:
        free = [name for name, needs in left.items() if not needs]
        if not free:
            return set(left)
        for name in free:
            del left[name]
        gone = set(free)
        for needs in left.values():
            needs.difference_update(gone)


def pulled_in(graph: Graph, services: Iterable[str]) -> set[str]:
    """The services and everything that starting them starts too (requires and wants)."""
    found: set[str] = set()
    todo = [s for s in services if s in graph]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(e.service for e in graph[name] if e.kind != "after" and e.service in graph)
    return found


def dependents(graph: Graph, service: str) -> tuple[str, ...]:
    """Services with an edge to `service`, sorted."""
    return tuple(
        sorted(name for name, edges in graph.items() if any(e.service == service for e in edges))
    )


def may_stop(graph: Graph, service: str, alive: Collection[str]) -> bool:
    """Whether nothing in `alive` depends on the service: it may be stopped now.

    Called again whenever an instance has gone, it stops everything in reverse order, in parallel.
    """
    return not any(name in alive for name in dependents(graph, service) if name != service)
