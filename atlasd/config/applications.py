"""Settings of applications, as far as they are configuration: what is declared, and the tools."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from atlasd.config import files, references, resolving, shape
from atlasd.config.fields import ENV_NAME
from atlasd.config.files import Sources
from atlasd.config.merge import Merged, Rules, merge
from atlasd.config.problems import Findings, Problem, dotted, undotted
from atlasd.config.referenced import Known, Referenced
from atlasd.config.resolving import Around
from atlasd.config.rules import SET_BY_ATLASD
from atlasd.config.schema import Settings, SettingsSet
from atlasd.config.service import Service, SettingsFile
from atlasd.config.units import WrongValueError
from atlasd.contracts.applications import (
    MODEL,
    Complaint,
    DeclaredFile,
    DeclaredSet,
    DeclaredUse,
    FileRead,
    Filled,
    Laid,
    SourceFile,
    Tools,
)
from atlasd.contracts.config import ConfigSource, KeyPath, Layer, Position
from atlasd.errors import AtlasError, nearest
from atlasd.services.spec import Delivery, KnownSecret

FolderOf = Callable[[KeyPath], str]


class HandedOver(Protocol):
    """What one service is handed of its settings."""

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """Its variables, or its files."""

    @property
    def secrets(self) -> tuple[KnownSecret, ...]:
        """The secrets in them."""


class Result(Protocol):
    """What became of all settings of applications."""

    @property
    def complaints(self) -> tuple[Complaint, ...]:
        """What is wrong."""

    @property
    def handed(self) -> Mapping[str, HandedOver]:
        """By the name of the service."""

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that was read."""

    @property
    def awaited(self) -> tuple[str, ...]:
        """Files that need not exist, and don't."""


class Applications(Protocol):
    """The engine that gives settings of applications their meaning."""

    def __call__(
        self, declared: Sequence[DeclaredSet], uses: Iterable[DeclaredUse], tools: Tools, /
    ) -> Result:
        """Read, validate and render everything; a user's mistakes are complaints."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a configuration has from the settings of applications."""

    result: Result | None = None
    """None where nobody has looked into them."""
    known: tuple[Known, ...] = field(default=(), repr=False)
    """The values of secrets in them."""
    references: Mapping[KeyPath, Referenced] = field(default_factory=dict)
    """What in them refers to something else, as if it stood in `settings.NAME.values`."""

    @property
    def files(self) -> tuple[str, ...]:
        """See `Result`."""
        return self.result.files if self.result is not None else ()

    @property
    def awaited(self) -> tuple[str, ...]:
        """See `Result`."""
        return self.result.awaited if self.result is not None else ()

    def deliveries(self, service: str) -> tuple[Delivery, ...]:
        """What a service is handed; nothing when it wants no settings."""
        handed = self.result.handed.get(service) if self.result is not None else None
        return handed.deliveries if handed is not None else ()

    def secrets(self, service: str) -> list[KnownSecret]:
        """The secrets in that."""
        handed = self.result.handed.get(service) if self.result is not None else None
        return list(handed.secrets) if handed is not None else []


def is_model(schema: str) -> bool:
    """Whether a `schema` is a pydantic model, as `module:Class`, and no path."""
    return MODEL.fullmatch(schema) is not None


def examine(settings: Settings, declared: Collection[str], findings: Findings) -> None:
    """Note what is wrong with the declarations. `declared` are the names of all sets."""
    for name, one in settings.settings.items():
        path: KeyPath = ("settings", name)
        if one.env_prefix and not ENV_NAME.fullmatch(one.env_prefix):
            findings.add(
                (*path, "env_prefix"),
                expected="letters, digits and _, no digit first",
                hint='as in "SHOP_"',
            )
        for variable in one.variables:
            if not ENV_NAME.fullmatch(variable):
                findings.add(
                    (*path, "variables", variable),
                    expected="a variable's name of letters, digits and _, no digit first",
                    got=repr(variable),
                    at_key=True,
                )
        if one.python is not None and not is_model(one.schema or ""):
            findings.add(
                (*path, "python"), got="means nothing without a pydantic model", at_key=True
            )
    for name, service in settings.services.items():
        path = ("services", name)
        for index, wanted in enumerate(service.settings):
            if wanted not in declared:
                findings.add(
                    (*path, "settings", index),
                    expected="the name of a set of settings, as in [settings.NAME]",
                    hint=nearest(wanted, tuple(declared)),
                )
        if service.settings_file and not service.settings:
            findings.add(
                (*path, "settings_file"),
                got="means nothing without `settings`",
                hint='say of which sets it is made: settings = ["NAME"]',
                at_key=True,
            )
        for index, file in enumerate(service.settings_file):
            _file(file, (*path, "settings_file", index), service, findings)


