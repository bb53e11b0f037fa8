"""The line that `systemctl status` shows of the services role."""

from atlasd import notify
from atlasd.services.supervisor import Supervisor
from atlasd.states import Lifecycle

QUIET = 0.2
"""Seconds over which changes are gathered into one message."""


def text(supervisor: Supervisor) -> str:
    """How many services and instances there are, and in which states: one line."""
    states = [
        unit.machine.state
        for service in supervisor.services.values()
        for unit in service.units.values()
    ]
    counts = {state: states.count(state) for state in Lifecycle}
    told = ", ".join(f"{number} {state.value}" for state, number in counts.items() if number)
    return f"{len(supervisor.services)} services" + (f"; instances: {told}" if told else "")


def keep(supervisor: Supervisor) -> None:
    """Tell systemd the line now and after each change; does nothing where nobody listens."""
    if not notify.enabled():
        return
    pending = False

    def tell() -> None:
        nonlocal pending
        pending = False
        notify.status(text(supervisor))

    def changed(_: object) -> None:
        nonlocal pending
        if not pending:
            pending = True
            supervisor.loop.call_later(QUIET, tell)

    supervisor.journal.listen(changed)
    changed(None)
