"""A client of Key Vault, with a credential, as the settings describe them."""

import logging
from typing import TYPE_CHECKING, Any

from atlasd.errors import AtlasError
from atlasd_plugins.secrets_azure.settings import AzureSettings

if TYPE_CHECKING:
    from azure.keyvault.secrets import SecretClient


def make_client(settings: AzureSettings) -> "tuple[SecretClient, Any]":
    """The client and its credential; they have asked nobody yet.

    Raises `AtlasError("plugin.settings")` for settings that cannot be used.
    """
    from azure.keyvault.secrets import SecretClient

    # They tell of each request what it was and what came, and of each error, which is raised too.
    for name in ("azure", "msal"):
        logger = logging.getLogger(name)
        if logger.getEffectiveLevel() < logging.ERROR:
            logger.setLevel(logging.ERROR)
    # What is answered with "later" (429, 503) is not waited for here: the SDK would sleep for as
    # long as the answer says, and hold a thread.
    network: dict[str, Any] = {
        "connection_timeout": settings.connect_timeout.total_seconds(),
        "read_timeout": settings.timeout.total_seconds(),
        "retry_total": settings.attempts - 1,
        "retry_status": 0,
        "retry_backoff_factor": 0.2,
    }
    if settings.ca_file is not None:
        network["connection_verify"] = settings.ca_file
    try:
        credential = _credential(settings, network)
        client = SecretClient(
            settings.vault_url,
            credential,
            verify_challenge_resource=settings.verify_challenge,
            user_agent="atlasd",
            **network,
        )
    except (OSError, ValueError) as error:
        raise AtlasError(
            "plugin.settings",
            f"secrets in Azure: {' '.join(str(error).split())[:300]}",
            hint="look at [secrets.backends.azure]",
        ) from None
    return client, credential


def _credential(settings: AzureSettings, network: dict[str, Any]) -> Any:
    from azure import identity

    common = dict(network)
    if settings.authority is not None:
        common["authority"] = settings.authority
    trusting = {**common, "disable_instance_discovery": not settings.instance_discovery}
    match settings.credential:
        case "client_secret":
            assert settings.client_secret is not None
            return identity.ClientSecretCredential(
                str(settings.tenant_id),
                str(settings.client_id),
                settings.client_secret.get_secret_value(),
                **trusting,
            )
        case "certificate":
            password = settings.certificate_password
            return identity.CertificateCredential(
                str(settings.tenant_id),
                str(settings.client_id),
                settings.certificate,
                password=None if password is None else password.get_secret_value(),
                **trusting,
            )
        case "managed_identity":
            return identity.ManagedIdentityCredential(client_id=settings.client_id, **network)
    return identity.DefaultAzureCredential(
        managed_identity_client_id=settings.client_id, **trusting
    )
