"""Secrets in a local, encrypted store: the default backend, which needs no network."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from pydantic import Field

from atlasd import hookimpl
from atlasd.contracts.context import PluginContext
from atlasd.contracts.secrets import Capability, SecretBackend, SecretStore
from atlasd.contracts.settings import Duration, Settings

ATLASD_API = 1


class FernetSettings(Settings):
    """Settings of a backend of type `fernet`."""

    path: str = Field(
        default="secrets.db",
        min_length=1,
        description="The store. A relative path starts at the backend's folder below the state "
        "folder.",
    )
    key_file: str = Field(
        default="secrets.key",
        min_length=1,
        description="The file with the keys; of one store only. A relative path starts at the "
        "folder of the main configuration file.",
    )
    credential: str = Field(
        default="secrets.key",
        min_length=1,
        description="Name of a systemd credential with keys; it comes before the key file.",
    )
    key_variable: str = Field(
        default="ATLASD_SECRETS_KEY",
        min_length=1,
        description="Environment variable with keys; after the key file, and warned about.",
    )
    passphrase_variable: str = Field(
        default="ATLASD_SECRETS_PASSPHRASE",
        min_length=1,
        description="Environment variable with passphrases, one a line, of which keys are made "
        "by Argon2id; comes last, and is warned about.",
    )
    keep_versions: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Versions that are kept of a secret. One with a stage is never dropped.",
    )
    recovery: Duration = Field(
        default=timedelta(days=7),
        ge=timedelta(0),
        description="Time for which a deleted secret can be had back, if the command names none.",
    )


@asynccontextmanager
async def open_backend(
    settings: FernetSettings, context: PluginContext
) -> AsyncIterator[SecretStore]:
    """The store of the environment in force; neither it nor a key has to be there yet."""
    # Here, so that a role without secrets pays neither for cryptography nor for SQLite.
    from atlasd_plugins.secrets_fernet.store import FernetStore

    store = FernetStore(settings, context)
    try:
        yield store
    finally:
        await store.close()


@hookimpl
def register_secret_backends() -> list[SecretBackend]:
    """The `fernet` backend."""
    return [
        SecretBackend(
            name="fernet",
            summary="a local encrypted store, with a key ring of its own",
            settings=FernetSettings,
            open=open_backend,
            local=True,
            capabilities=frozenset(Capability),
            requires=("cryptography",),
        )
    ]
