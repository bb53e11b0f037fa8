"""Settings of `[secrets.backends.azure]`."""

from datetime import timedelta
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, model_validator

from atlasd.contracts.settings import Duration, Settings


def _https(text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = parts.scheme == "https" and parts.hostname and parts.path in {"", "/"}
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("expected a URL such as https://shop.vault.azure.net")
    return text.rstrip("/")


NEEDS = {
    "client_secret": ("tenant_id", "client_id", "client_secret"),
    "certificate": ("tenant_id", "client_id", "certificate"),
}
"""What each kind of credential cannot do without."""


class AzureSettings(Settings):
    """Settings of Azure Key Vault."""

    model_config = ConfigDict(hide_input_in_errors=True)

    vault_url: Annotated[str, AfterValidator(_https)] = Field(
        description="Address of the vault.", examples=["https://shop.vault.azure.net"]
    )
    prefix: str = Field(
        default="{environment}/",
        description="What the names begin with, before they are made names of Key Vault. "
        "{environment} is the one in force. Empty for a vault of its own for each environment.",
    )
    credential: Literal["default", "managed_identity", "client_secret", "certificate"] = Field(
        default="default",
        description="How atlasd proves who it is. default: environment variables, workload "
        "identity, managed identity, the tools of a developer, whichever there is.",
    )
    tenant_id: str | None = Field(
        default=None, description="Tenant of the application, for client_secret and certificate."
    )
    client_id: str | None = Field(
        default=None,
        description="The application, or the managed identity if there are several.",
    )
    client_secret: SecretStr | None = Field(
        default=None,
        description="Secret of the application; a reference, such as ${file:/run/keys/azure}.",
    )
    certificate: str | None = Field(
        default=None, description="File of the application's certificate and key, PEM or PKCS 12."
    )
    certificate_password: SecretStr | None = Field(
        default=None, description="Password of that file; a reference."
    )
    authority: Annotated[str, AfterValidator(_https)] | None = Field(
        default=None,
        description="Who gives tokens, in clouds other than the public one.",
        examples=["https://login.microsoftonline.us"],
    )
    instance_discovery: bool = Field(
        default=True,
        description="Whether Microsoft is asked about the authority. false for Azure Stack and "
        "other clouds without a way there.",
    )
    verify_challenge: bool = Field(
        default=True,
        description="Whether the vault must ask for tokens of its own domain. false for a vault "
        "behind another name.",
    )
    ca_file: str | None = Field(
        default=None, description="PEM file of the authorities to trust instead of the usual ones."
    )
    connect_timeout: Duration = Field(
        default=timedelta(seconds=3),
        gt=timedelta(0),
        description="Time that connecting may take. Duration.",
    )
    timeout: Duration = Field(
        default=timedelta(seconds=5),
        gt=timedelta(0),
        description="Time that an answer may take. Duration.",
    )
    attempts: int = Field(
        default=2,
        ge=1,
        le=10,
        description="Times that reading is tried when a connection fails; atlasd itself waits and "
        "tries again later.",
    )

    @model_validator(mode="after")
    def _credential_is_whole(self) -> Self:
        needed = NEEDS.get(self.credential, ())
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f'credential "{self.credential}" needs {" and ".join(missing)}')
        for name in ("client_secret", "certificate"):
            if name not in needed and getattr(self, name) is not None:
                raise ValueError(f'{name} is used with credential = "{name}"')
        return self