def _file(file: SettingsFile, path: KeyPath, service: Service, findings: Findings) -> None:
    # The short form, one table and no list, has no index on the way.
    if len(service.settings_file) == 1 and isinstance(_at(findings.layer.data, path[:-1]), dict):
        path = path[:-1]
    if file.format == "template" and file.template is None:
        findings.add(path, expected="the path of a template", got="nothing: template is not set")
    if file.format != "template" and file.template is not None:
        hint = 'set format = "template"'
        findings.add(
            (*path, "template"), got=f"means nothing for {file.format}", hint=hint, at_key=True
        )
    if file.format != "env" and "dialect" in file.model_fields_set:
        findings.add((*path, "dialect"), got=f"means nothing for {file.format}", at_key=True)


def _at(data: Any, path: KeyPath) -> Any:
    for key in path:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def apply(
    engine: Applications,
    settings: Settings,
    merged: Merged,
    sources: Sequence[ConfigSource],
    findings: Findings,
    around: Around,
    *,
    variables_of: Callable[[str], Collection[str]],
) -> Given:
    """Have the engine do what the configuration declares; what is wrong goes into `findings`.

    `variables_of` gives the variables that a service has by its own settings.
    """
    tools = Workshop(Sources(sources), merged, around)
    result = engine(
        [
            _declared(name, one, merged, around)
            for name, one in settings.settings.items()
            if not _is_wrong(name, findings)
        ],
        list(_uses(settings, merged, around.folder_of, variables_of)),
        tools,
    )
    for complaint in result.complaints:
        findings.problems.append(_problem(complaint))
    return Given(result=result, known=tuple(tools.known), references=tools.references)


def _is_wrong(name: str, findings: Findings) -> bool:
    """Whether the declaration of a set has a mistake, from which others would only follow."""
    table, values = f"settings.{name}.", f"settings.{name}.values"
    return any(
        problem.key.startswith(table) and not problem.key.startswith(values)
        for problem in findings.problems
        if not problem.warning
    )


