"""Secrets in AWS Secrets Manager."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from atlasd import hookimpl
from atlasd.contracts.context import PluginContext
from atlasd.contracts.secrets import Capability, SecretBackend
from atlasd_plugins.secrets_aws.settings import AwsSettings
from atlasd_plugins.secrets_aws.store import AwsStore

ATLASD_API = 1


@asynccontextmanager
async def open_backend(settings: AwsSettings, context: PluginContext) -> AsyncIterator[AwsStore]:
    """A store that connects when it is first asked."""
    store = AwsStore(settings, context)
    try:
        yield store
    finally:
        store.close()


@hookimpl
def register_secret_backends() -> list[SecretBackend]:
    """The `aws` backend."""
    return [
        SecretBackend(
            name="aws",
            summary="AWS Secrets Manager",
            settings=AwsSettings,
            open=open_backend,
            capabilities=frozenset(
                {
                    Capability.PUT,
                    Capability.LIST,
                    Capability.VERSIONS,
                    Capability.STAGE,
                    Capability.DELETE,
                    Capability.RECOVER,
                }
            ),
            requires=("boto3",),
            extra="aws",
        )
    ]
