"""Reading what services wrote, straight from the log files; needs no daemon."""

from collections.abc import Iterator, Sequence

from atlasd.services.log_following import Follower
from atlasd.services.log_reading import Line, Selection, Snapshot, folder_of, listing, merged

__all__ = ["Follower", "Line", "query"]


def query(
    log_dir: str,
    service: str,
    *,
    instances: Sequence[int] | None = None,
    since: float | None = None,
    grep: str | None = None,
    lines: int | None = None,
    stream: str | None = None,
) -> Iterator[Line]:
    """The lines of a service's output, all instances merged by time, oldest first.

    `since`: wall time in seconds; `grep`: a regular expression that is searched for in the whole
    line; `lines`: the last so many of those that match, found from the end of the files; `stream`:
    stdout or stderr. Rotated and compressed files are read too.

    Raises `AtlasError`: `request.invalid` for a pattern that does not compile or an unknown stream,
    `operation.denied` when the files may not be read, `service.unknown` for an impossible name. A
    service without log files gives no lines.
    """
    selection = Selection(since=since, grep=grep, stream=stream)
    folder = folder_of(log_dir, service)
    wanted = [
        instance
        for instance in listing(folder, service)
        if instances is None or instance in instances
    ]
    return _query(folder, service, wanted, selection, lines)


def _query(
    folder: str, service: str, instances: list[int], selection: Selection, lines: int | None
) -> Iterator[Line]:
    snapshots: list[Snapshot] = []
    try:
        snapshots.extend(Snapshot(folder, service, instance) for instance in instances)
        yield from merged(snapshots, selection, lines, unfinished=True)
    finally:
        for snapshot in snapshots:
            snapshot.close()
