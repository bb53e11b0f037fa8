"""What is asked: of services, logs, events and the daemon."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from atlasd.control.models.base import Index, Model, ServiceName, moment


class ServiceRequest(Model):
    """Which service."""

    service: ServiceName


class InstanceRequest(ServiceRequest):
    """Which service, and which of its instances."""

    instance: Index | None = Field(default=None, description="One instance; null: all of them.")


class SignalRequest(InstanceRequest):
    """Which signal goes to which instances."""

    signal: str = Field(
        max_length=32,
        pattern=r"^(SIG)?[A-Z][A-Z0-9+]*$|^[0-9]{1,2}$",
        description="Name, with or without SIG, or number.",
        examples=["HUP", "USR1"],
    )


class ScaleRequest(ServiceRequest):
    """How many instances a service is to have."""

    instances: int = Field(ge=0, le=1000, description="Wanted number of instances.")


class WhyRequest(ServiceRequest):
    """Whose story, and how much of it."""

    limit: int = Field(default=20, ge=1, le=1000, description="At most this many past events.")


class _LogFilter(Model):
    """Which output is wanted."""

    follow: bool = Field(default=False, description="Go on with new lines as they come.")
    since: Annotated[datetime, BeforeValidator(moment)] | None = Field(
        default=None,
        description="Only lines since then: `10m`, or an ISO 8601 time.",
        examples=["10m", "2026-11-23T17:44:43Z"],
        json_schema_extra={"format": ""},
    )
    grep: str | None = Field(
        default=None, max_length=500, description="Only lines in which this regular expression is."
    )
    lines: int | None = Field(
        default=None,
        ge=0,
        le=10_000_000,
        description="At most this many past lines, the last ones; null: all.",
    )
    stream: Literal["stdout", "stderr"] | None = Field(
        default=None, description="One of the two streams; null: both."
    )
    instance: Index | None = Field(default=None, description="One instance; null: all of them.")

    @field_validator("grep")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except (re.error, OverflowError, RecursionError) as fault:
                raise ValueError(f"not a regular expression: {fault}") from None
        return value


class LogsRequest(_LogFilter):
    """Which output of which services."""

    service: tuple[ServiceName, ...] = Field(
        default=(), max_length=100, description="Services, repeated for several; none: all."
    )


class ServiceLogsRequest(_LogFilter):
    """Which output of one service."""

    service: ServiceName


class EventsRequest(Model):
    """Which events."""

    follow: bool = Field(default=False, description="Go on with new events as they happen.")
    since: int | None = Field(
        default=None, ge=0, description="Only events with this `seq` or a later one."
    )
    limit: int | None = Field(
        default=None, ge=0, le=100_000, description="At most this many past events, the last ones."
    )
    service: ServiceName | None = Field(default=None, description="Only events of this service.")
    kind: str | None = Field(default=None, max_length=64, description="Only events of this kind.")


class ShutdownRequest(Model):
    """How the daemon is to end."""

    keep_services: bool = Field(
        default=False, description="Leave the services running; the next daemon adopts them."
    )


class UpgradeRequest(Model):
    """To which program."""

    executable: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="Python interpreter of the new atlasd; null: the one that runs now.",
    )
