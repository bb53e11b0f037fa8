"""When a plan falls due: cron by a zone's clock, a fixed interval, a single time; pure.

Moments are whole milliseconds since the epoch. What daylight saving does to cron is Debian's rule,
with an hour's worth of runs for the border: a run at a time that the clock skips comes once, right
after the gap; one in an hour that comes twice runs the first time only. A plan with a star among
its seconds, minutes or hours follows the wall clock instead, through gaps and twice through what
comes twice.

cronsim finds the matching times of a calendar without zones, in both directions; which moment each
of them is gets decided here, since half an hour (Lord Howe) and fields of seconds are beyond it.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NamedTuple, Protocol

SECOND = timedelta(seconds=1)
_STRIDE = timedelta(days=7)
"""No zone changes its clock twice within it."""
_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  naive: all arithmetic here is
_DAY_HOURS = 24


class Occurrence(NamedTuple):
    """A time that a plan names, and what becomes of it."""

    at: int
    wall: str
    """What the clocks of its zone show then: `2026-03-08 03:00:00 -04:00`."""
    mark: str = ""
    """`shifted`: it stands for a time that the clock skips; `skipped`: nothing runs for it;
    `clock`: nothing runs, the clock is changed. Else nothing."""
    words: str = ""
    """Why, for people."""

    @property
    def runs(self) -> bool:
        """Whether it is fired at all."""
        return self.mark in ("", "shifted")


class Plan(Protocol):
    """When something falls due."""

    @property
    def zone(self) -> tzinfo:
        """By whose clock."""

    def after(self, moment: int) -> int | None:
        """The first time after a moment; None: never again."""

    def back(self, moment: int) -> Iterator[int]:
        """All that aren't later than a moment, the latest first."""

    def walk(self, moment: int) -> Iterator[Occurrence]:
        """All after a moment, those that don't run among them, in order."""


