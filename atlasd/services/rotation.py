"""Which log files are rotated and removed, and when: pure decisions over what is on disk."""

import heapq
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from atlasd.services.spec import Log

DAY = 86400.0
SMALLEST = 64 * 1024
"""Bytes; no budget makes log files rotate below this."""
_NAME = re.compile(r"(\d+)\.log\.(\d{8}T\d{6}Z)(?:\.(\d+))?(\.gz)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotated:
    """A log file that is complete: renamed once, then compressed, one day removed."""

    service: str
    instance: int
    stamp: str
    """UTC, `20261123T174443Z`: when it was rotated, never before the one rotated earlier."""
    serial: int = 0
    """Tells apart files of one instance that were rotated within the same second."""
    size: int = 0
    """Bytes on disk."""
    compressed: bool = False

    @property
    def name(self) -> str:
        """Its file name in the service's folder."""
        serial = f".{self.serial}" if self.serial else ""
        suffix = ".gz" if self.compressed else ""
        return f"{self.instance}.log.{self.stamp}{serial}{suffix}"

    @property
    def order(self) -> tuple[str, int]:
        """Sorts the files of an instance from oldest to newest."""
        return (self.stamp, self.serial)

    @property
    def key(self) -> tuple[str, int, str, int]:
        """The same for a file before and after compression."""
        return (self.service, self.instance, self.stamp, self.serial)

    @property
    def since(self) -> float:
        """Wall time of the rotation, seconds since the epoch."""
        return stamp_time(self.stamp)


def stamp_of(wall: float) -> str:
    """Wall time as it stands in a rotated file's name."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))


def stamp_time(stamp: str) -> float:
    """Seconds since the epoch of a stamp that `stamp_of` made. Raises `ValueError` otherwise."""
    if len(stamp) != 16 or stamp[8] != "T" or stamp[15] != "Z":
        raise ValueError(f"{stamp!r} is not a stamp like 20261123T174443Z")
    # By hand, since strptime would import more than the rest of this module takes.
    fields = (stamp[0:4], stamp[4:6], stamp[6:8], stamp[9:11], stamp[11:13], stamp[13:15])
    year, month, day, hour, minute, second = map(int, fields)
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


def current_name(instance: int) -> str:
    """File name of the log that is being written."""
    return f"{instance}.log"


def parse_name(service: str, name: str, size: int = 0) -> Rotated | None:
    """The rotated file that has this name; None if it's no name that rotation gives."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    instance, stamp, serial, gz = match.groups()
    file = Rotated(
        service=service,
        instance=int(instance),
        stamp=stamp,
        serial=int(serial or 0),
        size=size,
        compressed=gz is not None,
    )
    try:
        stamp_time(stamp)
    except ValueError:
        return None
    return file if file.name == name else None  # 00.log.… is somebody else's


def next_rotated(
    service: str, instance: int, size: int, last: tuple[str, int] | None, wall: float
) -> Rotated:
    """The name for a file that is rotated now.

    It sorts after `last`, the newest one there is, even if the wall clock was set back since:
    the order of the names is the order of the output.
    """
    stamp, serial = stamp_of(wall), 0
    if last is not None and stamp <= last[0]:
        stamp, serial = last[0], last[1] + 1
    return Rotated(service=service, instance=instance, stamp=stamp, serial=serial, size=size)


def size_limit(log: Log, budget: int, files: int) -> int:
    """Bytes at which a current file is rotated, when `files` are being written.

    Usually `log.max_size`. Files that are being written cannot be removed, so where so many would
    take more than half of the budget, each gets its share of that half.
    """
    return min(log.max_size, max(SMALLEST, budget // (2 * max(1, files))))


def rotate_at(begun: float, log: Log) -> float:
    """Wall time from which a file is rotated, however small; `begun`: of its first record.

    Daily, or sooner where output may not be kept for a day. A clock set back rotates nothing.
    """
    return begun + min(DAY, log.max_age)


def expired(files: Iterable[Rotated], log: Log, wall: float) -> list[Rotated]:
    """Which of one instance's rotated files go, oldest first, by `max_files` and `max_age`."""
    ordered = sorted(files, key=lambda file: file.order)
    surplus = max(0, len(ordered) - max(0, log.max_files))
    return [
        file
        for position, file in enumerate(ordered)
        if position < surplus or wall - file.since >= log.max_age
    ]


def over_budget(files: Iterable[Rotated], current: Mapping[str, int], budget: int) -> list[Rotated]:
    """Which rotated files go so that all logs together fit into `budget` bytes, in that order.

    The service that takes most pays first, with its oldest file; so one that floods eats its own
    history and nobody else's until it is down to the level of the next. `current` is what each
    service's current files take; they count, but only rotated files can go.
    """
    histories: dict[str, list[Rotated]] = {}
    usage = dict(current)
    for file in files:
        histories.setdefault(file.service, []).append(file)
        usage[file.service] = usage.get(file.service, 0) + file.size
    total = sum(usage.values())
    if total <= budget:
        return []
    for history in histories.values():
        history.sort(key=lambda file: (*file.order, file.instance), reverse=True)
    heap = [(-usage[service], service) for service in histories]
    heapq.heapify(heap)
    gone: list[Rotated] = []
    while heap and total > budget:
        used, service = heapq.heappop(heap)
        file = histories[service].pop()
        gone.append(file)
        total -= file.size
        if histories[service]:
            heapq.heappush(heap, (used + file.size, service))
    return gone
