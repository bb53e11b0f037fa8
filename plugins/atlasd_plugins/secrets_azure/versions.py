"""Versions and values, from Key Vault's form into ours and back."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from atlasd.contracts.secrets import STAGES, SecretValue, SecretVersion
from atlasd.errors import AtlasError
from atlasd_plugins.secrets_azure.faults import Question
from atlasd_plugins.secrets_azure.stages import Seen

if TYPE_CHECKING:
    from azure.keyvault.secrets import SecretProperties

ACTOR = "atlasd-actor"
"""Tag that says who has put a version."""
BINARY = "application/octet-stream;base64"
"""Content type of values that are no text; Key Vault keeps nothing else."""
MOST_VALUE = 25 * 1024
"""Bytes, after encoding."""


@dataclass(frozen=True, kw_only=True)
class Version(Seen):
    """A version, with what Key Vault tells of all of them."""

    not_before: datetime | None
    expires: datetime | None
    updated: datetime | None
    recovery_level: str
    recoverable_days: int | None


def content_of(question: Question, value: SecretValue) -> tuple[str, str | None]:
    """A value as Key Vault takes it: text, and its type if it is not the text that was meant."""
    content_type = None
    try:
        text = value.text()
    except ValueError:
        text, content_type = base64.b64encode(value.reveal()).decode(), BINARY
    size = len(text.encode())
    if not 0 < size <= MOST_VALUE:
        raise AtlasError(
            "secret.invalid",
            f"{question.subject}: Azure keeps values of 1 to {MOST_VALUE} bytes, and this one "
            f"takes {size}{' in base64' if content_type else ''}",
        )
    return text, content_type


def value_of(question: Question, text: str, content_type: str | None) -> SecretValue:
    """The value that was put. Raises `secret.corrupt` for base64 that is none."""
    if content_type != BINARY:
        return SecretValue(text)
    try:
        return SecretValue(base64.b64decode(text, validate=True))
    except ValueError:
        raise AtlasError(
            "secret.corrupt", f"{question.subject} says that it is base64, and is not"
        ) from None


def version_of(found: "SecretProperties") -> Version:
    """A version as the SDK tells it."""
    level = found.recovery_level
    return Version(
        id=found.version or "",
        created=time_of(found.created_on) or datetime.fromtimestamp(0, tz=UTC),
        tags=found.tags or {},
        enabled=found.enabled is not False,
        not_before=time_of(found.not_before),
        expires=time_of(found.expires_on),
        updated=time_of(found.updated_on),
        # An enum where the SDK knows the word, else the word.
        recovery_level=str(getattr(level, "value", level) or ""),
        recoverable_days=found.recoverable_days,
    )


def shown(
    question: Question,
    version: Version,
    stages: Mapping[str, str],
    *,
    value: SecretValue | None = None,
) -> SecretVersion:
    """A version as the contract tells it, with its value if there is one."""
    return SecretVersion(
        name=question.name,
        version=version.id,
        stages=tuple(stage for stage in STAGES if stages.get(stage) == version.id),
        created=version.created,
        created_by=version.tags.get(ACTOR, ""),
        enabled=version.enabled,
        value=value,
    )


def foreign_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that are not for atlasd's own use."""
    return {name: text for name, text in tags.items() if not name.startswith("atlasd-")}


def time_of(value: datetime | None) -> datetime | None:
    """A time in UTC, if there is one."""
    return None if value is None else value.astimezone(UTC)
