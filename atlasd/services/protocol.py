"""What core and the services role say to each other on `services.sock`.

Newline-delimited JSON, one object a line; descriptors ride along with SCM_RIGHTS.

    → {"id": 7, "op": "stop", "service": "web", "instance": null, "actor": "uid:0"}
    ← {"id": 7, "ok": {...}}    or    {"id": 7, "error": {"code", "message", "hint", "details"}}
    ← {"event": {...}}          after `subscribe`: facts, each with a growing `seq`

Operations (request fields beside `id` and `op` → fields of `ok`):

    hello       version
                → version, pid, boot_id, started, next_seq, capabilities,
                  last_upgrade: {ok, detail} | {}
    apply       services: [spec…], wanted: {name: Wanted}, host: HostPolicy, actor, dry_run
                → actions: [Action…]
    snapshot    services: [name…] | null
                → SnapshotBody
    start, stop, restart, reload
                service, instance|null, actor, reason
                → affected: [index…]
    pause       service, actor
                → {}
    signal      service, instance|null, signal, actor
                → affected: [index…]
    scale       service, instances, actor
                → actions: [Action…]
    subscribe   since: seq|null
                → next_seq, lost; events from `since` on follow
    offer       names: [name…], and descriptors (SCM_RIGHTS; at most 200 a message)
                → taken: [name…]
    hold        sent by services, as {"hold": [name…], "drop": [name…]} and descriptors: keep
                duplicates of these
    upgrade     executable|null, actor
                → an error, when it is refused; else the connection ends, and `last_upgrade` of the
                  next hello tells
    shutdown    keep_services: bool, actor
                → {}, when everything is stopped

A start, stop, restart or reload is answered as soon as it is accepted; what came of it is seen in
events and the snapshot.
"""

import json
from typing import TypedDict

encode = json.JSONEncoder(separators=(",", ":")).encode
"""As compact JSON; made once, since facts and records are written at every turn of an instance."""


class InstanceStatus(TypedDict):
    """One instance in a snapshot."""

    index: int
    state: str
    pid: int | None
    health: str
    traffic: str
    since: float
    """Wall time of the last change of state, seconds since the epoch."""
    since_monotonic: float
    restarts: int
    """Starts after a failure, since the definition was first seen."""
    failures: int
    """Consecutive failures since the last stable run."""
    reason: str
    detail: str
    """The reason in plain words: `exit code 3`, `waiting for db to be ready`."""
    next_start_in: float | None
    """Seconds until the next try, in backoff; else null."""
    memory_bytes: int | None
    cpu_seconds: float | None
    """Of all its processes. In a cgroup, since the cgroup was made, earlier processes included: the
    count could only begin anew at each start by a look that costs as much as the start itself."""
    tasks: int | None
    invocation: str | None
    status_text: str
    """STATUS= of the notify protocol."""
    digest: str
    """Digest of the restart-needing part of the specification that the process was started with."""
    delivery: str
    """due: what has changed of what it is handed is still to be handed over; halted: that was given
    up, at another instance or this one; empty: neither."""
    outdated: list[str]
    """Names of secrets and settings of which the process has something older than configured."""
    leftovers: list[int]
    crash_loop: bool


class ServiceStatus(TypedDict):
    """One service in a snapshot."""

    name: str
    wanted: str
    health: str
    critical: bool
    type: str
    ready: bool
    instances: list[InstanceStatus]
    restarts_total: dict[str, int]
    """Restarts by reason code, since the services role first saw the service."""
    oom_kills_total: int
    last_exit: float | None
    waiting_for: list[str]


class SnapshotBody(TypedDict):
    """The answer to `snapshot`."""

    pid: int
    version: str
    boot_id: str
    next_seq: int
    budget_tokens: float
    output_bytes_total: int
    output_lost_bytes_total: int
    """Bytes of output that could not be written, because the disk was full."""
    spawns_total: int
    services: list[ServiceStatus]


class ActionBody(TypedDict):
    """One step of a plan: what is done to one instance, and why."""

    service: str
    instance: int
    action: str
    """start | stop | restart | deliver | update | none"""
    reason: str
    """Reason code."""
    detail: str
    """In plain words: `command changed`, `removed from the configuration`."""


class EventBody(TypedDict, total=False):
    """A fact of the services role; `seq`, `time` and `kind` are always there."""

    seq: int
    time: float
    """Wall time, seconds since the epoch."""
    monotonic: float
    kind: str
    """transition | crash | health | traffic | status | leftovers | plan | hook | upgrade |
    delivery | lost-output"""
    service: str
    instance: int
    old: str
    new: str
    reason: str
    detail: str
    actor: str
    pid: int | None
    data: dict[str, object]
