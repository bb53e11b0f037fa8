"""What is, as core and everybody behind it sees it: the answer to `snapshot`."""

import os
from collections.abc import Mapping, Sequence

import atlasd
from atlasd.services import procinfo
from atlasd.services.protocol import InstanceStatus, ServiceStatus, SnapshotBody
from atlasd.services.service import Service
from atlasd.services.supervisor import Supervisor
from atlasd.services.unit import Unit
from atlasd.states import Lifecycle


def take(supervisor: Supervisor, names: Sequence[str] | None = None) -> SnapshotBody:
    """The state of the services named, or of all; unknown names are passed over."""
    chosen = [
        service
        for name, service in sorted(supervisor.services.items())
        if names is None or name in names
    ]
    sessions = _by_session() if any(_needs_sessions(s) for s in chosen) else {}
    return {
        "pid": os.getpid(),
        "version": atlasd.__version__,
        "boot_id": supervisor.effects.boot_id,
        "next_seq": supervisor.journal.next_seq,
        "budget_tokens": supervisor.budget.tokens(supervisor.clock.monotonic()),
        "output_bytes_total": supervisor.effects.capture.bytes_total,
        "output_lost_bytes_total": supervisor.effects.capture.lost_bytes,
        "spawns_total": supervisor.spawns_total,
        "services": [_service(s, sessions) for s in chosen],
    }


def _needs_sessions(service: Service) -> bool:
    return any(u.pid is not None and u.cgroup is None for u in service.units.values())


def _by_session() -> dict[int, list[procinfo.Stat]]:
    # One pass over /proc for all services, where no cgroup keeps the accounts.
    found: dict[int, list[procinfo.Stat]] = {}
    for process in procinfo.all_processes():
        found.setdefault(process.sid, []).append(process)
    return found


def _service(service: Service, sessions: Mapping[int, list[procinfo.Stat]]) -> ServiceStatus:
    waiting = sorted(
        {
            edge.service
            for edge in service.spec.edges
            if any(u.machine.state is Lifecycle.WAITING for u in service.units.values())
            and edge.service in service.supervisor.services
            and not service.supervisor.services[edge.service].meets(edge.condition)
        }
    )
    return {
        "name": service.name,
        "wanted": service.wanted.value,
        "health": service.health().value,
        "critical": service.spec.critical,
        "type": service.spec.type,
        "ready": service.ready,
        "instances": [_instance(u, sessions) for _, u in sorted(service.units.items())],
        "restarts_total": dict(service.restarts_total),
        "oom_kills_total": service.oom_kills_total,
        "last_exit": service.last_exit,
        "waiting_for": waiting,
    }


def _instance(unit: Unit, sessions: Mapping[int, list[procinfo.Stat]]) -> InstanceStatus:
    machine, now = unit.machine, unit.now
    memory, cpu, tasks = _usage(unit, sessions)
    next_start = machine.next_start_at
    backing_off = machine.state is Lifecycle.BACKOFF and next_start is not None
    return {
        "index": unit.index,
        "state": machine.state.value,
        "pid": unit.pid,
        "health": unit.health().value,
        "traffic": machine.traffic.value,
        "since": unit.since_wall,
        "since_monotonic": unit.since,
        "restarts": machine.restarts,
        "failures": machine.consecutive_failures(now),
        "reason": machine.reason.value,
        "detail": machine.detail,
        "next_start_in": max(0.0, next_start - now) if backing_off and next_start else None,
        "memory_bytes": memory,
        "cpu_seconds": cpu,
        "tasks": tasks,
        "invocation": unit.invocation or None,
        "status_text": unit.status_text,
        "digest": unit.digest if unit.pid is not None else "",
        "delivery": unit.handed.standing,
        "outdated": list(unit.handed.outdated()),
        "leftovers": list(unit.leftovers),
        "crash_loop": machine.in_crash_loop(now),
    }


def _usage(
    unit: Unit, sessions: Mapping[int, list[procinfo.Stat]]
) -> tuple[int | None, float | None, int | None]:
    if unit.pid is None:
        return None, None, None
    memory = cpu = tasks = None
    if unit.cgroup is not None:
        usage = unit.cgroup.usage(peak=False)
        memory, cpu, tasks = usage.memory_bytes, usage.cpu_seconds, usage.tasks
    if memory is None or cpu is None:
        # Without the controller: the sum over the session, or at least over the main process.
        processes = sessions.get(unit.process.session)
        if processes is None:
            main = procinfo.stat(unit.pid)
            processes = [main] if main is not None else []
        memory = memory if memory is not None else sum(p.rss_bytes for p in processes)
        cpu = cpu if cpu is not None else sum(p.cpu_seconds for p in processes)
        tasks = tasks if tasks is not None else len(processes)
    return memory, cpu, tasks
