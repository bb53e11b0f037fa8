"""The tools that the configuration lends to the engine of application settings."""

from collections.abc import Collection, Sequence
from pathlib import Path

from atlasd.config import files, references, resolving, shape
from atlasd.config.files import Sources
from atlasd.config.inner import part, put_in
from atlasd.config.merge import Merged, Misuse, Rules, merge
from atlasd.config.problems import Findings, Problem, dotted, shadow_in_words, undotted
from atlasd.config.referenced import Known, Referenced
from atlasd.config.resolving import Around
from atlasd.config.units import WrongValueError
from atlasd.contracts.applications import Complaint, FileRead, Filled, Laid
from atlasd.contracts.config import KeyPath, Layer, Position
from atlasd.errors import AtlasError


class Workshop:
    """The tools of the configuration, at the service of the engine: see `Tools`."""

    def __init__(self, sources: Sources, merged: Merged, around: Around) -> None:
        self._sources = sources
        self._merged = merged
        self._around = around
        self.known: dict[Known, None] = {}
        """The values of all secrets that were filled in."""
        self.references: dict[KeyPath, Referenced] = {}
        """All that refers to something else."""

    def read(self, path: Path, dialect: str) -> FileRead:
        """See `Tools`."""
        source = self._sources.of(path)
        if source is None:
            raise AtlasError(
                "config.invalid",
                f"{path}: no plugin reads files of this kind",
                hint=f"known endings: {', '.join(self._sources.endings)} and .env",
                details={"origin": str(path), "line": 0, "column": 0},
            )
        variables = bool(source.dialects)
        layer = files.read(
            path,
            source,
            dialect=dialect if variables else "",
            variables=self._around.environ if variables else None,
        )
        return FileRead(layer=layer, textual=variables or layer.text, variables=variables)

    def lay(
        self,
        layers: Sequence[Layer],
        *,
        any_kind: Collection[KeyPath] = (),
        operators: bool = True,
    ) -> Laid:
        """See `Tools`."""
        free = frozenset(any_kind)
        merged = merge(
            layers,
            Rules(
                kind_of=_kind_of,
                kinds=lambda path: _ALL_KINDS if path in free else frozenset(),
                operators=operators,
                id_key="id" if operators else "",
                stands_for_any=lambda value: (
                    value is None or (isinstance(value, str) and self.refers(value))
                ),
            ),
        )
        conflicts = [
            Complaint(
                where=conflict.higher,
                key=dotted(conflict.path),
                expected=f"{_in_words(conflict.lower_value)}, as in {conflict.lower}",
                got=_in_words(conflict.higher_value),
            )
            for conflict in merged.conflicts
        ]
        return Laid(
            layer=merged.layer,
            shadowed=lambda path: tuple(one.place for one in merged.shadowed(path)),
            shadow=lambda path: _shadow(merged, path),
            complaints=(*conflicts, *(_misused(one) for one in merged.misuses)),
        )

    def fill(self, name: str, layer: Layer) -> Filled:
        """See `Tools`."""
        prefix: KeyPath = ("settings", name, "values")
        inner = put_in(self._merged.layer, prefix, layer)
        findings = Findings(inner)
        resolution = resolving.resolve(inner.data, findings, self._around)
        self.known |= dict.fromkeys(resolution.known_below(prefix))
        self.references |= {
            path: found
            for path, found in resolution.references.items()
            if path[: len(prefix)] == prefix
        }
        depth = len(prefix)
        own = dotted(prefix) + "."
        return Filled(
            data=part(resolution.data, prefix),
            secrets={
                path[depth:]: {one.name: one.value for one in known}
                for path, known in resolution.known.items()
                if path[:depth] == prefix
            },
            references={
                path[depth:]: found.text
                for path, found in resolution.references.items()
                if path[:depth] == prefix
            },
            unknown=frozenset(
                path[depth:] for path in findings.unresolved if path[:depth] == prefix
            ),
            complaints=tuple(
                _complaint(problem, problem.key.removeprefix(own))
                for problem in findings.problems
                if problem.key.startswith(own) and not self._is_told(problem, prefix)
            ),
        )

    def _is_told(self, problem: Problem, prefix: KeyPath) -> bool:
        """Whether it is about a value of the configuration itself, which was looked into before."""
        where = self._merged.layer.where(undotted(problem.key))
        here = Position(origin=problem.file, line=problem.line, column=problem.column)
        return where == here and where != self._merged.layer.where(prefix)

    def refers(self, text: str) -> bool:
        """See `Tools`."""
        try:
            return references.parse(text) is not None
        except WrongValueError:
            return True


_ALL_KINDS = frozenset({"table", "list", "string", "boolean", "number", "date", "null"})


def _shadow(merged: Merged, path: KeyPath) -> str:
    below = merged.shadowed(path)
    # Told as a setting of the configuration is, whose second key is a name that says nothing.
    return shadow_in_words(below[-1], ("settings", "", *path)) if below else ""


def _kind_of(value: object) -> str:
    return "null" if value is None else shape.kind_of(value)


def _in_words(value: object) -> str:
    return "null" if value is None else shape.kind_in_words(value)


_LETTER = "if the last letter of the key is part of its name, set operators = false"
_MISUSES = {
    "no list": ("a list", "something else", ""),
    "no list below": ("a list to add to or to remove from", "none", _LETTER),
    "no such item": ("", "it removes what is not there", ""),
    "nothing below": ("", "there is nothing to remove or to unset", ""),
    "ids": ("a list whose tables each have an id of their own", "some without, or one twice", ""),
}  # fmt: skip


def _misused(one: Misuse) -> Complaint:
    expected, got, hint = _MISUSES[one.complaint]
    return Complaint(
        where=one.where,
        key=dotted(one.path),
        expected=expected,
        got=got,
        hint=hint,
        warning=one.warning,
    )


def _complaint(problem: Problem, key: str) -> Complaint:
    return Complaint(
        where=Position(origin=problem.file, line=problem.line, column=problem.column),
        key=key,
        expected=problem.expected,
        got=problem.got,
        hint=problem.hint,
        warning=problem.warning,
    )
