"""Settings of applications, as far as they are configuration: what is declared, and by whom."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from atlasd.config.deliveries import told_by
from atlasd.config.fields import ENV_NAME
from atlasd.config.files import Sources
from atlasd.config.inner import part, within
from atlasd.config.merge import Merged
from atlasd.config.problems import Findings, Problem, dotted
from atlasd.config.referenced import Known, Referenced
from atlasd.config.resolving import Around
from atlasd.config.rules import SET_BY_ATLASD
from atlasd.config.schema import Settings, SettingsSet
from atlasd.config.service import Service, SettingsFile
from atlasd.config.workshop import Workshop
from atlasd.contracts.applications import (
    MODEL,
    Complaint,
    DeclaredFile,
    DeclaredSet,
    DeclaredUse,
    SourceFile,
    Tools,
)
from atlasd.contracts.config import ConfigSource, KeyPath
from atlasd.errors import nearest
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
    if len(service.settings_file) == 1 and isinstance(part(findings.layer.data, path[:-1]), dict):
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
        shadows=complaint.shadows,
        warning=complaint.warning,
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
            reserved=SET_BY_ATLASD | set(_handed_otherwise(service)),
            where=merged.layer.where((*path, "settings")),
        )


def _handed_otherwise(service: Service) -> Iterator[str]:
    """Variables that tell a service of its secrets and files, and the names of these."""
    for name, secret in service.secrets.items():
        yield name
        yield told_by(name, secret.deliver)
    for file in service.settings_file:
        yield file.name
        yield told_by(file.name, "file")


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
