"""Changing the configuration's files: a setting at a time, vetted as a whole before writing."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from atlasd.config import edit, shape, snapshot, texts, writing
from atlasd.config.difference import changes
from atlasd.config.history import change_to_wire
from atlasd.config.load import Config
from atlasd.config.problems import dotted, undotted
from atlasd.config.questions import NOTHING, value_at
from atlasd.config.shown import is_reference, named_secret
from atlasd.config.snapshot import FileText
from atlasd.contracts.config import ConfigSource, KeyPath, Layer, Parse
from atlasd.contracts.review import Change
from atlasd.contracts.secrets import SecretsPolicy, SecretValue
from atlasd.errors import AtlasError
from atlasd.paths import Paths

Body = dict[str, Any]
Texts = Mapping[str, str]
"""Texts of files, by path, that are read in place of what the files hold."""
SEALED = "enc:v1:"
"""What an encrypted value begins with."""


class Load(Protocol):
    """Reading the configuration as it would be."""

    def __call__(self, texts: Texts, env: str | None, /) -> Config:
        """The configuration with these texts, for that environment (None: the one in force)."""


class Sealing(Protocol):
    """Encrypting values that stand in files; see `atlasd.contracts.secrets.Sealer`."""

    async def seal(self, value: SecretValue, *, binding: str, policy: SecretsPolicy) -> str:
        """The value, encrypted for one place and the policy's environment."""

    async def unseal(self, text: str, *, binding: str, policy: SecretsPolicy) -> SecretValue:
        """What `seal` was given."""


def overlaid(sources: Sequence[ConfigSource], given: Texts) -> list[ConfigSource]:
    """Sources that read the given texts in place of what the files of these paths hold."""

    def instead(parse: Parse) -> Parse:
        def read(text: str, origin: str, /) -> Layer:
            return parse(given.get(origin, text), origin)

        return read

    return [
        replace(source, parse=instead(source.parse)) if source.parse is not None else source
        for source in sources
    ]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which file is meant."""

    file: str | None = None
    """Named by the operator, relative to the main file's folder."""
    env: str | None = None
    """The environment whose file it is."""
    force: bool = False
    """Also where a higher layer has the last word."""


