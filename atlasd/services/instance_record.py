"""What stands in the record of an instance; `adoption` reads it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atlasd.services.unit import Unit


def record_of(unit: "Unit") -> dict[str, object]:
    """All that a successor needs in order to find the instance and go on with it."""
    machine, process = unit.machine, unit.process
    return {
        "pid": process.pid,
        "start_time": process.start_time if process.pid is not None else 0,
        "session": process.session,
        "session_start": process.session_start if process.session else 0,
        "boot_id": unit.effects.boot_id,
        "invocation": unit.invocation,
        "digest": unit.digest,
        "state": machine.state.value,
        "reason": machine.reason.value,
        "detail": machine.detail,
        "wanted": machine.wanted.value,
        "asked_down": unit.asked_down,
        "after": machine.after,
        "outcome": machine.outcome,
        "ready": machine.is_ready,
        "health": machine.health.value,
        "failures": machine.failures,
        "restarts": machine.restarts,
        "window": [round(t, 1) for t in machine.window.times()[-20:]],
        "started_at": machine.started_at,
        "running_since": machine.running_since,
        "next_start_at": machine.next_start_at,
        "since": unit.since,
        "since_wall": unit.since_wall,
        "uid": unit.uid,
        **unit.handed.to_record(),
    }
