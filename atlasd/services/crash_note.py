"""Noting an unplanned end: on disk with its last words, and in the journal without them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atlasd.services import crash
from atlasd.services.restart import LOOP_WINDOW, Exit
from atlasd.states import Lifecycle, Reason

if TYPE_CHECKING:
    from atlasd.services.unit import Unit


def note_crash(
    unit: "Unit",
    cause: Reason,
    detail: str,
    exit_: Exit,
    *,
    uptime: float | None = None,
    pid: int | None = None,
    last: Sequence[str] = (),
) -> None:
    """Note it once this turn is over: the next start comes first."""
    service, machine = unit.service, unit.machine

    def write() -> None:
        record = crash.make(
            wall=unit.supervisor.clock.wall(),
            service=service.name,
            index=unit.index,
            pid=pid,
            cause=cause.value,
            detail=detail,
            exit_=exit_,
            uptime=uptime,
            memory_bytes=None,
            cpu_seconds=None,
            failures=machine.failures,
            in_window=machine.window.within(unit.now, LOOP_WINDOW),
            last_output=last,
            next_step=_next_step(unit),
        )
        try:
            record = service.crashes.add(record)
        except OSError as error:
            record["not_written"] = error.strerror
        unit.supervisor.journal.add(
            "crash",
            service=service.name,
            instance=unit.index,
            reason=cause.value,
            detail=detail,
            pid=pid,
            # The last words stay on disk: facts wait in memory for a core that is away.
            data={k: v for k, v in record.items() if k != "last_output"}
            | {"crash_loop": machine.in_crash_loop(unit.now)},
        )

    unit.loop.call_soon(write)


def _next_step(unit: "Unit") -> str:
    machine = unit.machine
    if machine.state is Lifecycle.BACKOFF and machine.next_start_at is not None:
        return f"start again in {max(0.0, machine.next_start_at - unit.now):.1f} s"
    if machine.state is Lifecycle.FAILED:
        return "given up"
    if machine.state in (Lifecycle.STARTING, Lifecycle.RUNNING):
        return "started again"
    return machine.state.value
