"""Secrets that systemd hands to atlasd's units as credentials; read only."""

import asyncio
import errno
import os
import re
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

from pydantic import Field

from atlasd import hookimpl
from atlasd.contracts.context import PluginContext
from atlasd.contracts.secrets import (
    CURRENT,
    Capability,
    SecretBackend,
    SecretInfo,
    SecretStore,
    SecretValue,
    SecretVersion,
)
from atlasd.contracts.settings import Settings
from atlasd.errors import AtlasError

ATLASD_API = 1

P = ParamSpec("P")
T = TypeVar("T")

DIRECTORY = "CREDENTIALS_DIRECTORY"
MOST = 1024 * 1024
"""Bytes that systemd lets a credential have."""
_NAME = re.compile(r"[A-Za-z0-9_.+=/-]{1,255}")


class SystemdSettings(Settings):
    """Settings of a backend of type `systemd`."""

    hidden: list[str] = Field(
        default=["secrets.key"],
        description="Credentials that are atlasd's own and no secrets of anybody else: the keys "
        "of the fernet store.",
    )


class Credentials:
    """The files in the folder that systemd made for this process."""

    def __init__(
        self,
        settings: SystemdSettings,
        context: PluginContext,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`environ` is the process's own unless given."""
        self._hidden = frozenset(settings.hidden)
        self._context = context
        self._environ = os.environ if environ is None else environ
        # A configuration asks for all of its secrets at once; more would wait than may.
        self._turns = asyncio.Semaphore(8)

    async def _in_turn(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._turns:
            return await self._context.in_thread(work, *args, **kwargs)

    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        """The credential; it has one version, which is current."""
        found, raw = await self._in_turn(self._read, name)
        here = _version(found)
        if version not in ("", here) or (not version and stage != CURRENT):
            what = f"version {version!r}" if version else f"version at stage {stage!r}"
            raise _not_found(
                f"credential {name!r} has no {what}", hint="a credential has its current one only"
            )
        return SecretVersion(
            name=name,
            version=here,
            stages=(CURRENT,),
            created=_time(found),
            created_by="systemd",
            value=SecretValue(raw),
        )

    async def describe(self, name: str) -> SecretInfo:
        """What is known of it."""
        return _info(name, (await self._in_turn(self._read, name))[0])

    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        """All credentials whose name starts so, by the names of their files."""
        return await self._in_turn(self._list, prefix)

    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        """Refused."""
        _read_only("put")

    async def versions(self, name: str) -> Sequence[SecretVersion]:
        """Refused."""
        _read_only("versions")

    async def stage(self, name: str, version: str, stage: str) -> None:
        """Refused."""
        _read_only("stage")

    async def delete(self, name: str, *, recovery: timedelta | None = None) -> SecretInfo:
        """Refused."""
        _read_only("delete")

    async def recover(self, name: str) -> SecretInfo:
        """Refused."""
        _read_only("recover")

    def _folder(self) -> Path:
        folder = self._environ.get(DIRECTORY, "")
        if not folder:
            raise AtlasError(
                "secret.unavailable",
                f"systemd has handed over no credentials: {DIRECTORY} is not set",
                hint="give the units of core and monitoring LoadCredential=NAME:/path, then "
                "restart them",
            )
        return Path(folder)

    def _read(self, name: str) -> tuple[os.stat_result, bytes]:
        # A credential is a file: the secret prod/db is the credential prod.db.
        file = name.replace("/", ".")
        if not _NAME.fullmatch(name) or file in (".", ".."):
            raise AtlasError(
                "secret.invalid",
                f"a credential cannot be called {name[:80]!r}",
                hint="letters, digits and _ . + = -, and / for a dot",
            )
        if file in self._hidden:
            raise AtlasError(
                "secret.denied",
                f"credential {file!r} is atlasd's own, and is not handed on",
                hint="`hidden` in the backend's settings names such credentials",
            )
        path = self._folder() / file
        try:
            # Neither a FIFO's writer is waited for, nor a link followed out of the folder.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise OSError(errno.EINVAL, "it is not a regular file")
                return found, os.read(descriptor, MOST)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise _not_found(
                f"there is no secret {name!r}: systemd has handed over no credential {file!r}",
                hint="give the units of core and monitoring "
                f"LoadCredential={file}:/path, then restart them",
            ) from None
        except OSError as error:
            raise _unreadable(path, error) from error

    def _list(self, prefix: str) -> Sequence[SecretInfo]:
        folder = self._folder()
        try:
            entries = sorted(
                (entry.name, entry.stat(follow_symlinks=False))
                for entry in os.scandir(folder)
                if entry.is_file(follow_symlinks=False)
            )
        except OSError as error:
            raise _unreadable(folder, error) from error
        start = prefix.replace("/", ".")
        return [
            _info(name, found)
            for name, found in entries
            if name.startswith(start) and _NAME.fullmatch(name) and name not in self._hidden
        ]


def _version(found: os.stat_result) -> str:
    # The file is made anew when the unit starts; while it runs, systemd changes nothing.
    return f"{found.st_mtime_ns:x}"


def _time(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, tz=UTC)


def _info(name: str, found: os.stat_result) -> SecretInfo:
    time = _time(found)
    return SecretInfo(name=name, current=_version(found), created=time, changed=time, versions=1)


def _not_found(message: str, *, hint: str) -> AtlasError:
    return AtlasError("secret.not_found", message, hint=hint)


def _unreadable(path: Path, error: OSError) -> AtlasError:
    return AtlasError(
        "secret.unavailable",
        f"{path} cannot be read: {error.strerror}",
        hint="systemd makes it for the unit's user; look at the unit's LoadCredential=",
    )


def _read_only(operation: str) -> NoReturn:
    raise AtlasError(
        "secret.unsupported",
        f"the backend systemd has no {operation}: credentials are read only",
        hint="change the file that LoadCredential= names, then restart the unit",
    )


@asynccontextmanager
async def open_backend(
    settings: SystemdSettings, context: PluginContext
) -> AsyncIterator[SecretStore]:
    """The credentials of this process."""
    yield Credentials(settings, context)


@hookimpl
def register_secret_backends() -> list[SecretBackend]:
    """The `systemd` backend."""
    return [
        SecretBackend(
            name="systemd",
            summary="credentials that systemd hands to atlasd's units, read only",
            settings=SystemdSettings,
            open=open_backend,
            local=True,
            capabilities=frozenset({Capability.LIST}),
        )
    ]
