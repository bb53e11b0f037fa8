"""What is asked and answered about secrets; a value stands in two of these shapes only."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from atlasd.control.models.base import Model, Seconds

SecretName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=600,
        description="Name of a secret, after the name of its backend and a slash if that is not "
        "the default one.",
        examples=["prod/db"],
    ),
]
BackendName = Annotated[
    str, Field(max_length=63, description="A secret backend; empty: the default one.")
]
Stage = Literal["current", "previous", "pending"]


class SecretsRequest(Model):
    """Which secrets."""

    prefix: str = Field(default="", max_length=600, description="Only names that begin so.")
    backend: BackendName = ""


class SecretRequest(Model):
    """Which secret."""

    name: SecretName


class SecretKeysRequest(Model):
    """Whose keys."""

    backend: BackendName = ""


class SecretRevealRequest(SecretRequest):
    """Which version of which secret, and what for; it is written to the audit log."""

    version: str = Field(default="", max_length=200, description="Its id; empty: by `stage`.")
    stage: Literal["", "current", "previous", "pending"] = Field(
        default="", description="Empty: current, or what the name says after an @."
    )
    purpose: Literal["get", "export"] = Field(default="get", description="For the audit log.")


class SecretSetRequest(SecretRequest):
    """A new value; exactly one of `value` and `base64`."""

    value: str | None = Field(default=None, repr=False, description="The value, as text.")
    base64: str | None = Field(default=None, repr=False, description="The value, in base64.")
    stage: Stage = Field(default="current", description="The stage that the version gets.")


class SecretRollbackRequest(SecretRequest):
    """To which version."""

    version: str = Field(default="", max_length=200, description="Its id; empty: the previous one.")


class SecretDeleteRequest(SecretRequest):
    """Which secret is deleted, and for how long it can be had back."""

    recovery: Seconds | None = Field(
        default=None,
        le=10 * 366 * 86400,  # ten years: what a duration cannot hold is not a server's error
        description="Seconds for which it can be recovered, 0 for good; null: the backend's own.",
    )
    force: bool = Field(default=False, description="Also when the configuration refers to it.")


class SecretRefreshRequest(SecretRequest):
    """Which secret is fetched now, and why."""

    reason: str = Field(
        default="", max_length=100, description="For the audit log.", examples=["auth_failed"]
    )


class SecretRotateRequest(SecretRequest):
    """Which secret is rotated."""

    force: bool = Field(
        default=False, description="Retire at once what an earlier rotation left valid."
    )


class SecretRotateKeysRequest(SecretKeysRequest):
    """Whose records are wrapped with the primary key."""

    retire: bool = Field(default=True, description="Then drop the keys that nothing needs.")


class SecretImportRequest(SecretKeysRequest):
    """Many values at once."""

    text: str = Field(repr=False, description="A .env file, or a JSON object.")
    format: Literal["env", "json"] = Field(default="env", description="Which of the two.")
    prefix: str = Field(
        default="", max_length=500, description="Put before each name.", examples=["shop/"]
    )
    overwrite: bool = Field(
        default=False, description="Also put those that have another value already."
    )


class SecretExportRequest(SecretKeysRequest):
    """Which values, and in which form; each is written to the audit log."""

    format: Literal["env", "json"] = Field(default="json", description="A .env file, or JSON.")
    prefix: str = Field(
        default="", max_length=500, description="Only names that begin so; it is left off."
    )


class SecretImportedRow(Model):
    """What became of one value."""

    name: str = Field(description="The secret.")
    done: Literal["put", "replaced", "unchanged", "kept"] = Field(
        description="kept: it has another value, and was not to be overwritten."
    )


class SecretsImported(Model):
    """What became of many values."""

    backend: str = Field(description="The backend.")
    secrets: tuple[SecretImportedRow, ...] = Field(description="In the order of names.")


class SecretsExported(Model):
    """Many values."""

    backend: str = Field(description="The backend.")
    count: int = Field(description="How many there are.")
    text: str = Field(repr=False, description="All of them, in the form that was asked for.")


class SecretAuditRequest(Model):
    """Which records of the audit log."""

    limit: int = Field(default=50, ge=1, le=100_000, description="At most this many, the last.")
    name: str = Field(default="", max_length=600, description="Only those about this secret.")
    action: str = Field(
        default="", max_length=40, description="Only those of this action.", examples=["get"]
    )


class Secret(Model):
    """A secret, without any value."""

    name: str = Field(description="Its name.")
    current: str = Field(default="", description="Id of the current version, if that is told.")
    created: datetime | None = Field(default=None, description="When it was first put.")
    changed: datetime | None = Field(default=None, description="When it was last changed.")
    versions: int | None = Field(default=None, description="How many versions there are.")
    deleted: datetime | None = Field(default=None, description="When it was deleted.")
    recoverable_until: datetime | None = Field(
        default=None, description="Until when a deleted one can be had back."
    )
    used: bool = Field(default=False, description="Whether the configuration refers to it.")


class Secrets(Model):
    """Secrets of one backend."""

    backend: str = Field(description="The backend.")
    environment: str = Field(description="The environment; each has its own secrets.")
    secrets: tuple[Secret, ...] = Field(description="In the order of their names.")


class SecretVersionInfo(Model):
    """One version of a secret, without its value."""

    version: str = Field(description="Its id.")
    stages: tuple[str, ...] = Field(default=(), description="current, previous, pending.")
    created: datetime | None = Field(default=None, description="When it was put.")
    created_by: str = Field(default="", description="By whom, where that is known.")
    enabled: bool = Field(default=True, description="Whether it may be used.")
    key: str = Field(default="", description="Id of the key that protects it.")


class SecretVersions(Model):
    """All versions of a secret."""

    backend: str = Field(description="Its backend.")
    name: str = Field(description="Its name.")
    versions: tuple[SecretVersionInfo, ...] = Field(description="The newest first.")
    rotation: str = Field(
        default="", description="The next step of a rotation that is under way: create, …, retire."
    )
    rotation_error: str = Field(default="", description="Why the last rotation failed.")


class SecretPut(SecretVersionInfo):
    """A version that was put."""

    backend: str = Field(description="The backend.")
    name: str = Field(description="The secret.")


class RevealedSecret(SecretPut):
    """A version with its value."""

    value: str | None = Field(repr=False, description="The value, if it is text.")
    base64: str | None = Field(repr=False, description="The value, if it is not.")


class SecretRolledBack(Model):
    """A version that is current again."""

    backend: str = Field(description="The backend.")
    name: str = Field(description="The secret.")
    version: str = Field(description="Its id.")


class SecretState(Secret):
    """A secret after it was deleted or recovered."""

    backend: str = Field(description="The backend.")


class SecretRefreshed(Model):
    """What a forced fetch came to."""

    backend: str = Field(description="The backend.")
    name: str = Field(description="The secret.")
    fetched: bool = Field(description="False while it was fetched only just now.")
    changed: bool = Field(description="Whether it is another version than before.")
    version: str = Field(description="The version that is in use now.")
    wait_seconds: Seconds = Field(description="Until it can be forced again.")


class SecretKey(Model):
    """A key of a key ring; never the key itself."""

    backend: str = Field(description="Whose ring it is in.")
    id: str = Field(description="Its fingerprint; empty where there is no key.")
    primary: bool = Field(description="Whether it is the one that encrypts.")
    source: str = Field(description="Where it was read.")
    warning: str = Field(default="", description="What is wrong with it, or weak about it.")
    records: int = Field(default=0, description="How many records it protects.")


class SecretKeys(Model):
    """A key ring."""

    keys: tuple[SecretKey, ...] = Field(description="The primary one first.")


class SecretKeyProgress(Model):
    """How far a re-wrapping has come."""

    done: int = Field(description="Records that the primary key protects.")
    total: int = Field(description="All records.")
    retired: tuple[str, ...] = Field(default=(), description="Ids of the keys that were dropped.")
    finished: bool = Field(description="True in the last line.")


class SecretRotationStep(Model):
    """A step of a rotation that was done."""

    backend: str = Field(description="The backend.")
    name: str = Field(description="The secret.")
    step: str = Field(description="retire, create, set, test, promote.")
    version: str = Field(description="Id of the version that it was about.")


class SecretReached(Model):
    """Something that a change of a secret touches."""

    kind: str = Field(description="service, check, plugin, backend or setting.")
    name: str = Field(description="Its name.")
    keys: tuple[str, ...] = Field(description="The settings that refer to the secret.")
    effect: str = Field(default="", description="What is done with it then.")


class SecretImpact(Model):
    """Everything that a change of a secret touches."""

    backend: str = Field(description="The backend.")
    name: str = Field(description="The secret.")
    reached: tuple[SecretReached, ...] = Field(description="Services first.")


class CheckedSecret(Model):
    """A secret that the configuration refers to, and whether it can be had."""

    reference: str = Field(description="As `secret://db#password`.")
    backend: str = Field(description="The backend.")
    version: str = Field(default="", description="The version that is in use.")
    fetched: datetime | None = Field(default=None, description="When it was fetched.")
    state: str = Field(description="ok, stale, or the code of the error.")
    error: str = Field(default="", description="Why it cannot be had.")
    hint: str = Field(default="", description="What to do about it.")
    keys: tuple[str, ...] = Field(description="The settings that refer to it.")


class SecretsChecked(Model):
    """Every secret that the configuration refers to, and the keys."""

    environment: str = Field(description="The environment.")
    backend: str = Field(description="The default backend.")
    secrets: tuple[CheckedSecret, ...] = Field(description="Each reference once.")
    keys: tuple[SecretKey, ...] = Field(description="Of every backend that has a key ring.")


class SecretAuditRecord(Model):
    """One record of the audit log."""

    seq: int = Field(description="Number, from 1.")
    time: datetime = Field(description="When.")
    action: str = Field(description="read, get, set, delete, rotate-promote, …")
    name: str = Field(default="", description="The secret.")
    backend: str = Field(default="", description="Its backend.")
    version: str = Field(default="", description="Its version.")
    environment: str = Field(default="", description="Its environment.")
    actor: str = Field(default="", description="Who: `uid:0`, a role, `schedule`.")
    pid: int | None = Field(default=None, description="The process that asked.")
    consumer: str = Field(default="", description="What the value was for.")
    outcome: str = Field(default="", description="done, stale, begun, or an error's code.")
    reason: str = Field(default="", description="More about that.")
    prev: str = Field(default="", description="Code of the record before.")
    mac: str = Field(default="", description="Code of this record.")


class SecretAudit(Model):
    """Records of the audit log."""

    file: str = Field(description="Where the log is.")
    records: tuple[SecretAuditRecord, ...] = Field(description="The oldest first.")


class SecretAuditVerified(Model):
    """Whether the audit log is what was written."""

    file: str = Field(description="Where the log is.")
    records: int = Field(description="How many there are.")
    last: datetime | None = Field(default=None, description="When the last one was written.")
    problems: tuple[str, ...] = Field(description="What was changed, taken out, moved or cut.")
