"""What is answered about plugins, health and checks."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from atlasd.control.models.base import Model, Seconds, Verdict


class Offer(Model):
    """One thing that a plugin supplies."""

    kind: str = Field(description="check type, config source, subscriber, …")
    name: str = Field(description="Under which it is chosen.")
    summary: str = Field(default="", description="One line of help.")


class Plugin(Model):
    """One plugin that was found."""

    name: str = Field(description="Its name.")
    origin: str = Field(description="Distribution, or file.")
    version: str = Field(default="", description="Of the distribution; empty for a drop-in.")
    state: str = Field(description="admitted, refused or failing.")
    reason: str = Field(default="", description="Why it was refused or is failing.")
    offers: tuple[Offer, ...] = Field(default=(), description="What it supplies.")
    failures: int = Field(default=0, description="Failures at work since the start.")


class Plugins(Model):
    """Every plugin that was found."""

    plugins: tuple[Plugin, ...] = Field(description="In the order of their names.")


class HealthCheck(Model):
    """One verdict in a health body."""

    componentId: str | None = Field(default=None, description="Instance or check.")  # noqa: N815
    componentType: str | None = Field(  # noqa: N815
        default=None, description="component, datastore or system."
    )
    observedValue: float | int | str | None = Field(  # noqa: N815
        default=None, description="What was measured."
    )
    observedUnit: str | None = Field(default=None, description="Its unit.")  # noqa: N815
    status: Verdict = Field(description="The verdict.")
    affectedEndpoints: tuple[str, ...] | None = Field(  # noqa: N815
        default=None, description="What cannot be reached."
    )
    time: datetime | None = Field(default=None, description="When it was observed.")
    output: str | None = Field(default=None, description="Why it is not pass.")


class HealthBody(Model):
    """Health in the shape of `application/health+json`."""

    status: Literal["pass", "warn", "fail"] = Field(description="The verdict of all together.")
    version: str | None = Field(default=None, description="atlasd's version.")
    serviceId: str | None = Field(default=None, description="Host or service.")  # noqa: N815
    description: str | None = Field(default=None, description="Whose health this is.")
    notes: tuple[str, ...] | None = Field(default=None, description="What to know beside it.")
    output: str | None = Field(default=None, description="Why it is not pass.")
    checks: dict[str, tuple[HealthCheck, ...]] = Field(
        default_factory=dict, description="Verdicts by `component:measurement`."
    )
    links: dict[str, str] | None = Field(default=None, description="Where to look next.")


class CheckResult(Model):
    """One check's verdict."""

    name: str = Field(min_length=1, max_length=200, description="Name in the configuration.")
    type: str = Field(max_length=100, description="Type of the check: http, tcp, exec, …")
    status: Verdict = Field(description="The verdict.")
    time: datetime = Field(description="When it was observed.")
    service: str | None = Field(
        default=None, max_length=200, description="Service whose health it is part of."
    )
    required: bool = Field(
        default=True, description="Whether it can make its service fail; else at most warn."
    )
    interval_seconds: Seconds | None = Field(
        default=None, description="Time between two runs; after three it counts as unknown."
    )
    duration_seconds: Seconds | None = Field(default=None, description="How long it took.")
    output: str = Field(default="", max_length=10_000, description="What it said.")
    observed_value: float | int | str | None = Field(default=None, description="Measured value.")
    observed_unit: str | None = Field(default=None, max_length=100, description="Its unit.")


class CheckReport(Model):
    """Verdicts from the monitoring role."""

    checks: tuple[CheckResult, ...] = Field(max_length=1000, description="One for each check.")


class Reported(Model):
    """How many verdicts were taken."""

    accepted: int = Field(description="Number of verdicts.")


class Checks(Model):
    """The last verdict of every configured check."""

    checks: tuple[CheckResult, ...] = Field(description="In the order of their names.")
