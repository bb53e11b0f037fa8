"""What a service is handed of its settings: variables, or rendered files, each vetted first."""

import base64
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atlasd.contracts.applications import Complaint, DeclaredFile, DeclaredUse
from atlasd.contracts.config import KeyPath
from atlasd.services.spec import Delivery, KnownSecret
from atlasd.settings.commands import DidNotAnswerError, run, surroundings
from atlasd.settings.names import ENV_NAME, variable
from atlasd.settings.render import CannotRenderError, env_lines, env_text, render
from atlasd.settings.sets import Ready
from atlasd.settings.template import Template
from atlasd.settings.tree import at, dotted, leaves, there, undotted
from atlasd.settings.words import clean

CHECK_SECONDS = 30.0
"""Time that the command which vets a rendered file may take."""
ON_TMPFS = "/dev/shm"  # noqa: S108  a place for private folders, never a name in it


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One file of a service, rendered."""

    declared: DeclaredFile
    content: str = field(repr=False)
    masked: str = field(repr=False)
    """The same with references in the place of secrets."""
    secret: bool
    """Whether there are secrets in it."""


@dataclass(frozen=True, kw_only=True)
class Handed:
    """All that one service is handed."""

    service: str
    sets: tuple[str, ...]
    """Names of the sets, in their order."""
    deliveries: tuple[Delivery, ...] = field(repr=False)
    secrets: tuple[KnownSecret, ...] = field(repr=False)
    variables: Mapping[str, str]
    """Masked as in `Rendered`; empty where files are given."""
    files: tuple[Rendered, ...]
    read: tuple[str, ...]
    """Templates, and what they include."""

    def values(self) -> dict[str, str]:
        """The variables with their values, secrets included."""
        return {
            one.name: base64.b64decode(one.content).decode()
            for one in self.deliveries
            if one.kind == "env"
        }


def hand(
    use: DeclaredUse,
    sets: Sequence[Ready],
    *,
    environment: str,
    run_dir: str,
    vet: bool = True,
) -> tuple[Handed | None, list[Complaint]]:
    """What the service is handed of these sets, or everything that keeps it from it.

    Rendered files are vetted (if `vet`) below `run_dir`, in memory and for nobody else to read.
    """
    handing = _Handing(use, sets, environment, run_dir if vet else None)
    handed = handing.files() if use.files else handing.as_variables()
    return (handed if not handing.complaints else None), handing.complaints


@dataclass(frozen=True, kw_only=True)
class _Variable:
    text: str = field(repr=False)
    masked: str
    path: KeyPath
    secrets: Mapping[str, str] = field(repr=False)


class _Handing:
    def __init__(
        self, use: DeclaredUse, sets: Sequence[Ready], environment: str, run_dir: str | None
    ) -> None:
        self._use = use
        self._sets = sets
        self._environment = environment
        self._run_dir = run_dir
        self.complaints: list[Complaint] = []

    def _known(self) -> tuple[KnownSecret, ...]:
        known: dict[str, KnownSecret] = {}
        for one in self._sets:
            for held in one.secrets.values():
                for name, value in held.items():
                    known.setdefault(value, KnownSecret(name=name, value=value))
        return tuple(known.values())

    # --- as variables

    def as_variables(self) -> Handed:
        found: dict[str, _Variable] = {}
        for one in self._sets:
            found |= self._variables(one)
        for name in sorted(found.keys() & set(self._use.reserved)):
            self.complaints.append(
                Complaint(
                    where=self._use.where,
                    key=f"services.{self._use.service}.settings",
                    got=f"{dotted(found[name].path)} would be the variable {name}, which the "
                    "service has otherwise",
                    hint="rename the setting, or give its set an env_prefix",
                )
            )
        return Handed(
            service=self._use.service,
            sets=self._use.sets,
            deliveries=tuple(
                Delivery(
                    name=name, kind="env", content=_encoded(found[name].text),
                    secret=bool(found[name].secrets),
                )
                for name in sorted(found)
                if name not in self._use.env
            ),
            secrets=self._known(),
            variables={name: found[name].masked for name in sorted(found)},
            files=(),
            read=(),
        )  # fmt: skip

    def _variables(self, one: Ready) -> dict[str, _Variable]:
        """The variables of one set, by name."""
        found: dict[str, _Variable] = {}
        for path, _ in leaves(one.data):
            name = variable(one.declared.env_prefix, path)
            if not ENV_NAME.fullmatch(name):
                self._complain(
                    one, path,
                    expected="a key that makes a variable's name",
                    got=f"{name!r}, which is none",
                    hint='give the set an env_prefix, as "SHOP_"',
                )  # fmt: skip
            elif name in found:
                self._collision(one, name, path, found[name].path)
            else:
                self._add(found, one, name, path)
        for name, key in one.declared.variables.items():
            path = undotted(key)
            if not there(one.data, path):
                continue
            if name in found and found[name].path != path:
                self._collision(one, name, path, found[name].path)
            else:
                self._add(found, one, name, path)
        for name, old in one.old_names.items():
            if not there(one.data, old.path):
                continue
            if name in found and found[name].path != old.path:
                self._collision(one, name, old.path, found[name].path)
            elif old.verbatim and old.path not in one.references:
                # As it always was: `yes` where the setting has become true.
                shown, value = at(one.shown, old.path), at(one.data, old.path)
                found[name] = _Variable(
                    text=old.text,
                    masked=old.text if shown == value else env_text(shown, old.path),
                    path=old.path,
                    secrets=one.secrets_at(old.path),
                )
            else:
                self._add(found, one, name, old.path)
        return found

    def _add(self, found: dict[str, _Variable], one: Ready, name: str, path: KeyPath) -> None:
        value = at(one.data, path)
        if value is None:
            return  # a variable that is not there says what null says
        secrets = one.secrets_at(path)
        try:
            found[name] = _Variable(
                text=env_text(value, path),
                masked=env_text(at(one.shown, path), path),
                path=path,
                secrets=secrets,
            )
        except CannotRenderError as error:
            self._complain(one, path, got=str(error), hint=error.hint)

    def _collision(self, one: Ready, name: str, path: KeyPath, other: KeyPath) -> None:
        self._complain(
            one,
            path,
            expected="a variable of its own for each setting",
            got=f"{name}, which {dotted(other)} ({one.layer.where(other)}) has too",
            hint="rename one of the two, or hand the settings over in a file: settings_file",
        )

    def _complain(
        self, one: Ready, path: KeyPath, *, expected: str = "", got: str = "", hint: str = ""
    ) -> None:
        self.complaints.append(
            Complaint(
                where=one.layer.where_key(path),
                key=dotted(path),
                expected=expected,
                got=got,
                hint=hint,
            )
        )

    # --- as files

    def files(self) -> Handed:
        data, shown = self._together()
        rendered, read = [], []
        for file in self._use.files if not self.complaints else ():
            try:
                found, files = self._rendered(file, data, shown)
            except CannotRenderError as error:
                about = f"{error.key}: " if error.key else ""
                self._refuse(file, f"{about}{error}", error.hint)
                continue
            read += files
            rendered.append(found)
            if file.check and self._run_dir is not None:
                self._vet(found, self._run_dir)
        return Handed(
            service=self._use.service,
            sets=self._use.sets,
            deliveries=tuple(
                Delivery(
                    name=one.declared.variable,
                    kind="file",
                    path=one.declared.path,
                    content=_encoded(one.content),
                    secret=False,
                )
                for one in rendered
            ),
            secrets=self._known(),
            variables={},
            files=tuple(rendered),
            read=tuple(read),
        )

    def _together(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of all sets, and what may be shown of them."""
        data: dict[str, Any] = {}
        shown: dict[str, Any] = {}
        for one in self._sets:
            for path in _over(data, one.data):
                self._complain(
                    one,
                    path,
                    expected=f"the same kind as in the other settings of {self._use.service}",
                    got="a table in one of them and none in another",
                )
            for _ in _over(shown, one.shown):
                pass
        return data, shown

    def _rendered(
        self, file: DeclaredFile, data: dict[str, Any], shown: dict[str, Any]
    ) -> tuple[Rendered, list[str]]:
        read: list[str] = []
        secrets = [known.value for known in self._known()]
        if file.format == "template":
            template = Template(Path(file.template))
            content = template.render(self._values(data), secrets)
            masked = _masked(template, self._values(shown))
            read = template.files
        elif file.format == "env":
            content, masked = self._env(file, shown=False), self._env(file, shown=True)
        else:
            content, masked = render(data, file.format), render(shown, file.format)
        found = Rendered(declared=file, content=content, masked=masked, secret=bool(secrets))
        return found, read

    def _values(self, data: dict[str, Any]) -> dict[str, Any]:
        """What a template knows."""
        around = {"environment": self._environment, "service": self._use.service}
        return {**data, **around, "settings": data}

    def _env(self, file: DeclaredFile, *, shown: bool) -> str:
        found: dict[str, _Variable] = {}
        for one in self._sets:
            found |= self._variables(one)
        lines = {name: v.masked if shown else v.text for name, v in found.items()}
        return env_lines(lines, file.dialect)

    def _refuse(self, file: DeclaredFile, got: str, hint: str = "") -> None:
        self.complaints.append(Complaint(where=file.where, key=file.key, got=got, hint=hint))

    def _vet(self, rendered: Rendered, run_dir: str) -> None:
        file = rendered.declared
        secrets = [known.value for known in self._known()]
        try:
            with _private(run_dir, file.path, rendered.content) as path:
                outcome = run(
                    [word.replace("{file}", path) for word in file.check],
                    text=b"",
                    cwd="/",
                    env=surroundings(
                        ATLASD_ENV=self._environment,
                        ATLASD_SERVICE=self._use.service,
                        **{f"{file.variable}_FILE": path},
                    ),
                    seconds=CHECK_SECONDS,
                )
        except OSError as error:
            self._refuse(file, f"the check cannot be given the file: {error.strerror}")
        except DidNotAnswerError as error:
            self._refuse(file, f"check: {error}")
        else:
            if outcome.code != 0:
                said = clean(outcome.said, secrets) or "it says nothing"
                self._refuse(file, f"its check refuses it, exit code {outcome.code}: {said}")


def _masked(template: Template, shown: Mapping[str, Any]) -> str:
    try:
        return template.render(shown, [])
    except CannotRenderError:
        # It does something with a secret that cannot be done with a reference.
        return "(the template cannot be rendered without its secrets)\n"


def _over(below: dict[str, Any], above: Mapping[str, Any], path: KeyPath = ()) -> Iterator[KeyPath]:
    """Lay one tree over another; the paths at which only one of them has a table."""
    for key, value in above.items():
        old = below.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            yield from _over(old, value, (*path, key))
            continue
        if old is not None and isinstance(value, dict) != isinstance(old, dict):
            yield (*path, key)
        below[key] = _copy(value)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return value


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@contextlib.contextmanager
def _private(run_dir: str, name: str, content: str) -> Iterator[str]:
    """The content in a file that only we can read, in memory, and only for now."""
    writable = (d for d in (run_dir, ON_TMPFS) if d and os.access(d, os.W_OK | os.X_OK))
    folder = tempfile.mkdtemp(prefix="vet-", dir=next(writable, None))
    try:
        path = Path(folder, name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        with open(descriptor, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123  it is open
            file.write(content)
        yield str(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
