"""Names of environment variables: made from settings' paths, and led back to them."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from atlasd.contracts.config import KeyPath
from atlasd.settings.tree import dotted, undotted

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NESTED = "__"
"""What parts the tables from each other in a variable's name that says so itself: DB__HOST."""


def variable(prefix: str, path: KeyPath) -> str:
    """The variable that a setting is told in: `SHOP_DB_HOST` for `db.host` and the prefix."""
    return prefix + "_".join(_spelled(str(key)) for key in path)


def _spelled(key: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", key.upper())


class AmbiguousError(Exception):
    """A variable's name fits several settings."""

    def __init__(self, paths: Iterable[KeyPath]) -> None:
        self.keys = sorted(dotted(path) for path in paths)
        super().__init__(", ".join(self.keys))


@dataclass(frozen=True, kw_only=True)
class Known:
    """The settings that variables of a `.env` file can mean, by the names made from them."""

    prefix: str
    variables: Mapping[str, str]
    """Names that the configuration itself has declared, with their dotted keys."""
    by_name: Mapping[str, tuple[KeyPath, ...]]
    below: Mapping[KeyPath, Mapping[str, tuple[KeyPath, ...]]]
    """For each table its settings, by the names made from their keys alone."""

    @classmethod
    def of(cls, prefix: str, variables: Mapping[str, str], paths: Collection[KeyPath]) -> "Known":
        """From the paths of all settings and tables, of lower layers and of the schema."""
        by_name: dict[str, list[KeyPath]] = defaultdict(list)
        below: dict[KeyPath, dict[str, list[KeyPath]]] = defaultdict(lambda: defaultdict(list))
        for path in paths:
            if all(isinstance(key, str) for key in path):
                by_name[variable("", path)].append(path)
                below[path[:-1]][_spelled(str(path[-1]))].append(path)
        return cls(
            prefix=prefix,
            variables=variables,
            by_name={name: tuple(found) for name, found in by_name.items()},
            below={
                table: {name: tuple(found) for name, found in inner.items()}
                for table, inner in below.items()
            },
        )

    def path(self, name: str) -> KeyPath:
        """The setting that the variable `name` means; a top-level one if nothing is known of it.

        1. A declared name means what was declared.
        2. With the prefix, and then without: the setting whose variable is called so.
        3. With `__` in it, each part is a key: `DB__HOST` is `db.host`.
        4. With the prefix: the key is the rest in small letters; else the name as it stands.

        Raises `AmbiguousError` if it could be several settings.
        """
        declared = self.variables.get(name)
        if declared is not None:
            return undotted(declared)
        prefixed = bool(self.prefix) and name.startswith(self.prefix) and name != self.prefix
        rest = name.removeprefix(self.prefix) if prefixed else name
        for spelled in dict.fromkeys((rest, name)):
            found = self.by_name.get(spelled, ())
            if len(found) > 1:
                raise AmbiguousError(found)
            if found:
                return found[0]
        parts = rest.split(NESTED)
        if len(parts) > 1 and all(parts):
            return self._nested(parts)
        return (rest.lower(),) if prefixed else (name,)

    def _nested(self, parts: list[str]) -> KeyPath:
        path: tuple[str, ...] = ()
        for part in parts:
            found = self.below.get(path, {}).get(_spelled(part), ())
            if len(found) > 1:
                raise AmbiguousError(found)
            path = (*path, str(found[0][-1]) if found else part.lower())
        return path
