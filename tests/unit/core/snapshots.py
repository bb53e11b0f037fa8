"""Snapshots of made-up services, as the services role would send them."""

from typing import Any, cast

from atlasd.services.protocol import InstanceStatus, ServiceStatus, SnapshotBody

NOW = 1_800_000_000.0


def instance(index: int = 0, state: str = "running", **values: Any) -> InstanceStatus:
    """An instance that has been running well for an hour, but for what is given."""
    return cast(
        "InstanceStatus",
        {
            "index": index,
            "state": state,
            "pid": 100 + index if state in ("running", "starting", "stopping") else None,
            "health": "unknown",
            "traffic": "in",
            "since": NOW - 3600,
            "since_monotonic": 0.0,
            "restarts": 0,
            "failures": 0,
            "reason": "ready",
            "detail": "",
            "next_start_in": None,
            "memory_bytes": 1000,
            "cpu_seconds": 0.5,
            "tasks": 1,
            "invocation": "abc",
            "status_text": "",
            "digest": "d",
            "delivery": "",
            "outdated": [],
            "leftovers": [],
            "crash_loop": False,
            **values,
        },
    )


def service(name: str = "web", *instances: InstanceStatus, **values: Any) -> ServiceStatus:
    """A service with these instances, or one that runs."""
    return cast(
        "ServiceStatus",
        {
            "name": name,
            "wanted": "up",
            "health": "pass",
            "critical": False,
            "type": "simple",
            "ready": True,
            "instances": list(instances) or [instance()],
            "restarts_total": {},
            "oom_kills_total": 0,
            "last_exit": None,
            "waiting_for": [],
            **values,
        },
    )


def snapshot(*services: ServiceStatus) -> SnapshotBody:
    """A snapshot of these services."""
    return {
        "pid": 1,
        "version": "0",
        "boot_id": "b",
        "next_seq": 1,
        "budget_tokens": 50.0,
        "output_bytes_total": 10,
        "output_lost_bytes_total": 3,
        "spawns_total": 2,
        "services": list(services),
    }
