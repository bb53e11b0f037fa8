"""Secrets from atlasd's own environment, for development; read only."""

import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import NoReturn

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

PRODUCTION = "production"
VERSION = "1"
"""A process's environment stays as it was when it started: there is never another version."""
_NAME = re.compile(r"[A-Za-z0-9_.+=/-]{1,255}")


class EnvironSettings(Settings):
    """Settings of a backend of type `environ`."""

    prefix: str = Field(
        default="SECRET_",
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="What the variables' names begin with: the secret `shop/db` is then "
        "`SECRET_SHOP_DB`.",
    )
    allow_in_production: bool = Field(
        default=False,
        description="Whether it may be used in the environment `production`. Whatever is in an "
        "environment can be read in /proc, and programs inherit it.",
    )


class Variables:
    """The variables that begin with a prefix."""

    def __init__(
        self,
        settings: EnvironSettings,
        environment: str,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`environ` is the process's own unless given."""
        self._prefix = settings.prefix
        self._refused = environment == PRODUCTION and not settings.allow_in_production
        self._environ = os.environ if environ is None else environ

    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        """The variable's value; it has one version, which is current."""
        variable = self._find(name)
        if version not in ("", VERSION) or (not version and stage != CURRENT):
            what = f"version {version!r}" if version else f"version at stage {stage!r}"
            raise _not_found(
                f"secret {name!r} has no {what}", hint="a variable has its current one only"
            )
        return SecretVersion(
            name=name,
            version=VERSION,
            stages=(CURRENT,),
            created_by="environment",
            value=SecretValue(os.fsencode(self._environ[variable])),
        )

    async def describe(self, name: str) -> SecretInfo:
        """What is known of it."""
        self._find(name)
        return _info(name)

    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        """All secrets whose name starts so, by name: `SECRET_SHOP_DB` shows as `shop_db`."""
        self._check_allowed()
        start = self._prefix
        found = sorted({v[len(start) :].lower() for v in self._environ if v.startswith(start)})
        # `shop/db` and `shop_db` are the same variable, so the prefix is compared as one.
        wanted = _variable("", prefix).lower()
        return [_info(name) for name in found if name and name.startswith(wanted)]

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

    def _find(self, name: str) -> str:
        """The variable of a secret that is there."""
        self._check_allowed()
        if not _NAME.fullmatch(name):
            raise AtlasError(
                "secret.invalid",
                f"a secret cannot be called {name[:80]!r}",
                hint="letters, digits and _ . + = - /",
            )
        variable = _variable(self._prefix, name)
        if variable not in self._environ:
            raise _not_found(
                f"there is no secret {name!r}: the variable {variable} is not set",
                hint=f"start atlasd with {variable} in its environment",
            )
        return variable

    def _check_allowed(self) -> None:
        if self._refused:
            raise AtlasError(
                "secret.denied",
                "secrets are not taken from the environment in production: it can be read in "
                "/proc, and programs inherit it",
                hint="`backend` of [secrets] chooses another one for production; "
                "`allow_in_production = true` of this one permits it",
            )


def _variable(prefix: str, name: str) -> str:
    return prefix + re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def _info(name: str) -> SecretInfo:
    return SecretInfo(name=name, current=VERSION, versions=1)


def _not_found(message: str, *, hint: str) -> AtlasError:
    return AtlasError("secret.not_found", message, hint=hint)


def _read_only(operation: str) -> NoReturn:
    raise AtlasError(
        "secret.unsupported",
        f"the backend environ has no {operation}: the environment is read only",
        hint="start atlasd with another environment, or use another backend",
    )


@asynccontextmanager
async def open_backend(
    settings: EnvironSettings, context: PluginContext
) -> AsyncIterator[SecretStore]:
    """The environment of this process."""
    yield Variables(settings, context.environment)


@hookimpl
def register_secret_backends() -> list[SecretBackend]:
    """The `environ` backend."""
    return [
        SecretBackend(
            name="environ",
            summary="variables of atlasd's own environment, for development, read only",
            settings=EnvironSettings,
            open=open_backend,
            local=True,
            capabilities=frozenset({Capability.LIST}),
        )
    ]