def _problem(complaint: Complaint) -> Problem:
    where = complaint.where
    return Problem(
        file=where.origin,
        line=where.line,
        column=where.column,
        key=complaint.key,
        expected=complaint.expected,
        got=complaint.got,
        hint=complaint.hint,
        warning=complaint.warning,
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


def _join(folder: str, path: str) -> str:
    return os.path.join(folder, path)  # noqa: PTH118  a Path would drop a final `/.`


def _declared(name: str, one: SettingsSet, merged: Merged, around: Around) -> DeclaredSet:
    path: KeyPath = ("settings", name)
    folder_of = around.folder_of
    schema = one.schema or ""
    if schema and not is_model(schema):
        schema = _join(folder_of((*path, "schema")), schema)
    said = (key for key in SettingsSet.model_fields if key in one.model_fields_set)
    return DeclaredSet(
        name=name,
        environment=around.environment,
        folder=folder_of((*path, "schema") if schema else path),
        files=tuple(
            _source(file, (*path, "files", index), merged, around)
            for index, file in enumerate(one.files)
        ),
        dialect=one.dialect,
        values=within(merged.layer, (*path, "values")),
        operators=one.operators,
        schema=schema,
        python=_join(folder_of((*path, "python")), one.python) if one.python else "",
        env_prefix=one.env_prefix,
        variables=one.variables,
        check=one.check or (),
        places={"": merged.layer.where(path)}
        | {key: merged.layer.where((*path, key)) for key in said},
    )


def _source(file: str, path: KeyPath, merged: Merged, around: Around) -> SourceFile:
    name = file.removeprefix("-").replace("{environment}", around.environment)
    return SourceFile(
        path=_join(around.folder_of(path), name),
        optional=file.startswith("-"),
        where=merged.layer.where(path),
    )


def _uses(
    settings: Settings,
    merged: Merged,
    folder_of: FolderOf,
    variables_of: Callable[[str], Collection[str]],
) -> Iterator[DeclaredUse]:
    for name, service in settings.services.items():
        if not service.settings:
            continue
        path: KeyPath = ("services", name)
        yield DeclaredUse(
            service=name,
            sets=service.settings,
            files=tuple(
                _declared_file(file, (*path, "settings_file", index), merged, folder_of)
                for index, file in enumerate(service.settings_file)
                if file.format != "template" or file.template  # which has been told of
            ),
            env=frozenset(variables_of(name)),
            reserved=SET_BY_ATLASD | set(service.secrets),
            where=merged.layer.where((*path, "settings")),
        )


def _declared_file(
    file: SettingsFile, path: KeyPath, merged: Merged, folder_of: FolderOf
) -> DeclaredFile:
    template = file.template or ""
    return DeclaredFile(
        path=file.path,
        format=file.format,
        variable=file.name,
        template=_join(folder_of((*path, "template")), template) if template else "",
        dialect=file.dialect,
        check=file.check or (),
        where=merged.layer.where(path),
        key=dotted(path),
    )


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
            data=_at(resolution.data, prefix),
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


def _misused(one: Any) -> Complaint:
    expected, got, hint = _MISUSES[one.complaint]
    return Complaint(
        where=one.where,
        key=dotted(one.path),
        expected=expected,
        got=got,
        hint=hint,
        warning=one.warning,
    )


class _Under(Mapping[KeyPath, Position]):
    """Positions of a tree that has been put into another one."""

    def __init__(
        self,
        outer: Mapping[KeyPath, Position],
        prefix: KeyPath,
        inner: Mapping[KeyPath, Position],
    ) -> None:
        self._outer = outer
        self._prefix = prefix
        self._inner = inner

    def __getitem__(self, path: KeyPath) -> Position:
        depth = len(self._prefix)
        if path[:depth] == self._prefix and len(path) > depth:
            return self._inner[path[depth:]]
        return self._outer[path]

    def __iter__(self) -> Iterator[KeyPath]:
        depth = len(self._prefix)
        yield from (path for path in self._outer if path[:depth] != self._prefix)
        yield from ((*self._prefix, *path) for path in self._inner)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Below(Mapping[KeyPath, Position]):
    """Positions of what lies below a path, as if it were all."""

    def __init__(self, outer: Mapping[KeyPath, Position], prefix: KeyPath) -> None:
        self._outer = outer
        self._prefix = prefix

    def __getitem__(self, path: KeyPath) -> Position:
        return self._outer[*self._prefix, *path]

    def __iter__(self) -> Iterator[KeyPath]:
        depth = len(self._prefix)
        return (path[depth:] for path in self._outer if path[:depth] == self._prefix)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def within(layer: Layer, prefix: KeyPath) -> Layer:
    """What lies below a path, as a layer of its own."""
    data = _at(layer.data, prefix)
    return Layer(
        origin=layer.where(prefix).origin,
        data=data if isinstance(data, dict) else {},
        values=_Below(layer.values, prefix),
        keys=_Below(layer.keys, prefix),
    )


def put_in(outer: Layer, prefix: KeyPath, inner: Layer) -> Layer:
    """The outer layer, with the inner one in place of what stands at the path."""
    return replace(
        outer,
        data=_with(outer.data, prefix, inner.data),
        values=_Under(outer.values, prefix, inner.values),
        keys=_Under(outer.keys, prefix, inner.keys),
    )


def _with(data: Any, path: KeyPath, value: Any) -> Any:
    if not path:
        return value
    table = dict(data) if isinstance(data, dict) else {}
    return table | {path[0]: _with(table.get(path[0]), path[1:], value)}
