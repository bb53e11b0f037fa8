"""What differs between two generations of a configuration, key by key; pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from atlasd.config.effects import beyond_keys, effect
from atlasd.config.problems import dotted
from atlasd.config.shown import HIDDEN, is_reference, leaves, safe
from atlasd.contracts.config import KeyPath, Position
from atlasd.contracts.review import Change
from atlasd.services.spec import ServiceSpec

MISSING = object()


class Side(Protocol):
    """One of the two, as far as it is compared."""

    @property
    def data(self) -> Mapping[str, Any]:
        """What the layers say, references as they stand."""

    def origin(self, key: str | KeyPath) -> Position:
        """Where a setting stands."""

    def specs(self) -> tuple[ServiceSpec, ...]:
        """The services that it makes."""


def changes(old: Side, new: Side) -> tuple[Change, ...]:
    """Every setting that differs, with what the change takes; in the order of keys.

    Values are `safe` to be shown. A service that changes although no key of it does (an
    environment file, a secret) is a change of `services.NAME` as a whole.
    """
    before = {spec.name: spec for spec in old.specs()}
    after = {spec.name: spec for spec in new.specs()}
    users = settings_users(old.data, new.data)
    found = []
    for path, was, is_now in differing(old.data, new.data):
        where = old.origin(path) if is_now is MISSING else new.origin(path)
        shown_old, shown_new = both(was, is_now, path)
        found.append(
            Change(
                key=dotted(path),
                kind="removed" if is_now is MISSING else "added" if was is MISSING else "changed",
                old=shown_old,
                new=shown_new,
                effect=effect(path, before, after, users=users),
                where=str(where),
            )
        )
    for name in sorted(before.keys() & after.keys()):
        what = beyond_keys(name, before, after)
        if what is not None and not any(change.effect == what for change in found):
            found.append(
                Change(
                    key=dotted(("services", name)),
                    kind="changed",
                    effect=what,
                    where=str(new.origin(("services", name))),
                )
            )
    return tuple(found)


def both(was: Any, is_now: Any, path: KeyPath) -> tuple[Any, Any]:
    """The two values of a setting as they may be shown; None on the side without it.

    What takes the place of a plain text, or is replaced by one, may be a reference or a sealed
    value: then somebody holds that text for a secret, whatever its name says.
    """
    shown = [None if value is MISSING else safe(value, path) for value in (was, is_now)]
    refers = [isinstance(value, str) and is_reference(value) for value in (was, is_now)]
    if refers[0] != refers[1]:
        shown = [
            value if referring or value is None else HIDDEN
            for value, referring in zip(shown, refers, strict=True)
        ]
    return shown[0], shown[1]


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any, Any]]:
    """The path of each setting that differs, with both values; `MISSING` on the side without it."""
    before, after = dict(leaves(old)), dict(leaves(new))
    before.pop((), None)
    after.pop((), None)
    for path in sorted(before.keys() | after.keys(), key=str):
        was, is_now = before.get(path, MISSING), after.get(path, MISSING)
        # 1 and 1.0 and true are equal to Python, and not to whoever wrote them.
        if type(was) is not type(is_now) or was != is_now:
            yield path, was, is_now


def settings_users(*sides: Mapping[str, Any]) -> dict[str, set[str]]:
    """By each set of application settings, the services that are given it on either side."""
    users: dict[str, set[str]] = {}
    for data in sides:
        services = data.get("services")
        for name, service in services.items() if isinstance(services, Mapping) else ():
            given = service.get("settings", ()) if isinstance(service, Mapping) else ()
            for one in [given] if isinstance(given, str) else given:
                users.setdefault(str(one), set()).add(name)
    return users


def summary(changes: Sequence[Change]) -> str:
    """A few words for a list of generations: `services.web.env.PORT, log.level and 3 more`."""
    keys = [change.key for change in changes]
    if not keys:
        return "nothing differs"
    shown = ", ".join(keys[:3])
    return f"{shown} and {len(keys) - 3} more" if len(keys) > 3 else shown
