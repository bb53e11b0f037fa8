"""A boto3 client of Secrets Manager, as the settings describe it."""

import logging
from typing import TYPE_CHECKING, Any

from atlasd_plugins.secrets_aws.settings import AwsSettings

if TYPE_CHECKING:
    import botocore.session
    from botocore.config import Config


def make_client(settings: AwsSettings) -> Any:
    """The client; it has asked nobody yet. Raises what botocore raises, if there is no region."""
    import boto3
    import botocore.session
    from botocore.config import Config

    # At its lowest level botocore logs whole requests and answers, values included.
    for name in ("boto3", "botocore"):
        logger = logging.getLogger(name)
        if logger.getEffectiveLevel() < logging.INFO:
            logger.setLevel(logging.INFO)
    config = Config(
        connect_timeout=settings.connect_timeout.total_seconds(),
        read_timeout=settings.timeout.total_seconds(),
        retries={"total_max_attempts": settings.attempts, "mode": "standard"},
        user_agent_extra="atlasd",
    )
    core = botocore.session.Session(profile=settings.profile)
    if settings.access_key_id is not None and settings.secret_access_key is not None:
        core.set_credentials(settings.access_key_id, settings.secret_access_key.get_secret_value())
    if settings.role_arn is not None:
        _take_role(core, settings, config)
    session = boto3.session.Session(botocore_session=core, region_name=settings.region)
    return session.client("secretsmanager", endpoint_url=settings.endpoint_url, config=config)


def _take_role(core: "botocore.session.Session", settings: AwsSettings, config: "Config") -> None:
    """Let a session work with the credentials of a role, fetched and renewed when needed."""
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.exceptions import NoCredentialsError

    source = core.get_credentials()
    if source is None:
        raise NoCredentialsError

    def sts(service: str, **credentials: Any) -> Any:
        return core.create_client(
            service, region_name=settings.region, config=config, **credentials
        )

    extra = {"RoleSessionName": "atlasd"}
    if settings.external_id is not None:
        extra["ExternalId"] = settings.external_id
    fetcher = AssumeRoleCredentialFetcher(sts, source, settings.role_arn, extra_args=extra)
    # botocore has no public way to this: `set_credentials` takes only keys that stay as they are.
    core._credentials = DeferredRefreshableCredentials(  # noqa: SLF001
        refresh_using=fetcher.fetch_credentials, method="assume-role"
    )
