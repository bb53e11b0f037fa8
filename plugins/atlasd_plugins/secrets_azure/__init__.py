"""Secrets in Azure Key Vault."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from atlasd import hookimpl
from atlasd.contracts.context import PluginContext
from atlasd.contracts.secrets import Capability, SecretBackend
from atlasd_plugins.secrets_azure.settings import AzureSettings
from atlasd_plugins.secrets_azure.store import AzureStore

ATLASD_API = 1


@asynccontextmanager
async def open_backend(
    settings: AzureSettings, context: PluginContext
) -> AsyncIterator[AzureStore]:
    """A store that connects when it is first asked."""
    store = AzureStore(settings, context)
    try:
        yield store
    finally:
        store.close()


@hookimpl
def register_secret_backends() -> list[SecretBackend]:
    """The `azure` backend."""
    return [
        SecretBackend(
            name="azure",
            summary="Azure Key Vault",
            settings=AzureSettings,
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
            requires=("azure.identity", "azure.keyvault.secrets"),
            extra="azure",
        )
    ]
