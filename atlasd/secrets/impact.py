"""Which parts of a host a secret reaches: pure, from where the configuration refers to it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from atlasd.contracts.config import KeyPath
from atlasd.contracts.secrets import Reference


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """A service, as far as its secrets are concerned."""

    name: str
    settings: tuple[str, ...] = ()
    """Sets of application settings that it is given."""
    on_change: str = "restart"
    """What is done when only deliveries have changed."""
    running: int = 1
    """Instances."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """Something that a change of the secret touches."""

    kind: str
    """service, check, plugin, backend or setting"""
    name: str
    keys: tuple[KeyPath, ...]
    """Where it refers to the secret."""
    effect: str = ""
    """What is done with it."""


def reached(
    backend: str,
    name: str,
    *,
    default_backend: str,
    uses: Mapping[KeyPath, Iterable[Reference]],
    consumers: Sequence[Consumer],
) -> tuple[Reached, ...]:
    """Everything that refers to the secret, services first, each once.

    `uses` has the secrets of which each setting is made.
    """
    keys = [
        path
        for path, references in uses.items()
        if any((one.backend or default_backend, one.name) == (backend, name) for one in references)
    ]
    found: list[Reached] = []
    for consumer in consumers:
        own = [path for path in keys if path[:2] == ("services", consumer.name)]
        given = [path for path in keys if path[0] == "settings" and path[1] in consumer.settings]
        if own or given:
            found.append(
                Reached(
                    kind="service",
                    name=consumer.name,
                    keys=tuple(own + given),
                    effect=_effect(consumer, own),
                )
            )
    told = {path for one in found for path in one.keys}
    rest: dict[tuple[str, str], list[KeyPath]] = {}
    for path in keys:
        if path not in told:
            rest.setdefault(_owner(path), []).append(path)
    found += [
        Reached(kind=kind, name=owner, keys=tuple(paths), effect=_EFFECTS.get(kind, ""))
        for (kind, owner), paths in sorted(rest.items())
    ]
    return tuple(found)


_KINDS = {"checks": "check", "plugins": "plugin", "settings": "setting"}
_EFFECTS = {
    "check": "opened again with the new value",
    "plugin": "opened again with the new value",
    "backend": "opened again with the new value",
}


def _owner(path: KeyPath) -> tuple[str, str]:
    if path[:2] == ("secrets", "backends") and len(path) > 2:
        return "backend", str(path[2])
    if path[0] in _KINDS and len(path) > 1:
        return _KINDS[str(path[0])], str(path[1])
    return "setting", ".".join(map(str, path))


def _effect(consumer: Consumer, own: Sequence[KeyPath]) -> str:
    """What becomes of the service: outside of what it is handed, only a restart brings it."""
    if any(path[2:3] != ("secrets",) for path in own):
        return "restart, by `atlasctl apply`"
    return {
        "restart": "restarted, one instance after the other",
        "reload": "told to reload, one instance after the other",
        "signal": "sent its signal, one instance after the other",
        "swap": "its files are exchanged; nobody is told",
        "none": "nothing; the next start has it",
    }.get(consumer.on_change, consumer.on_change)
