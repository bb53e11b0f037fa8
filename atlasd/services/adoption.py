"""Taking over from a predecessor: each process is proven to be ours before it is touched.

A record names a process by pid, start time and boot id. All three must match, then a pidfd is
opened, then they must match again. What cannot be proven is treated as down and never signalled.
"""

import os
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TypeVar

from atlasd.services import procinfo
from atlasd.services.launcher import HOOK, INVOCATION
from atlasd.services.records import read_all, read_json
from atlasd.services.restart import Exit
from atlasd.services.service import Service
from atlasd.services.spec import HostPolicy, ServiceSpec, policy_from_wire, spec_from_wire
from atlasd.services.supervisor import Supervisor
from atlasd.services.unit import Unit
from atlasd.states import LIVE, Health, Lifecycle, Reason, Wanted

Records = dict[str, dict[int, dict[str, object]]]
"""Service → instance → record."""

PATIENCE = 2.0
"""Seconds to wait for core to give back what it held, before an exit counts as unknown."""


@dataclass(kw_only=True)
class Adopted:
    """What was found; for the log."""

    adopted: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    not_ours: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Neither of these: a fault of the record, or of this program."""

    def __str__(self) -> str:
        text = f"{len(self.adopted)} adopted, {len(self.ended)} had ended meanwhile"
        if self.not_ours:
            text += f", not provably ours: {', '.join(self.not_ours)}"
        if self.failed:
            text += f", could not be taken over: {', '.join(self.failed)}"
        return text


def adopt(supervisor: Supervisor) -> Adopted:
    """Read the target and the records that a predecessor left, and take over what is proven.

    What belongs to no service of the target, as when that cannot be read, waits for the next one:
    the services that it defines find their processes, and what it doesn't define is ended.
    """
    report = Adopted()
    specs, wanted, removed, policy = _target(supervisor)
    records: Records = {}
    for name, index, body in read_all(supervisor.effects.records_dir):
        records.setdefault(name, {})[index] = body
    if specs:
        supervisor.set_policy(policy)
    for spec in specs:
        service = supervisor.services[spec.name] = Service(supervisor, spec)
        service.wanted = wanted.get(spec.name, Wanted.UP)
        service.removed = spec.name in removed
        if service.wanted is Wanted.UP:
            service.open_sockets_early()
        _take_over_service(service, records, report)
    if records:
        supervisor.left_behind = partial(_take_over_later, records)
    if specs:
        supervisor.loop.call_soon(partial(_begin, supervisor))
    return report


def _take_over_service(service: Service, records: Records, report: Adopted) -> None:
    for index, record in records.pop(service.name, {}).items():
        unit = service.unit(index)
        try:
            _take_over(unit, record, report)
        except Exception:  # noqa: BLE001  one bad record must not cost the others their adoption
            report.failed.append(f"{service.name}.{index}")
            unit.loop.report(f"{service.name}.{index}: {traceback.format_exc()}")
            unit.machine.restore(
                Lifecycle.LOST, Reason.ADOPTED, "it could not be taken over, see the log"
            )


def _take_over_later(records: Records, supervisor: Supervisor, new: list[Service]) -> None:
    """The first target has come: its services find their processes, the others are ended."""
    report = Adopted()
    for service in new:
        _take_over_service(service, records, report)
    for name in list(records):
        spec = ServiceSpec(name=name, command=("unknown",), enabled=False)
        service = supervisor.services[name] = Service(supervisor, spec)
        service.removed, service.wanted = True, Wanted.DOWN
        _take_over_service(service, records, report)
    supervisor.loop.call_soon(partial(_begin, supervisor))
    supervisor.loop.report(f"taking over: {report}")


def _begin(supervisor: Supervisor) -> None:
    """Start what is wanted and was not there, and end what was being removed."""
    starts = []
    for service in list(supervisor.services.values()):
        if not service.removed:
            service.complete()
        for index, unit in list(service.units.items()):
            if service.removed or index >= service.spec.instances:
                unit.want(Wanted.DOWN, reason=Reason.CONFIG, detail="no longer configured")
            elif service.wanted is Wanted.UP and unit.idle:
                starts.append((unit, ""))
    supervisor.start_units(starts, Reason.BOOT, "")
    supervisor.settle()
    supervisor.sweep_secrets()


def _target(
    supervisor: Supervisor,
) -> tuple[list[ServiceSpec], dict[str, Wanted], set[str], HostPolicy]:
    body = read_json(supervisor.target_path)
    if not isinstance(body, dict):
        return [], {}, set(), HostPolicy()
    try:
        specs = [spec_from_wire(s) for s in body["services"]]
        wanted = {str(k): Wanted(v) for k, v in body["wanted"].items()}
        removed = {str(name) for name in body.get("removed", ())}
        policy = policy_from_wire(body["policy"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        supervisor.loop.report(
            f"{supervisor.target_path} cannot be read ({type(error).__name__}): nothing is touched"
            " until core sends a target"
        )
        return [], {}, set(), HostPolicy()
    return specs, wanted, removed, policy


def _take_over(unit: Unit, record: Mapping[str, object], report: Adopted) -> None:
    name = f"{unit.service.name}.{unit.index}"
    if record.get("boot_id") != unit.effects.boot_id:
        return  # of an earlier boot: its process is gone for certain
    state = _word(Lifecycle, record.get("state"), Lifecycle.RUNNING)
    unit.invocation = str(record.get("invocation", ""))
    _restore_counters(unit, record)
    pid = record.get("pid")
    if state is Lifecycle.STOPPING or (state is Lifecycle.STARTING and pid is None):
        _end_hooks(unit.invocation)
    if state in LIVE and not isinstance(pid, int):
        # Killed between the intent and its outcome: the invocation tells whether it was started.
        found = _by_invocation(unit.invocation)
        if found is None:
            if state is Lifecycle.STOPPING:
                _go_on_sweeping(unit, record)
            return
        pid = found.pid
        record = {**record, "start_time": found.start_time, "session": pid, "session_start": None}
    if state in LIVE and isinstance(pid, int):
        _take_process(unit, record, pid, state, report, name)
        return
    _restore_idle(unit, record, state)


def _restore_counters(unit: Unit, record: Mapping[str, object]) -> None:
    machine = unit.machine
    machine.wanted = _word(Wanted, record.get("wanted"), Wanted.UP)
    machine.failures = _int(record.get("failures"))
    machine.restarts = unit.counted_restarts = _int(record.get("restarts"))
    window = record.get("window")
    if isinstance(window, list):
        machine.window.restore([float(t) for t in window])
    unit.asked_down = record.get("asked_down") is True
    unit.handed.restore(record)
    _restore_since(unit, record)
    uid = record.get("uid")
    unit.uid = uid if isinstance(uid, int) else None


def _restore_since(unit: Unit, record: Mapping[str, object]) -> None:
    unit.since = _float(record.get("since"), unit.since)
    unit.since_wall = _float(record.get("since_wall"), unit.since_wall)


def _identify(unit: Unit, record: Mapping[str, object], pid: int) -> None:
    session, session_start = record.get("session"), record.get("session_start")
    unit.process.known_as(
        pid,
        _int(record.get("start_time")),
        session if isinstance(session, int) else None,
        session_start if isinstance(session_start, int) else None,
    )


def _take_process(
    unit: Unit,
    record: Mapping[str, object],
    pid: int,
    state: Lifecycle,
    report: Adopted,
    name: str,
) -> None:
    unit.digest = str(record.get("digest", "")) or unit.service.spec.digest()
    _identify(unit, record, pid)
    unit.confinement.adopt(unit.service.spec.limits)
    unit.output.keep_out(unit.service.spec.secrets)
    unit.output.own(unit.uid)
    stat = procinfo.stat(pid)
    # After an upgrade in place it is still our child: even dead, it waits for us to reap it.
    own_child = stat is not None and stat.ppid == os.getpid()
    pidfd = None
    if stat is not None and (own_child or stat.state not in "ZX"):
        pidfd = procinfo.open_proven(pid, unit.process.start_time)
    if pidfd is None:
        stranger = stat is not None and stat.start_time != unit.process.start_time
        if stranger:
            report.not_ours.append(f"{name} (pid {pid} is another process now)")
        report.ended.append(name)
        _await_exit(unit, record, pid, state, stranger=stranger)
        return
    unit.process.adopt(pid, pidfd, is_child=own_child)
    now, machine = unit.now, unit.machine
    started = record.get("started_at")
    uptime = max(0.0, now - started) if isinstance(started, float) else 0.0
    unit.started_wall = unit.supervisor.clock.wall() - uptime
    health = _word(Health, record.get("health"), Health.UNKNOWN)
    as_state = state if state is Lifecycle.STARTING else Lifecycle.RUNNING
    machine.adopt(now, state=as_state, uptime=uptime, ready=bool(record.get("ready")))
    running = record.get("running_since")
    if isinstance(running, float):
        machine.running_since = running
    machine.health = health
    if machine.state is state:  # that it was adopted is no change of its state
        _restore_since(unit, record)
    unit.attendants.stored.take_back()
    unit.attendants.relisten(machine.spec)
    unit.attendants.attend(adopted=True, health=health)
    if state is Lifecycle.STOPPING:
        _go_on_stopping(unit, record)
    unit.write_record()
    report.adopted.append(name)


def _go_on_stopping(unit: Unit, record: Mapping[str, object]) -> None:
    reason, detail = _why(record)
    after = record.get("after")
    if after == "stopped":
        unit.want(Wanted.DOWN, reason=reason, detail=detail)
    elif after == "restart":
        unit.machine.restart(unit.now, reason=reason, detail=detail)
    else:
        unit.machine.unhealthy(unit.now, reason, detail)


def _go_on_sweeping(unit: Unit, record: Mapping[str, object]) -> None:
    """Its main process had ended; what that has left behind may still be there."""
    _identify(unit, record, _int(record.get("session")))
    unit.confinement.adopt()
    unit.machine.take_over_sweep(
        _why(record),
        after=str(record.get("after") or "stopped"),
        outcome=str(record.get("outcome") or ""),
    )
    unit.loop.call_soon(unit.sweep)


def _await_exit(
    unit: Unit,
    record: Mapping[str, object],
    pid: int,
    state: Lifecycle,
    *,
    stranger: bool,
) -> None:
    """It has ended while nobody watched. A peer may hold a pidfd that still tells how."""
    name = f"pidfd/{unit.service.name}/{unit.index}"
    unit.machine.reason, unit.machine.detail = _why(record)
    unit.machine.take_over_dead(
        state,
        started_at=_float(record.get("started_at"), unit.now),
        running_since=record.get("running_since"),
        after=str(record.get("after") or "stopped") if state is Lifecycle.STOPPING else "",
    )
    unit.pending_exit = True
    done = False

    def conclude() -> None:
        nonlocal done
        held = unit.effects.held.take(name)
        exit_ = procinfo.exit_of(held if held is not None else -1, pid, unit.process.start_time)
        if held is not None:
            os.close(held)
        done = True
        unit.pending_exit = False
        lost = f"pid {pid} is another process now" if stranger and exit_ == Exit() else ""
        unit.process_ended(exit_, lost=lost)

    def offered() -> None:
        if done:
            return
        if unit.effects.held.has(name):
            conclude()
        else:
            unit.effects.held.when_offered(offered)

    zombie = procinfo.stat(pid)
    told = zombie is not None and zombie.start_time == unit.process.start_time
    if told or unit.effects.held.has(name):
        unit.loop.call_soon(conclude)
        return
    unit.effects.held.when_offered(offered)
    unit.loop.call_later(PATIENCE, lambda: None if done else conclude())


def _restore_idle(unit: Unit, record: Mapping[str, object], state: Lifecycle) -> None:
    machine = unit.machine
    reason, detail = _why(record)
    if state is Lifecycle.WAITING:
        unit.loop.call_soon(lambda: unit.want(machine.wanted, reason=Reason.BOOT))
        return
    machine.restore(state, reason, detail)
    next_start = record.get("next_start_at")
    if state is Lifecycle.BACKOFF:
        machine.next_start_at = _float(next_start, unit.now)
        unit.arm("backoff", max(0.0, machine.next_start_at - unit.now))


def _bearing(invocation: str) -> list[tuple[procinfo.Stat, str]]:
    """The living processes with this invocation, each with the hook that it is part of, or ""."""
    if not invocation:
        return []
    mark, hook = f"{INVOCATION}={invocation}".encode(), f"{HOOK}=".encode()
    found = []
    for process in procinfo.all_processes():
        environment = procinfo.environment(process.pid)
        if process.state not in "ZX" and mark in environment:
            hooks = [e.removeprefix(hook).decode() for e in environment if e.startswith(hook)]
            found.append((process, hooks[0] if hooks else ""))
    return found


def _end_hooks(invocation: str) -> None:
    # A successor runs them anew, and they must not run twice at the same time.
    for process, hook in _bearing(invocation):
        if hook in ("pre_start", "pre_stop", "post_stop"):
            procinfo.signal_proven(process, signal.SIGKILL)


def _by_invocation(invocation: str) -> procinfo.Stat | None:
    found = [p for p, hook in _bearing(invocation) if not hook and p.sid == p.pid]
    # Of several, the one that was started first is the one that we have started.
    return min(found, key=lambda p: p.start_time) if found else None


W = TypeVar("W", bound=StrEnum)


def _word(words: type[W], value: object, otherwise: W) -> W:
    # Another version may know words that this one doesn't.
    try:
        return words(str(value))
    except ValueError:
        return otherwise


def _why(record: Mapping[str, object]) -> tuple[Reason, str]:
    return _word(Reason, record.get("reason"), Reason.BOOT), str(record.get("detail") or "")


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _float(value: object, otherwise: float) -> float:
    return value if isinstance(value, float) else otherwise
