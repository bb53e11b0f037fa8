"""Settings of `[secrets.backends.aws]`."""

import re
from datetime import timedelta
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, model_validator

from atlasd.contracts.settings import Duration, Settings

NAME = re.compile(r"[A-Za-z0-9/_+=.@-]+")
"""What names in AWS are made of."""


def _prefix(text: str) -> str:
    plain = text.replace("{environment}", "")
    if plain and not NAME.fullmatch(plain):
        raise ValueError(
            "expected letters, digits and /_+=.@- of which names in AWS are made, "
            "and perhaps {environment}"
        )
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    # Values would be read by everybody on the way; on the machine itself there is none.
    at_home = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if not parts.hostname or parts.scheme not in {"https", "http" if at_home else "https"}:
        raise ValueError("expected a URL that begins with https:// and names a host")
    return text


class AwsSettings(Settings):
    """Settings of AWS Secrets Manager.

    Without credentials among them the usual ones are found: environment, shared files, the role
    of the container or of the machine.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    region: str | None = Field(
        default=None,
        description="AWS region. Without it AWS_REGION, or what the profile says.",
        examples=["eu-central-1"],
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="{environment}/",
        description="What the names in AWS begin with. {environment} is the one in force; without "
        "it all environments share their secrets.",
    )
    kms_key_id: str | None = Field(
        default=None,
        description="KMS key for secrets that atlasd makes. Without it the account's "
        "aws/secretsmanager.",
    )
    profile: str | None = Field(
        default=None, description="Profile of the shared AWS files to take credentials from."
    )
    access_key_id: str | None = Field(
        default=None, description="Access key, where credentials cannot come from elsewhere."
    )
    secret_access_key: SecretStr | None = Field(
        default=None,
        description="The secret of access_key_id; a reference, such as ${file:/run/keys/aws}.",
    )
    role_arn: str | None = Field(
        default=None, description="Role to assume with the credentials that were found."
    )
    external_id: str | None = Field(default=None, description="External id that the role asks for.")
    endpoint_url: Annotated[str, AfterValidator(_url)] | None = Field(
        default=None, description="Address to ask instead of the region's, as of a VPC endpoint."
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
        description="Times that the SDK tries a call; atlasd itself waits and tries again later.",
    )

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key are given together")
        return self
