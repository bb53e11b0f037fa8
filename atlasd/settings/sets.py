"""One set of settings: read from its files, typed, filled with its secrets, and validated."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atlasd import logs
from atlasd.contracts.applications import (
    MODEL,
    Complaint,
    DeclaredSet,
    FileRead,
    SourceFile,
    Tools,
)
from atlasd.contracts.config import KeyPath, Layer, Position
from atlasd.errors import AtlasError, nearest
from atlasd.settings.commands import DidNotAnswerError, run, surroundings
from atlasd.settings.layering import Layering, OldName
from atlasd.settings.model import Model
from atlasd.settings.schema import Schema
from atlasd.settings.tree import AbsentError, at, dotted, leaves, nodes, not_json, plain
from atlasd.settings.words import Speaker, clean, masked

SHORTEST = 6
"""Characters of a secret in plain text; shorter words would be taken out of logs for nothing."""
CHECK_SECONDS = 30.0
"""Time that the command which vets a set may take."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A set that is as it should be."""

    declared: DeclaredSet
    complete: bool
    """False when secrets were not asked for: it may then be shown, and not be handed over."""
    data: dict[str, Any] = field(repr=False)
    """The settings, secrets in them."""
    shown: dict[str, Any]
    """The same with references where secrets are, and with nothing that is a secret by its name:
    this may be shown."""
    layer: Layer = field(repr=False)
    """Where each of them stands."""
    shadowed: Callable[[KeyPath], tuple[Position, ...]] = field(repr=False)
    references: Mapping[KeyPath, str]
    """For each setting that refers to something, how it does."""
    secrets: Mapping[KeyPath, Mapping[str, str]] = field(repr=False)
    old_names: Mapping[str, OldName] = field(repr=False)
    defaults: frozenset[KeyPath] = frozenset()
    """Settings that nobody has set and the model has filled in."""
    schema: Schema | None = field(default=None, repr=False)

    def secrets_at(self, path: KeyPath) -> dict[str, str]:
        """The secrets in what stands at a path, or around it: values by their names."""
        found: dict[str, str] = {}
        for secret, held in self.secrets.items():
            if secret[: len(path)] == path or path[: len(secret)] == secret:
                found |= held
        return found


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What became of one declared set."""

    ready: Ready | None
    """None when something is wrong."""
    complaints: tuple[Complaint, ...]
    files: tuple[str, ...]
    """Everything that was read for it."""
    awaited: tuple[str, ...]
    """What need not exist, and does not."""


def prepare(declared: DeclaredSet, tools: Tools, *, vet: bool = True) -> Prepared:
    """The set, or everything that is wrong with it; its own check is asked if `vet`."""
    return _Preparing(declared, tools, vet=vet).prepared()


class _StopError(Exception):
    """There is no use in going on; what is wrong has been noted."""


class _Preparing:
    """The state of one preparation."""

    def __init__(self, declared: DeclaredSet, tools: Tools, *, vet: bool) -> None:
        self._may_vet = vet
        self._declared = declared
        self._tools = tools
        self._complaints: list[Complaint] = []
        self._files: list[str] = []
        self._awaited: list[str] = []

    def prepared(self) -> Prepared:
        ready = None
        try:
            with ExitStack() as stack:
                ready = self._ready(stack)
        except _StopError:
            pass
        return Prepared(
            ready=ready if all(c.warning for c in self._complaints) else None,
            complaints=tuple(self._complaints),
            files=tuple(dict.fromkeys(self._files)),
            awaited=tuple(self._awaited),
        )

    def _ready(self, stack: ExitStack) -> Ready:
        model, schema = self._schema(stack)
        files = list(self._read())
        if any(not c.warning for c in self._complaints):
            raise _StopError  # with a layer missing, the rest would be full of faults
        layering = Layering(self._declared, self._tools, files, schema)
        laid = layering.laid
        filled = self._tools.fill(self._declared.name, laid.layer)
        self._complaints += [*layering.complaints, *filled.complaints]
        if any(not c.warning for c in self._complaints):
            raise _StopError
        data = layering.typed(filled)
        secrets = {**_in_plain_text(data, filled.references), **filled.secrets}
        speaker = Speaker(
            layer=laid.layer, secrets=secrets, shadow=laid.shadow, unknown=filled.unknown
        )
        defaults = self._judged(data, speaker, model, schema)
        self._variables(data, schema)
        if filled.unknown:
            # Without the values nobody can say more of them, and nothing may be handed over.
            self._complaints = [c for c in self._complaints if not speaker.concerns_unknown(c)]
        elif self._may_vet and all(c.warning for c in self._complaints):
            self._vet(data, speaker)
        return Ready(
            declared=self._declared,
            complete=not filled.unknown,
            data=data,
            shown=_shown(data, filled.references),
            references=filled.references,
            layer=laid.layer,
            shadowed=laid.shadowed,
            secrets=secrets,
            old_names=layering.old_names(data),
            defaults=defaults,
            schema=schema,
        )

    # --- schema and files

    def _schema(self, stack: ExitStack) -> tuple[Model | None, Schema | None]:
        said = self._declared.schema
        if not said:
            return None, None
        try:
            if MODEL.fullmatch(said):
                model = stack.enter_context(
                    Model(said, python=self._declared.python, folder=self._declared.folder)
                )
                return model, model.schema
            path = Path(said)
            self._files.append(str(path))
            schema = Schema.load(path)
        except AtlasError as error:
            self._fail("schema", error)
            raise _StopError from None
        return None, schema

    def _fail(self, key: str, error: AtlasError) -> None:
        self._complain(key, got=error.message, hint=error.hint)

    def _complain(self, key: str, *, expected: str = "", got: str = "", hint: str = "") -> None:
        """Note what is wrong with the declaration itself."""
        self._complaints.append(
            Complaint(
                where=self._declared.place(key),
                key=f"settings.{self._declared.name}.{key}",
                expected=expected,
                got=got,
                hint=hint,
            )
        )

    def _read(self) -> Iterator[FileRead]:
        for file in self._declared.files:
            try:
                read = self._tools.read(Path(file.path), self._declared.dialect)
            except AtlasError as error:
                self._unread(file, error)
                continue
            self._files.append(file.path)
            for fault in read.layer.faults:
                self._complaints.append(
                    Complaint(
                        where=fault.where,
                        expected=fault.expected,
                        got=fault.got,
                        hint=fault.hint,
                        warning=fault.warning,
                    )
                )
            yield read

    def _unread(self, file: SourceFile, error: AtlasError) -> None:
        if error.code == "config.missing" and file.optional:
            self._awaited.append(file.path)
            return
        if error.code == "config.missing":
            self._complaints.append(
                Complaint(
                    where=file.where,
                    key=f"settings.{self._declared.name}.files",
                    expected="a file that exists",
                    got=file.path,
                    hint=f'write "-{file.path}" if it need not exist',
                )
            )
            return
        self._files.append(file.path)
        line, column = error.details.get("line", 0), error.details.get("column", 0)
        assert isinstance(line, int)
        assert isinstance(column, int)
        where = Position(origin=file.path, line=line, column=column)
        said = error.message.removeprefix(str(where)).removeprefix(": ")
        self._complaints.append(Complaint(where=where, got=said, hint=error.hint))

    # --- validation

    def _judged(
        self,
        data: dict[str, Any],
        speaker: Speaker,
        model: Model | None,
        schema: Schema | None,
    ) -> frozenset[KeyPath]:
        """Hold the settings against the schema; the settings that the model has filled in."""
        infinite = not_json(data) if schema is not None else None
        if infinite is not None:
            self._complaints.append(
                speaker.about(infinite, expected="a finite number", value=at(data, infinite))
            )
            return frozenset()
        try:
            if model is None:
                if schema is not None:
                    self._complaints += schema.complaints(data, speaker)
                    self._files += schema.files
                return frozenset()
            judged = model.judge(data, speaker)
        except AtlasError as error:
            self._fail("schema", error)
            return frozenset()
        self._complaints += judged.complaints
        for path, value in judged.defaults:
            at(data, path[:-1])[path[-1]] = value
        return frozenset(path for path, _ in judged.defaults)

    def _variables(self, data: Mapping[str, Any], schema: Schema | None) -> None:
        """Warn of declared variables whose setting nobody knows."""
        known = {*(dotted(path) for path, _ in nodes(data))}
        known |= {dotted(path) for path in (schema.paths() if schema is not None else ())}
        for name, key in self._declared.variables.items():
            if key not in known:
                self._complaints.append(
                    Complaint(
                        where=self._declared.place("variables"),
                        key=f"settings.{self._declared.name}.variables.{name}",
                        got=f"there is no setting {key}, so {name} is not set",
                        hint=nearest(key, sorted(known)),
                        warning=True,
                    )
                )

    def _vet(self, data: Mapping[str, Any], speaker: Speaker) -> None:
        """Ask the application's own command."""
        command = self._declared.check
        if not command:
            return
        infinite = not_json(data)
        if infinite is not None:
            self._complaints.append(
                speaker.about(infinite, expected="a finite number", value=at(data, infinite))
            )
            return
        try:
            outcome = run(
                command,
                text=json.dumps(plain(dict(data)), ensure_ascii=False).encode(),
                cwd=self._declared.folder,
                env=surroundings(
                    ATLASD_ENV=self._declared.environment, ATLASD_SETTINGS=self._declared.name
                ),
                seconds=CHECK_SECONDS,
            )
        except DidNotAnswerError as error:
            self._complain("check", got=str(error))
            return
        if outcome.code != 0:
            secrets = [value for held in speaker.secrets.values() for value in held.values()]
            said = clean(outcome.said, secrets) or "it says nothing"
            self._complain("check", got=f"refused, exit code {outcome.code}: {said}")


def _in_plain_text(
    data: Mapping[str, Any], references: Mapping[KeyPath, str]
) -> dict[KeyPath, dict[str, str]]:
    """Secrets that stand in the files themselves, as far as their names say so."""
    return {
        path: {dotted(path): value}
        for path, value in leaves(data)
        if isinstance(value, str) and path not in references and logs.is_secret_name(str(path[-1]))
        if len(value) >= SHORTEST
    }


def _shown(data: Mapping[str, Any], references: Mapping[KeyPath, str]) -> dict[str, Any]:
    """The settings as they may be shown."""
    shown = copy.deepcopy(dict(data))
    for path, value in list(nodes(shown)):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            at(shown, path[:-1])[path[-1]] = masked(value, path)
    for path, text in references.items():
        try:
            at(shown, path[:-1])[path[-1]] = text
        except AbsentError:
            continue
    return shown