@dataclass(frozen=True, kw_only=True)
class Edited:
    """What was written, and what it changes."""

    file: str
    changes: tuple[Change, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()


class Editor:
    """Changes one setting in the file where it stands, or is to stand. Its methods block."""

    def __init__(self, paths: Paths, load: Load) -> None:
        self._paths = paths
        self._folder = Path(paths.config_file).parent
        self._load = load

    def set(self, path: KeyPath, value: Any, where: Where) -> Edited:
        """Write a value of the schema's type.

        Raises `config.invalid` for what is not valid then, `config.conflict` for what would have no
        effect, and `config.write`; in each case the file is as it was.
        """
        return self._edit(path, where, lambda text: edit.set_value(text, path, value))

    def unset(self, path: KeyPath, where: Where) -> Edited:
        """Remove a setting from its file. Raises as `set`, and `config.unknown`."""
        return self._edit(path, where, lambda text: edit.remove(text, path), removing=True)

    def value(self, path: KeyPath, where: Where) -> tuple[str, Any]:
        """The file that would be changed, and what stands there; `NOTHING` for nothing."""
        target = self._target(path, where, self._before(where.env))
        found = snapshot.read(str(target))
        try:
            with _named_in(target):
                return str(target), edit.value_in(_text(found), path)
        except AtlasError as error:
            if error.code != "config.unknown":
                raise
            return str(target), NOTHING

    def policy(self, env: str | None) -> SecretsPolicy:
        """Which secret backends an environment has. Raises as `load` for what is not valid."""
        return self._load({}, env).secrets

    def _edit(
        self, path: KeyPath, where: Where, change: Callable[[str], str], *, removing: bool = False
    ) -> Edited:
        if not path:
            raise AtlasError("config.unknown", "no key was named", hint="as services.web.instances")
        if not self._folder.is_dir():
            raise _no_configuration(self._paths)
        with writing.locked(self._folder):
            before = self._before(where.env)
            target = self._target(path, where, before)
            old = snapshot.read(str(target))
            made = old is None
            if old is None:
                # A file without settings means nothing: it may be there while it is vetted.
                target.parent.mkdir(parents=True, exist_ok=True)
                main = Path(self._paths.config_file)
                old = writing.write(target, b"", expected=None, like=main)
            try:
                with _named_in(target):
                    text = change(_text(old))
                after = self._load({str(target): text}, where.env)
                warnings = _judged(path, before, after, target, force=where.force or removing)
                writing.write(target, text.encode(), expected=old)
            except BaseException:
                if made:
                    target.unlink(missing_ok=True)
                raise
        return Edited(
            file=str(target),
            changes=changes(before, after) if before is not None else (),
            warnings=warnings,
        )

    def _before(self, env: str | None) -> Config | None:
        """The configuration as its files are; None if they are not valid, or not there.

        Raises `config.environment` for one that there is not: a slip of the pen makes none.
        """
        try:
            return self._load({}, env)
        except AtlasError as error:
            if env is not None and error.code == "config.environment":
                raise
            return None

    def _target(self, path: KeyPath, where: Where, before: Config | None) -> Path:
        if where.file is not None:
            return self._named(where.file)
        if where.env is not None:
            return Path(self._paths.environments, f"{where.env}.toml")
        if before is not None and value_at(before.data, path) is not NOTHING:
            origin = before.origin(path).origin
            if origin in before.files and origin.endswith(".toml"):
                return Path(origin)
        main = Path(self._paths.config_file)
        if main.suffix != ".toml":
            raise _only_toml(main)
        return main

    def _named(self, file: str) -> Path:
        target = Path(self._folder, file)
        places = (self._folder, self._paths.config_parts, self._paths.environments, self._hosts)
        if target.suffix != ".toml":
            raise _only_toml(target)
        main = Path(self._paths.config_file)
        if target != main and (
            target.parent == self._folder or str(target.parent) not in map(str, places)
        ):
            raise AtlasError(
                "config.unknown",
                f"{target} is no file of the configuration",
                hint=f"name {main.name}, or one in conf.d, environments or hosts",
            )
        return target

    @property
    def _hosts(self) -> Path:
        return self._folder / "hosts"


def _judged(
    path: KeyPath, before: Config | None, after: Config, target: Path, *, force: bool
) -> tuple[str, ...]:
    """Warnings about a change that is valid. Raises `config.conflict` for one without effect."""
    warnings = []
    if before is None:
        warnings.append("the files were not valid before: what changes is not known")
    value = value_at(after.data, path)
    origin = after.origin(path)
    if value is not NOTHING and not isinstance(value, dict) and origin.origin != str(target):
        said = f"{dotted(path)} stands in {origin} too, which has the last word"
        if not force:
            raise AtlasError(
                "config.conflict",
                f"{said}: nothing was written to {target}",
                hint="change it there, or write it all the same with --force",
            )
        warnings.append(said)
    if isinstance(value, str) and named_secret(path) and not is_reference(value):
        warnings.append(
            f"{dotted(path)} stands in plain text: `atlasctl config encrypt {dotted(path)}` "
            "encrypts it in its place"
        )
    return tuple(warnings)


class EditOperations:
    """Operations that change files, as plain values, as `atlasd.config.questions` has them."""

    def __init__(
        self,
        editor: Editor,
        *,
        sealing: Sealing,
        reload: Callable[[str], Awaitable[Body]] | None,
    ) -> None:
        """`reload` lets the files take over, asked by an actor; None where nothing runs."""
        self._editor = editor
        self._sealing = sealing
        self._reload = reload

    async def set(
        self,
        *,
        key: str,
        value: str,
        file: str | None = None,
        env: str | None = None,
        force: bool = False,
        reload: bool = False,
        actor: str = "",
    ) -> Body:
        """`config.set`."""
        path = undotted(key)
        found = shape.at(path) or shape.at(_changed_by(path))
        try:
            plain = texts.read(value, found.kinds if found is not None else frozenset())
        except texts.NotThatError:
            raise AtlasError(
                "config.invalid",
                f"{key}: expected {found.expected if found is not None else 'another value'}",
                hint=f"`atlasctl config explain {key}` says more",
            ) from None
        where = Where(file=file, env=env, force=force)
        edited = await asyncio.to_thread(self._editor.set, path, plain, where)
        return await self._answer(key, edited, reload=reload, actor=actor)

    async def unset(
        self,
        *,
        key: str,
        file: str | None = None,
        env: str | None = None,
        reload: bool = False,
        actor: str = "",
    ) -> Body:
        """`config.unset`."""
        where = Where(file=file, env=env)
        edited = await asyncio.to_thread(self._editor.unset, undotted(key), where)
        return await self._answer(key, edited, reload=reload, actor=actor)

    async def encrypt(
        self,
        *,
        key: str,
        value: str | None = None,
        file: str | None = None,
        env: str | None = None,
        actor: str = "",
    ) -> Body:
        """`config.encrypt`: the value that stands there, or the one that is given, is sealed.

        One that is sealed already is sealed anew, with the key that is the first one now.
        """
        path = undotted(key)
        where = Where(file=file, env=env)
        target, plain = await asyncio.to_thread(self._editor.value, path, where)
        if value is not None:
            plain = value
        if plain is NOTHING or not isinstance(plain, str):
            what = "does not stand" if plain is NOTHING else "is no text"
            raise AtlasError(
                "config.unknown",
                f"{key} {what} in {target}",
                hint="give the value on standard input: `atlasctl config encrypt KEY --stdin`",
            )
        sealed = plain.startswith(SEALED)
        if is_reference(plain) and not sealed:
            raise AtlasError(
                "config.conflict",
                f"{key} in {target} is a reference already",
                hint="with --stdin another value takes its place",
            )
        policy = await asyncio.to_thread(self._editor.policy, env)
        secret = SecretValue(plain)
        if sealed:
            secret = await self._sealing.unseal(plain, binding=dotted(path), policy=policy)
        token = await self._sealing.seal(secret, binding=dotted(path), policy=policy)
        where = Where(file=target, env=env)
        edited = await asyncio.to_thread(self._editor.set, path, token, where)
        return await self._answer(key, edited, reload=False, actor=actor)

    async def decrypt(
        self, *, key: str, file: str | None = None, env: str | None = None, actor: str = ""
    ) -> Body:
        """`config.decrypt`: in plain text from then on."""
        path = undotted(key)
        target, token = await asyncio.to_thread(self._editor.value, path, Where(file=file, env=env))
        if not isinstance(token, str) or not token.startswith(SEALED):
            raise AtlasError("config.unknown", f"{key} is not encrypted in {target}")
        policy = await asyncio.to_thread(self._editor.policy, env)
        value = await self._sealing.unseal(token, binding=dotted(path), policy=policy)
        where = Where(file=target, env=env)
        edited = await asyncio.to_thread(self._editor.set, path, value.text(), where)
        return await self._answer(key, edited, reload=False, actor=actor)

    async def _answer(self, key: str, edited: Edited, *, reload: bool, actor: str) -> Body:
        body: Body = {
            "key": key,
            "file": edited.file,
            "changes": [change_to_wire(change) for change in edited.changes],
            "warnings": edited.warnings,
            "reloaded": None,
        }
        if reload and self._reload is not None:
            body["reloaded"] = await self._reload(actor)
        return body


def _changed_by(path: KeyPath) -> KeyPath:
    """The list that `key+` or `key-` changes; else the path itself."""
    last = path[-1] if path else None
    if isinstance(last, str) and len(last) > 1 and last[-1] in "+-":
        return (*path[:-1], last[:-1])
    return path


@contextmanager
def _named_in(target: Path) -> Iterator[None]:
    """Say of which file an error about a text is."""
    try:
        yield
    except AtlasError as error:
        raise AtlasError(
            error.code, f"{target}: {error.message}", hint=error.hint, details=error.details
        ) from None


def _text(found: FileText | None) -> str:
    try:
        return found.content.decode() if found is not None else ""
    except UnicodeDecodeError:
        raise AtlasError(
            "config.invalid", "it is not UTF-8 text", hint="save the file as UTF-8"
        ) from None


def _only_toml(path: Path) -> AtlasError:
    return AtlasError(
        "config.conflict",
        f"{path}: only TOML files are changed by command",
        hint="edit it by hand, or name a TOML file with --file",
    )


def _no_configuration(paths: Paths) -> AtlasError:
    return AtlasError(
        "config.missing",
        f"{paths.config_file}: there is no configuration",
        hint="write it, or name another one with --root DIR",
    )
