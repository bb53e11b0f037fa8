"""Environments: which one is in force, which there are, and which one extends which."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atlasd.config.outline import outline
from atlasd.config.problems import Problem
from atlasd.contracts.config import Layer, NameSettings, Position
from atlasd.errors import AtlasError, nearest

BUILT_IN = ("development", "staging", "production")
"""Environments that need no file."""
OTHERWISE = "production"
"""The environment of those who name none: what is meant for development must be asked for."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The environment in force."""

    name: str
    by: str
    """What named it: `--env`, `ATLASD_ENV`, a place in a file, or `default`."""


def files_of(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of the folder of environments, by the environment that each is named for."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.stem, []).append(path)
    return found


def choose(
    layers: Sequence[Layer],
    naming: Mapping[str, NameSettings],
    env: str | None,
    environ: Mapping[str, str],
    prefix: str,
) -> Choice:
    """The environment that `--env`, ATLASD_ENV or the highest of the layers names."""
    if env:
        return Choice(name=env, by="--env")
    if environ.get("ATLASD_ENV"):
        return Choice(name=environ["ATLASD_ENV"], by="ATLASD_ENV")
    for layer in reversed(layers):
        name_settings = naming.get(layer.name)
        said = layer if name_settings is None else name_settings(layer, outline({}), prefix)
        name = _named_in(said)
        if isinstance(name, str):
            return Choice(name=name, by=str(said.where(("host", "environment"))))
    return Choice(name=OTHERWISE, by="default")


def _named_in(layer: Layer) -> object:
    host = layer.data.get("host")
    return host.get("environment") if isinstance(host, dict) else None


def require(choice: Choice, known: Mapping[str, object]) -> None:
    """Refuse an environment that there is not: `AtlasError` `config.environment`."""
    if choice.name in BUILT_IN or choice.name in known:
        return
    names = sorted({*BUILT_IN, *known})
    close = nearest(choice.name, names)
    raise AtlasError(
        "config.environment",
        f"{choice.by}: unknown environment {choice.name!r}; known environments: {', '.join(names)}",
        hint=close if close.startswith("did") else _made(choice.name),
        details={"environment": choice.name, "known": names},
    )


def _made(name: str) -> str:
    """How one has an environment of this name."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        return f"write environments/{name}.toml to have it"
    return "a name has letters, digits, -, _ and ."


class Chain:
    """The files of an environment and of those that it extends."""

    def __init__(
        self,
        choice: Choice,
        known: Mapping[str, list[Path]],
        read: Callable[[Path], Layer | None],
    ) -> None:
        self._choice = choice
        self._known = known
        self._read = read
        self.problems: list[Problem] = []

    def layers(self) -> list[Layer]:
        """Their layers, the one at the end of the chain first; what is wrong is in `problems`."""
        found: list[Layer] = []
        names: list[str] = []
        name: str | None = self._choice.name
        while name is not None:
            names.append(name)
            layer = self._layer(name)
            if layer is None:
                break
            base = self._base(layer, names)
            found.append(_without_extends(layer))
            name = base
        return found[::-1]

    def _layer(self, name: str) -> Layer | None:
        paths = self._known.get(name, [])
        if len(paths) > 1:
            self.problems.append(
                Problem(
                    file=str(paths[1]),
                    expected=f"one file for the environment {name}",
                    got=f"{paths[0].name} beside it",
                )
            )
        layer = self._read(paths[0]) if paths else None
        if layer is None:
            return None
        said = _named_in(layer)
        if said is not None and said != self._choice.name:
            mine = name == self._choice.name
            self._wrong(
                layer.where(("host", "environment")),
                "host.environment",
                f'"{name}", as the file is named, or nothing' if mine else "nothing",
                repr(said) if isinstance(said, str) else "something else",
            )
        return replace(layer, name=f"environment {name}")

    def _base(self, layer: Layer, names: Sequence[str]) -> str | None:
        """The environment that the last of `names` extends, if it does."""
        base = layer.data.get("extends")
        if base is None:
            return None
        where = layer.where(("extends",))
        if not isinstance(base, str):
            self._wrong(where, "extends", "the name of an environment", "something else")
        elif base in names:
            around = " → ".join([*names[names.index(base) :], base])
            expected = "environments that do not extend each other"
            self._wrong(where, "extends", expected, around, "remove one of these")
        elif base not in self._known and base not in BUILT_IN:
            names = sorted({*BUILT_IN, *self._known})
            hint = nearest(base, names)
            self._wrong(where, "extends", "the name of an environment", repr(base), hint)
        else:
            return base
        return None

    def _wrong(self, where: Position, key: str, expected: str, got: str, hint: str = "") -> None:
        self.problems.append(
            Problem(
                file=where.origin,
                line=where.line,
                column=where.column,
                key=key,
                expected=expected,
                got=got,
                hint=hint,
            )
        )


def _without_extends(layer: Layer) -> Layer:
    """The layer's settings: whom an environment extends is none of them."""
    return replace(layer, data={k: v for k, v in layer.data.items() if k != "extends"})
