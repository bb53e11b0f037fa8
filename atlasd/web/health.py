"""From what core says, or from its silence, to the health that HTTP answers with."""

import ipaddress
from collections.abc import Mapping
from typing import Any

MEDIA = "application/health+json"

READINESS = ("atlasd:services-link", "atlasd:adopted", "atlasd:store", "atlasd:stopping")
"""Entries of core's body that all have to pass before the host is ready."""

_LOCAL_HOSTS = frozenset({"localhost", "ip6-localhost"})
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


def status_of(body: Mapping[str, Any]) -> int:
    """The HTTP status of a body: 200 for pass and warn, 503 for fail."""
    return 503 if body.get("status") == "fail" else 200


def core_gone(why: str, *, version: str) -> dict[str, Any]:
    """The body while core does not answer: fail, and what to do about it."""
    return {
        "status": "fail",
        "version": version,
        "description": "host",
        "output": f"core does not answer: {why}",
        "notes": [
            "services run on without core; nothing about them can be said here until it is back",
            "start it: systemctl start atlas-core, or atlasd run",
        ],
        "checks": {
            "core:reachable": [{"componentType": "system", "status": "fail", "output": why}]
        },
    }


def live(*, version: str) -> dict[str, Any]:
    """The body of `/health/live`: this loop turns, and nothing else is looked at."""
    return {"status": "pass", "version": version, "description": "the api role answers"}


def ready(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of `/health/ready` out of core's: services adopted, store writable, not stopping."""
    checks: Mapping[str, Any] = body.get("checks") or {}
    found = {key: checks[key] for key in checks if key in READINESS or key == "core:reachable"}
    not_ready = [
        f"{key}: {item.get('output') or item.get('status')}"
        for key, items in found.items()
        for item in items
        if item.get("status") != "pass"
    ]
    missing = [key for key in READINESS if key not in found]
    if body.get("status") == "fail" and "core:reachable" in found:
        not_ready = [str(body.get("output"))]
    elif missing:
        not_ready.append(f"core does not say: {', '.join(missing)}")
    answer: dict[str, Any] = {
        "status": "fail" if not_ready else "pass",
        "version": body.get("version"),
        "description": "readiness",
        "checks": found,
    }
    if not_ready:
        answer["output"] = "; ".join(not_ready)
    return answer


def undetailed(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body for a caller who may not know more than the verdict."""
    return {"status": body.get("status", "fail")}


def is_local(peer: str | None, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from a program on this host, and not through a proxy or a page.

    A proxy on this host would make everybody local, and so would a page whose name was made to
    point here: both give themselves away in the headers.
    """
    if peer is None or "Origin" in headers or any(name in headers for name in _FORWARDED):
        return False
    return is_loopback(peer) and _is_local_host(headers.get("Host", ""))


def is_loopback(address: str) -> bool:
    """Whether an address is the host's own loopback."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def _is_local_host(host: str) -> bool:
    if not host:
        return True
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() in _LOCAL_HOSTS or is_loopback(name)