class Every:
    """A fixed interval, counted from the epoch: the same on every host and after every start."""

    zone: tzinfo = UTC

    def __init__(self, interval: int) -> None:
        self._interval = interval

    def after(self, moment: int) -> int | None:
        """See `Plan`."""
        return (moment // self._interval + 1) * self._interval

    def back(self, moment: int) -> Iterator[int]:
        """See `Plan`."""
        last = moment // self._interval * self._interval
        return iter(range(last, -1, -self._interval))

    def walk(self, moment: int) -> Iterator[Occurrence]:
        """See `Plan`."""
        while True:
            moment = (moment // self._interval + 1) * self._interval
            instant = _EPOCH + timedelta(milliseconds=moment)
            yield Occurrence(moment, instant.replace(tzinfo=UTC).isoformat(sep=" "))


class Once:
    """A single time."""

    def __init__(self, wall: datetime, zone: tzinfo) -> None:
        """`wall` is what the zone's clock shows; an aware time is what it is."""
        self.zone = zone
        if wall.tzinfo is not None:
            self._found = _plain(_wall_to_utc(wall), zone)
        else:
            self._found = _resolve(wall.replace(fold=0), zone)
        self.at = self._found.at

    def after(self, moment: int) -> int | None:
        """See `Plan`."""
        return self.at if self.at > moment else None

    def back(self, moment: int) -> Iterator[int]:
        """See `Plan`."""
        if self.at <= moment:
            yield self.at

    def walk(self, moment: int) -> Iterator[Occurrence]:
        """See `Plan`."""
        if self.at > moment:
            yield self._found


class Cron:
    """A cron expression of five fields, or six with seconds first, by the clock of a zone."""

    def __init__(self, expression: str, zone: tzinfo) -> None:
        """Of an expression that was found right when the configuration was read."""
        self._expression = expression
        self.zone = zone
        fields = expression.split()
        starred = any(field[0] == "*" for field in fields[:-3])
        self.follows_clock = starred or len(self._calendar(_EPOCH).hours) == _DAY_HOURS

    def after(self, moment: int) -> int | None:
        """See `Plan`."""
        instant = _instant(moment)
        found = next(self._forward(instant) if self.follows_clock else self._fixed(instant), None)
        return None if found is None else _moment(found)

    def back(self, moment: int) -> Iterator[int]:
        """See `Plan`."""
        instant = _instant(moment)
        runs = self._backward(instant) if self.follows_clock else self._fixed_before(instant)
        return map(_moment, runs)

    def walk(self, moment: int) -> Iterator[Occurrence]:
        """See `Plan`."""
        instant = _instant(moment)
        return self._walk_clock(instant) if self.follows_clock else self._walk_fixed(instant)

    # --- runs at fixed times

    def _fixed(self, instant: datetime) -> Iterator[datetime]:
        """Instants after one."""
        for wall in self._walls(instant + _offset(instant, self.zone)):
            found = _utc(wall, self.zone)
            if found > instant:
                yield found
                instant = found

    def _fixed_before(self, instant: datetime) -> Iterator[datetime]:
        """Instants up to one, the latest first."""
        # While an hour comes for the second time, what its clock will show has been already.
        offset = _offset(instant, self.zone)
        again = max(_offset(instant - _DAY, self.zone) - offset, timedelta())
        for wall in self._walls(instant + offset + again + SECOND, reverse=True):
            found = _utc(wall, self.zone)
            if found <= instant:
                yield found
                instant = found - SECOND

    def _walk_fixed(self, instant: datetime) -> Iterator[Occurrence]:
        last = _moment(instant)
        again: list[Occurrence] = []
        for wall in self._walls(instant + _offset(instant, self.zone)):
            found = _resolve(wall, self.zone)
            while again and again[0].at < found.at:
                yield again.pop(0)
            if found.at > last:
                last = found.at
                yield found
            elif found.at == last and found.at > _moment(instant):
                words = f"{wall:%H:%M:%S} comes together with the run before"
                yield found._replace(mark="skipped", words=words)
            second = _second_time(wall, self.zone)
            if second is not None and second.at > _moment(instant):
                again.append(second)

    # --- runs that follow the clock, stretch by stretch in which it isn't changed

    def _forward(self, instant: datetime) -> Iterator[datetime]:
        """Instants after one."""
        offset = _offset(instant, self.zone)
        walls = self._walls(instant + offset)
        while (wall := next(walls, None)) is not None:
            found = wall - offset
            turn = _turn(instant, found, offset, self.zone)
            if turn is None:
                yield found
                instant = found
            else:
                # At the turn itself the new offset holds.
                instant, offset = turn - SECOND, _offset(turn, self.zone)
                walls = self._walls(instant + offset)

    def _backward(self, instant: datetime) -> Iterator[datetime]:
        """Instants up to one, the latest first."""
        offset = _offset(instant, self.zone)
        walls = self._walls(instant + offset + SECOND, reverse=True)
        while (wall := next(walls, None)) is not None:
            found = wall - offset
            turn = _turn_back(found, instant, offset, self.zone)
            if turn is None:
                yield found
                instant = found
            else:
                instant = turn - SECOND
                offset = _offset(instant, self.zone)
                walls = self._walls(instant + offset + SECOND, reverse=True)

    def _walk_clock(self, instant: datetime) -> Iterator[Occurrence]:
        offset = _offset(instant, self.zone)
        for found in self._forward(instant):
            while (turn := _turn(instant, found, offset, self.zone)) is not None:
                instant, offset = turn, _offset(turn, self.zone)
                changed = self._changed(turn)
                if changed is not None:
                    yield changed
            yield _plain(found, self.zone)
            instant = found

    def _changed(self, turn: datetime) -> Occurrence | None:
        """What a change of the clock means for the plan; None where it names no time there."""
        old, new = _offset(turn - SECOND, self.zone), _offset(turn, self.zone)
        low, high = sorted((turn + old, turn + new))
        count = 0
        for wall in self._walls(low - SECOND):
            if wall >= high:
                break
            count += 1
        if not count:
            return None
        times = f"{count} times that the plan names" if count > 1 else "a time that the plan names"
        what = "left out" if new > old else "come again" if count > 1 else "comes again"
        verb = " are " if count > 1 and new > old else " is " if new > old else " "
        words = f"the clock goes from {turn + old:%H:%M} to {turn + new:%H:%M}: {times}{verb}{what}"
        return _plain(turn, self.zone)._replace(mark="clock", words=words)

    # --- the calendar

    def _walls(self, wall: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        """Times that the expression names after one, or before one; as far as fifty years."""
        try:
            yield from self._calendar(wall, reverse=reverse)
        except (OverflowError, ValueError):
            return  # the calendar ends

    def _calendar(self, wall: datetime, *, reverse: bool = False) -> Any:
        from cronsim import CronSim

        return CronSim(self._expression, wall, reverse=reverse)


# Instants are naive and in UTC, walls are naive and what a zone's clock shows.


def _instant(moment: int) -> datetime:
    return _EPOCH + timedelta(seconds=moment // 1000)


def _moment(instant: datetime) -> int:
    return (instant - _EPOCH) // SECOND * 1000


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    found = instant.replace(tzinfo=UTC).astimezone(zone).utcoffset()
    assert found is not None
    return found


def _offsets(wall: datetime, zone: tzinfo) -> tuple[timedelta, timedelta]:
    """Those that hold before and after a change of the clock at which a wall time stands.

    Equal where there is none; the second is greater for a time that is skipped, less for one that
    comes twice.
    """
    first = wall.replace(tzinfo=zone, fold=0).utcoffset()
    second = wall.replace(tzinfo=zone, fold=1).utcoffset()
    assert first is not None
    assert second is not None
    return first, second


def _utc(wall: datetime, zone: tzinfo) -> datetime:
    """The instant of a wall time: the first of two, or the end of the gap that it lies in."""
    old, new = _offsets(wall, zone)
    if new <= old:
        return wall - old
    turn = _turn(wall - new, wall - old, old, zone)
    return wall - old if turn is None else turn


def _wall_to_utc(aware: datetime) -> datetime:
    return aware.astimezone(UTC).replace(tzinfo=None, microsecond=0)


def _resolve(wall: datetime, zone: tzinfo) -> Occurrence:
    """A wall time with what becomes of it."""
    old, new = _offsets(wall, zone)
    found = _plain(_utc(wall, zone), zone)
    if new <= old:
        return found
    words = f"{wall:%H:%M:%S} is skipped by the clock: it runs right after the gap"
    return found._replace(mark="shifted", words=words)


def _second_time(wall: datetime, zone: tzinfo) -> Occurrence | None:
    """The second coming of a wall time, at which nothing runs."""
    old, new = _offsets(wall, zone)
    if new >= old:
        return None
    words = f"{wall:%H:%M:%S} comes twice: it has run the first time"
    return _plain(wall - new, zone)._replace(mark="skipped", words=words)


def _plain(instant: datetime, zone: tzinfo) -> Occurrence:
    aware = instant.replace(tzinfo=UTC).astimezone(zone)
    return Occurrence(_moment(instant), aware.isoformat(sep=" "))


def _turn(start: datetime, end: datetime, offset: timedelta, zone: tzinfo) -> datetime | None:
    """The first instant after `start`, up to `end`, at which another offset holds."""
    while start < end:
        high = min(start + _STRIDE, end)
        if _offset(high, zone) != offset:
            return _halve(start, high, lambda at: _offset(at, zone) != offset)
        start = high
    return None


def _turn_back(start: datetime, end: datetime, offset: timedelta, zone: tzinfo) -> datetime | None:
    """The first instant of the stretch up to `end` with this offset, if that is after `start`."""
    while start < end:
        low = max(end - _STRIDE, start)
        if _offset(low, zone) != offset:
            return _halve(low, end, lambda at: _offset(at, zone) == offset)
        end = low
    return None


def _halve(low: datetime, high: datetime, holds: Callable[[datetime], bool]) -> datetime:
    """The first second at which something holds, which it does not at `low` but does at `high`."""
    while high - low > SECOND:
        middle = low + (high - low) // SECOND // 2 * SECOND
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def shown(moment: int) -> str:
    """A moment in UTC, as `2026-12-24T18:00:00Z`; with milliseconds if it has any."""
    found = _EPOCH + timedelta(milliseconds=moment)
    return found.isoformat(timespec="milliseconds" if moment % 1000 else "seconds") + "Z"
