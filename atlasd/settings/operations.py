"""What core does when it is asked about settings of applications: one method an operation."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from atlasd.contracts.config import KeyPath
from atlasd.errors import AtlasError, nearest
from atlasd.settings.applied import Applied
from atlasd.settings.handed import Handed
from atlasd.settings.names import variable
from atlasd.settings.sets import Ready
from atlasd.settings.tree import (
    AbsentError,
    at,
    dotted,
    kind_in_words,
    leaves,
    nodes,
    plain,
    undotted,
)

Body = dict[str, Any]
DEFAULT = "default of the model"

Audit = Callable[[str, Sequence[str], str], Awaitable[None]]
"""Enters in the audit log that secrets were shown: of which service, which ones, to whom."""


class SettingsOperations:
    """Operations on settings of applications, as plain values.

    See `atlasd.core.operations.ServiceOperations` for the manner.
    """

    def __init__(
        self,
        *,
        current: Callable[[], Applied],
        of_environment: Callable[[str], Awaitable[Applied]],
        audit: Audit | None = None,
    ) -> None:
        """`of_environment` looks into another environment, without secrets and commands.

        Without `audit`, what was shown stands in the journal of operations only.
        """
        self._current = current
        self._of_environment = of_environment
        self._audit = audit

    async def show(self, *, name: str, actor: str) -> Body:
        """`settings.show`."""
        del actor
        applied = self._current()
        ready = _set(applied, name)
        users = sorted(s for s, handed in applied.handed.items() if name in handed.sets)
        return {
            "name": name,
            "environment": ready.declared.environment,
            "files": [file.path for file in ready.declared.files],
            "services": users,
            "settings": [_setting(ready, path, value) for path, value in leaves(ready.shown)],
        }

    async def list(self, *, actor: str) -> Body:
        """`settings.list`."""
        del actor
        applied = self._current()
        return {
            "sets": [
                {
                    "name": name,
                    "settings": sum(1 for _ in leaves(ready.shown)),
                    "secrets": len(ready.secrets),
                    "validated_by": ready.declared.schema,
                    "services": sorted(
                        s for s, handed in applied.handed.items() if name in handed.sets
                    ),
                }
                for name, ready in sorted(applied.sets.items())
            ]
        }

    async def explain(self, *, name: str, key: str, actor: str) -> Body:
        """`settings.explain`."""
        del actor
        ready = _set(self._current(), name)
        path = _path(ready, name, key)
        value = at(ready.shown, path)
        schema = ready.schema
        return {
            **_setting(ready, path, value),
            "set": name,
            "kind": kind_in_words(value),
            "expected": schema.describe(path) if schema is not None else "",
            "shadows": [str(place) for place in reversed(ready.shadowed(path))],
            "variables": _variables(ready, path),
        }

    async def diff(self, *, name: str, left: str, right: str, actor: str) -> Body:
        """`settings.diff`."""
        del actor
        first = _set(await self._of_environment(left), name)
        second = _set(await self._of_environment(right), name)
        old, new = dict(leaves(first.shown)), dict(leaves(second.shown))
        rows = []
        for path in dict.fromkeys((*old, *new)):
            if path in old and path in new and _same(first, second, path):
                continue
            rows.append(
                {
                    "key": dotted(path),
                    "left": plain(old[path]) if path in old else None,
                    "right": plain(new[path]) if path in new else None,
                    "left_where": _where(first, path) if path in old else "",
                    "right_where": _where(second, path) if path in new else "",
                }
            )
        return {"name": name, "left": left, "right": right, "changes": rows}

    async def render(self, *, service: str, file: str | None, actor: str) -> Body:
        """`settings.render`."""
        del actor
        return _rendered(_handed(self._current(), service), file, reveal=False)

    async def reveal(self, *, service: str, file: str | None, actor: str) -> Body:
        """`settings.reveal`: entered in the audit log first, and refused if that cannot be."""
        handed = _handed(self._current(), service)
        body = _rendered(handed, file, reveal=True)
        if self._audit is not None:
            await self._audit(service, sorted({one.name for one in handed.secrets}), actor)
        return body


def _set(applied: Applied, name: str) -> Ready:
    ready = applied.sets.get(name)
    if ready is None:
        raise AtlasError(
            "settings.unknown",
            f"no set of settings is called {name!r}",
            hint=nearest(name, tuple(applied.sets)) or "none is declared: [settings.NAME]",
        )
    return ready


def _handed(applied: Applied, service: str) -> Handed:
    handed = applied.handed.get(service)
    if handed is None:
        raise AtlasError(
            "settings.unknown",
            f"no service {service!r} is given settings",
            hint=nearest(service, tuple(applied.handed)) or 'say so with settings = ["NAME"]',
        )
    return handed


def _path(ready: Ready, name: str, key: str) -> KeyPath:
    """The setting of a dotted key, or of a variable that tells it."""
    path = undotted(key)
    try:
        at(ready.shown, path)
    except AbsentError:
        named = (p for p, _ in leaves(ready.shown) if key in _variables(ready, p))
        found = next(named, None)
        if found is None:
            raise _unknown_key(ready, name, key) from None
        return found
    return path


def _unknown_key(ready: Ready, name: str, key: str) -> AtlasError:
    known = [dotted(path) for path, _ in nodes(ready.shown)]
    return AtlasError(
        "settings.unknown", f"settings.{name} has no {key!r}", hint=nearest(key, known)
    )


def _setting(ready: Ready, path: KeyPath, value: object) -> Body:
    return {
        "key": dotted(path),
        "value": plain(value),
        "reference": ready.references.get(path, ""),
        "secret": bool(ready.secrets_at(path)),
        "where": _where(ready, path),
        "default": path in ready.defaults,
    }


def _same(first: Ready, second: Ready, path: KeyPath) -> bool:
    """Whether both mean the same; of what is not shown, too."""
    return all(at(a, path) == at(b, path) for a, b in _pairs(first, second))


def _pairs(first: Ready, second: Ready) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    return (first.shown, second.shown), (first.data, second.data)


def _where(ready: Ready, path: KeyPath) -> str:
    return DEFAULT if path in ready.defaults else str(ready.layer.where(path))


def _variables(ready: Ready, path: KeyPath) -> list[str]:
    declared = ready.declared
    names = [variable(declared.env_prefix, path)] if all(isinstance(k, str) for k in path) else []
    names += [name for name, key in declared.variables.items() if undotted(key) == path]
    names += [name for name, old in ready.old_names.items() if old.path == path]
    return list(dict.fromkeys(names))


def _rendered(handed: Handed, wanted: str | None, *, reveal: bool) -> Body:
    files = [file for file in handed.files if wanted in (None, file.declared.path)]
    if wanted is not None and not files:
        known = tuple(file.declared.path for file in handed.files)
        raise AtlasError(
            "settings.unknown",
            f"service {handed.service!r} has no file {wanted!r}",
            hint=nearest(wanted, known) or "it is given its settings as environment variables",
        )
    variables: Mapping[str, str] = handed.variables
    if reveal:
        variables = handed.values()
    return {
        "service": handed.service,
        "variables": dict(variables),
        "files": [
            {
                "path": file.declared.path,
                "variable": f"{file.declared.variable}_FILE",
                "format": file.declared.format,
                "content": file.content if reveal else file.masked,
                "secret": file.secret,
            }
            for file in files
        ],
    }
