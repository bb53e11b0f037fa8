"""The story of a service in plain words: what it is, since when, why, what comes, what to do."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from atlasd.clock import utc
from atlasd.events import (
    Event,
    HealthChanged,
    InstanceMoved,
    OperationPerformed,
    ServiceEvent,
    ServiceScaled,
)
from atlasd.services.protocol import InstanceStatus, ServiceStatus
from atlasd.states import LIVE, Lifecycle, Reason, Wanted

TOLD = 12
"""At most this many past events are told; the others are in the events of the answer."""

_BECAUSE: Mapping[str, str] = {
    Reason.BOOT: "as the services role started",
    Reason.CONFIG: "as the configuration says",
    Reason.DELIVERY: "as what it is handed has changed",
    Reason.BACKOFF: "as the delay before a restart was over",
    Reason.DEPENDENCY: "as its dependencies were met",
    Reason.BUDGET: "as the host's budget for restarts allowed it again",
    Reason.DEPLOY: "by a deployment",
}


def story(
    service: ServiceStatus,
    events: Sequence[Event],
    crashes: Sequence[Mapping[str, Any]],
    *,
    now: float,
) -> list[str]:
    """Sentences, newest last: the past from the journal, the crashes, then the present.

    `crashes` are crash records, oldest first, as the services role writes them.
    """
    told: list[str] = []
    for event in events:
        sentence = tell(event, now=now, many=len(service["instances"]) > 1)
        if sentence and (not told or told[-1] != sentence):
            told.append(sentence)
    told = told[-TOLD:]
    if crashes:
        told.append(_crashes(crashes, now=now))
    told.append(_summary(service))
    told += [_present(service, instance, now=now) for instance in service["instances"]]
    return told


def tell(event: Event, *, now: float, many: bool) -> str:
    """One past event as a sentence, or the empty string when it adds nothing to the story."""
    if not isinstance(event, ServiceEvent | OperationPerformed):
        return ""
    when = _moment(event.time, now)
    who = f"instance {event.instance}" if many and event.instance is not None else "it"
    if isinstance(event, OperationPerformed):
        if event.operation == "service.signal" and not event.error:
            return ""  # the signal itself is a fact, and names who sent it
        outcome = f", which was refused ({event.detail})" if event.error else ""
        return f"{when}: {event.actor} asked for {event.operation}{outcome}."
    if isinstance(event, HealthChanged):
        because = f" ({event.detail})" if event.detail else ""
        return f"{when}: {who} went from {event.old} to {event.new} by its probes{because}."
    if isinstance(event, InstanceMoved):
        return f"{when}: {who} {_move(event)}."
    if isinstance(event, ServiceScaled):
        return f"{when}: scale {event.old} → {event.new}: {event.detail}."
    if event.kind == "leftovers":
        return f"{when}: {who} left processes behind ({event.detail})."
    if event.kind == "signal":
        return f"{when}: {who} was sent {event.detail}{_by(event)}."
    if event.kind == "delivery":
        return f"{when}: what {who} is handed changed ({event.detail})."
    if event.kind == "roll-halted":
        return f"{when}: going from one instance to the next stopped at {who} ({event.detail})."
    if event.kind == "hook":
        return f"{when}: a command beside {who} ended ({event.detail})." if event.detail else ""
    return ""


def _by(event: ServiceEvent) -> str:
    return f" on request of {event.actor}" if event.actor else ""


def _move(event: InstanceMoved) -> str:
    detail = event.detail or event.reason
    asked = _by(event)
    if event.new == Lifecycle.STARTING:
        if event.reason == Reason.REQUEST:
            return f"was started{asked or ' on request'}"
        if event.reason in _BECAUSE:
            return f"was started {_BECAUSE[event.reason]}"
        return "was started again"
    phrases = {
        Lifecycle.RUNNING: "was taken over while it ran"
        if event.reason == Reason.ADOPTED
        else "was up and ready"
        if event.old == Lifecycle.STARTING
        else f"ran on ({detail})",
        Lifecycle.WAITING: f"had to wait ({detail})",
        Lifecycle.BACKOFF: f"ended ({detail})",
        Lifecycle.EXITED: f"finished as expected ({detail})",
        Lifecycle.FAILED: f"was given up ({detail})",
        Lifecycle.LOST: f"was lost: it cannot be proven to be ours ({detail})",
        Lifecycle.STOPPING: f"was told to stop{asked}"
        if event.reason == Reason.REQUEST
        else f"was told to stop ({detail})",
        Lifecycle.STOPPED: f"was stopped{asked}"
        if event.reason == Reason.REQUEST
        else f"stopped ({detail})",
        Lifecycle.RELOADING: f"was told to reload ({detail})"
        if event.reason == Reason.DELIVERY
        else f"was told to reload{asked}",
    }
    return phrases.get(Lifecycle(event.new), f"went from {event.old} to {event.new} ({detail})")


def _crashes(crashes: Sequence[Mapping[str, Any]], *, now: float) -> str:
    last = crashes[-1]
    equal = [c for c in crashes if c.get("fingerprint") == last.get("fingerprint")]
    count = max(len(equal), int(last.get("count") or 1))
    times = "once" if count == 1 else f"{count} times"
    lived = last.get("uptime_seconds")
    after = f" after {duration(float(lived))}" if isinstance(lived, int | float) else ""
    memory = last.get("memory_bytes")
    with_memory = f", with {size(int(memory))} of memory" if isinstance(memory, int) else ""
    sentence = (
        f"The last crash, {_moment(crash_time(last), now)}: {last.get('detail') or last['cause']}"
        f"{after}{with_memory}; this kind of crash was seen {times}."
    )
    words = [str(line) for line in last.get("last_output") or () if str(line).strip()]
    if words:
        sentence += f" Its last words: {words[-1].strip()[:300]!r}."
    return sentence


def _summary(service: ServiceStatus) -> str:
    states = [instance["state"] for instance in service["instances"]]
    running = sum(1 for state in states if state in (Lifecycle.RUNNING, Lifecycle.RELOADING))
    name, wanted = service["name"], service["wanted"]
    if not states:
        return f"{name} is wanted {wanted} and has no instance."
    if len(states) == 1:
        return f"{name} is {states[0]}, and wanted {wanted}."
    return f"{name}: {running} of {len(states)} instances are running; it is wanted {wanted}."


def _present(service: ServiceStatus, instance: InstanceStatus, *, now: float) -> str:
    who = f"Instance {instance['index']}" if len(service["instances"]) > 1 else "It"
    state = Lifecycle(instance["state"])
    since = f"for {duration(now - instance['since'])}"
    detail = instance["detail"]
    because = f", because: {detail}" if detail else ""
    pid = f" (pid {instance['pid']})" if instance["pid"] else ""
    if state is Lifecycle.RUNNING:
        health = instance["health"]
        probes = f"; its probes say {health}" if health != "unknown" else ""
        said = f"; it says: {instance['status_text']!r}" if instance["status_text"] else ""
        failed = instance["restarts"]
        restarts = f", {failed} restart{'s' if failed != 1 else ''} after failures so far"
        outdated = ", ".join(instance.get("outdated", ()))
        older = f"; it has an older {outdated} than is configured" if outdated else ""
        running = f"{who} has been running{pid} {since}{probes}{said}"
        return f"{running}{restarts if failed else ''}{older}."
    if state is Lifecycle.BACKOFF:
        left = instance["next_start_in"]
        after = f"; the next try is in {duration(left)}" if left is not None else ""
        count = instance["failures"]
        return (
            f"{who} is in backoff after {count} failure{'s' if count != 1 else ''} in a row"
            f" ({detail or instance['reason']}){after}."
        )
    if state is Lifecycle.WAITING:
        waiting = detail or ", ".join(service["waiting_for"]) or "its dependencies"
        told = waiting if waiting.startswith("waiting") else f"waiting: {waiting}"
        return f"{who} has been {told} {since}."
    if state is Lifecycle.STARTING:
        return f"{who} has been starting{pid} {since}, and becomes running once it is ready."
    if state is Lifecycle.STOPPING:
        return f"{who} has been stopping{pid} {since}{because}."
    words = {
        Lifecycle.EXITED: "finished as expected",
        Lifecycle.FAILED: "was given up",
        Lifecycle.LOST: "was lost and is never signalled",
        Lifecycle.STOPPED: "has been stopped",
        Lifecycle.RELOADING: "is reloading",
    }
    return f"{who} {words[state]} {duration(now - instance['since'])} ago{because}."


def advice(
    service: ServiceStatus, crashes: Sequence[Mapping[str, Any]], *, paused_hint: bool = True
) -> list[str]:
    """What the operator can do, most useful first; empty when nothing need be done."""
    name = service["name"]
    found: list[str] = []
    states = {Lifecycle(instance["state"]) for instance in service["instances"]}
    reasons = {instance["reason"] for instance in service["instances"]}
    troubled = states & {Lifecycle.FAILED, Lifecycle.BACKOFF, Lifecycle.LOST} or any(
        i["crash_loop"] or (i["failures"] and Lifecycle(i["state"]) in LIVE)
        for i in service["instances"]
    )
    if service["wanted"] == Wanted.DOWN:
        return [f"`atlasctl start {name}` starts it."]
    if service["wanted"] == Wanted.PAUSED and paused_hint:
        found.append(f"It is paused: `atlasctl start {name}` has it restarted again when it ends.")
    if troubled:
        found.append(f"`atlasctl logs {name} --lines 50` shows what it wrote before it ended.")
    if Reason.SPAWN in reasons:
        found.append(_advice_on_spawn(name, [i["detail"] for i in service["instances"]]))
    if Reason.OOM_KILL in reasons:
        found.append(f"Raise limits.memory of [services.{name}], or find what eats the memory.")
    if Reason.START_TIMEOUT in reasons:
        found.append("See that its readiness is what the program really says; or allow more time.")
    if crashes and crashes[-1].get("exit_code") == 78 and troubled:
        found.append("Exit code 78 says that the program's own configuration is wrong.")
    if Lifecycle.WAITING in states:
        found += [
            f"`atlasctl why {other}` tells why {other} is not as it must be."
            for other in service["waiting_for"]
        ]
    if Lifecycle.BACKOFF in states:
        found.append(f"It is tried again by itself; `atlasctl restart {name}` tries at once.")
    if Lifecycle.FAILED in states:
        found.append(f"When the cause is mended: `atlasctl start {name}`.")
    if Lifecycle.LOST in states:
        found.append(f"See what became of its process, then `atlasctl start {name}`.")
    return [*found, *_advice_on_processes(service)]


def _advice_on_processes(service: ServiceStatus) -> list[str]:
    found = []
    if any(instance.get("outdated") for instance in service["instances"]):
        found.append(f"`atlasctl restart {service['name']}` gives it what is configured now.")
    for instance in service["instances"]:
        if instance["leftovers"]:
            pids = " ".join(str(pid) for pid in instance["leftovers"])
            found.append(f"`ps -o pid,stat,wchan:30,args {pids}` shows what will not die.")
    return found


def crash_time(record: Mapping[str, Any]) -> float:
    """Wall time of a crash record, whichever way it is written; 0 when it cannot be read."""
    value = record.get("time")
    if isinstance(value, int | float):
        return float(value)
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        return 0.0
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def grouped(crashes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Equal crashes put together, the latest first, in the shape of the answer's `crashes`."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in crashes:
        groups.setdefault(str(record.get("fingerprint", "")), []).append(record)
    found: list[dict[str, Any]] = []
    for fingerprint, records in groups.items():
        last = records[-1]
        found.append(
            {
                "fingerprint": fingerprint,
                "count": max(len(records), int(last.get("count") or 1)),
                "first": utc(crash_time(records[0])),
                "last": utc(crash_time(last)),
                "reason": str(last.get("cause", "")),
                "detail": str(last.get("detail", "")),
                "exit_code": last.get("exit_code"),
                "signal": None if last.get("signal") is None else str(last["signal"]),
                "oom": bool(last.get("oom", False)),
                "instance": last.get("instance"),
                "uptime_seconds": _number(last.get("uptime_seconds")),
                "memory_bytes": last.get("memory_bytes"),
                "cpu_seconds": _number(last.get("cpu_seconds")),
                "restarts_in_window": last.get("restarts_in_window"),
                "output": tuple(str(line) for line in last.get("last_output") or ()),
            }
        )
    found.sort(key=lambda group: group["last"], reverse=True)
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def duration(seconds: float) -> str:
    """A duration for people: `350 ms`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`."""
    if seconds < 0.9995:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    parts = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")]
    words: list[str] = []
    for length, unit in parts:
        amount, whole = divmod(whole, length)
        if amount or words:
            words.append(f"{amount} {unit}" if amount else "")
        if len(words) == 2:
            break
    return " ".join(word for word in words if word)


def size(amount: int) -> str:
    """Bytes for people: `512 B`, `34.1 MiB`."""
    value = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{amount} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _moment(wall: float, now: float) -> str:
    when, today = utc(wall), utc(now)
    if when.date() == today.date():
        return f"{when:%H:%M:%S}Z"
    return f"{when:%Y-%m-%d %H:%M:%S}Z"


def _advice_on_spawn(name: str, details: Sequence[str]) -> str:
    """What to look at when a program could not even be started."""
    if any(detail.startswith("pre_start ") for detail in details):
        return f"Run the pre_start commands of [services.{name}] by hand, as its user."
    if any(detail.startswith("socket ") for detail in details):
        return f"See who has the address of [services.{name}.sockets]: `ss -lptn`, `ss -lpxn`."
    return f"See that the command of [services.{name}] exists and may be executed."
