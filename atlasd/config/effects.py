"""What it takes until a changed setting has its effect: pure, from the schema and the services."""

from collections.abc import Collection, Mapping

from atlasd.contracts.config import KeyPath
from atlasd.services.spec import RESTART_FIELDS, ServiceSpec

LIVE = "live"
"""Taken over by a reload, without anything being started anew."""

SECTIONS: Mapping[str, str] = {
    "host": LIVE,
    "api": "restart api",
    "log": LIVE,
    "secrets": LIVE,
    "settings": LIVE,
    "jobs": LIVE,
    "services": LIVE,
    "checks": LIVE,
    "plugins": LIVE,
}
"""The effect of each section, where nothing below says more; a section without one is read only
at the start of core."""

DELIVERED = frozenset({"settings", "settings_file", "secrets"})
"""Settings of a service that become files, descriptors or variables which it is handed."""

_SPEC_FIELD: Mapping[str, str] = {"env_file": "env", "inherit_env": "env", "worker": "command"}
"""The field of a specification that a setting becomes, where the two have different names."""
_ADJUSTED = frozenset({"memory", "cpu", "tasks"})
"""Limits that are the cgroup's; the others are set when a process begins."""
_TOLD = {"ready": ("notify", "fd"), "reload": ("notify",)}
"""Kinds of readiness and reload that a process is told of when it begins."""


def restarts(field: str, below: KeyPath) -> bool:
    """Whether a service's setting is one that only a new process can have, by its name alone."""
    if _SPEC_FIELD.get(field, field) in RESTART_FIELDS:
        return True
    kind = str(below[0]) if below else ""
    if field == "limits":
        return kind not in _ADJUSTED
    return field in _TOLD and (not below or kind in _TOLD[field])


def effect(
    path: KeyPath,
    old: Mapping[str, ServiceSpec],
    new: Mapping[str, ServiceSpec],
    *,
    users: Mapping[str, Collection[str]] | None = None,
) -> str:
    """What a change of the setting at `path` takes: `live`, `restart service web` and so on.

    `old` and `new` are the services before and after it, `users` the services that are given each
    set of application settings. With `old` and `new` the same it is what a change would take.
    """
    if not path:
        return LIVE
    section = str(path[0])
    if section == "services" and len(path) > 1:
        return _of_service(str(path[1]), path[2:], old, new)
    if section == "settings" and len(path) > 1:
        given = sorted((users or {}).get(str(path[1]), ()))
        return "; ".join(f"deliver service {name}" for name in given) or LIVE
    if tuple(path[:2]) in (("jobs", "store"), ("jobs", "stores")):
        return "restart core"
    return SECTIONS.get(section, "restart core")


def _of_service(
    name: str, below: KeyPath, old: Mapping[str, ServiceSpec], new: Mapping[str, ServiceSpec]
) -> str:
    before, after = old.get(name), new.get(name)
    if before is None or after is None:
        present = after or before
        if present is None or not present.enabled:
            return LIVE
        return f"{'start' if before is None else 'stop'} service {name}"
    field = str(below[0]) if below else ""
    if field == "enabled":
        return f"{'start' if after.enabled else 'stop'} service {name}"
    if field == "instances":
        return f"scale service {name}"
    if field in DELIVERED:
        return f"deliver service {name}"
    if not restarts(field, below[1:]):
        return LIVE
    if before is after or before.digest() != after.digest():
        return f"restart service {name}"
    # What comes to the same (an environment file that was moved) needs no new process; a variable
    # that is a secret is handed over like the others.
    return f"deliver service {name}" if before.deliveries != after.deliveries else LIVE


def beyond_keys(
    name: str, old: Mapping[str, ServiceSpec], new: Mapping[str, ServiceSpec]
) -> str | None:
    """The effect on a service of what no key says: its environment files, its secrets.

    None when there is none.
    """
    before, after = old.get(name), new.get(name)
    if before is None or after is None:
        return None
    if before.digest() != after.digest():
        return f"restart service {name}"
    if before.deliveries != after.deliveries:
        return f"deliver service {name}"
    return None
