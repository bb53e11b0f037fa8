"""What is asked of the store, checked, and what it answers, made of its rows."""

import re
from datetime import UTC, datetime

from atlasd.contracts.secrets import STAGES, SecretInfo, SecretValue, SecretVersion
from atlasd.errors import AtlasError
from atlasd_plugins.secrets_fernet.envelope import Record
from atlasd_plugins.secrets_fernet.records import Secret

MOST_NAME = 512
_NAME = re.compile(r"[A-Za-z0-9_.+=-]+(?:/[A-Za-z0-9_.+=-]+)*")


def not_found(message: str, *, hint: str = "") -> AtlasError:
    """The error for what there is not."""
    return AtlasError(
        "secret.not_found", message, hint=hint or "`atlasctl secret list` shows what there is"
    )


def check_name(name: str) -> None:
    """Raise `secret.invalid` for a name that no secret can have."""
    segments = name.split("/")
    if not _NAME.fullmatch(name) or len(name) > MOST_NAME or {".", ".."} & {*segments}:
        raise AtlasError(
            "secret.invalid",
            f"a secret cannot be called {name[:80]!r}",
            hint=f"letters, digits and _ . + = - in parts with / between them, none of them . or "
            f".., {MOST_NAME} characters at most",
        )


def check_stage(stage: str) -> None:
    """Raise `secret.invalid` for a stage that there is not."""
    if stage not in STAGES:
        raise AtlasError(
            "secret.invalid",
            f"there is no stage {stage!r}",
            hint=f"the stages are {', '.join(STAGES)}",
        )


def number(name: str, version: str) -> int:
    """The number of a version by its id. Raises `secret.not_found` for what is no id."""
    # Nothing but the usual spelling: `01` or `+1` is no version's id.
    if not re.fullmatch(r"[1-9][0-9]{0,17}", version):
        raise not_found(f"secret {name!r} has no version {version!r}")
    return int(version)


def time(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, tz=UTC)


def clock(seconds: float | None) -> str:
    """Seconds since the epoch as a person reads them: `2026-11-25 20:18:20 UTC`."""
    at = time(seconds)
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def shown(secret: Secret, record: Record, value: SecretValue | None = None) -> SecretVersion:
    """A version, as it is answered."""
    return SecretVersion(
        name=secret.name,
        version=str(record.place.number),
        stages=secret.stages_of(record.place.number),
        created=record.time,
        created_by=record.created_by,
        key=record.key_fingerprint,
        value=value,
    )


def info(secret: Secret, count: int) -> SecretInfo:
    """A secret with so many versions, as it is answered."""
    return SecretInfo(
        name=secret.name,
        current="" if secret.current is None else str(secret.current),
        created=time(secret.created),
        changed=time(secret.changed),
        versions=count,
        deleted=time(secret.deleted),
        recoverable_until=time(secret.recoverable_until),
    )
