"""What is answered about the daemon and its host, and how an error looks."""

from datetime import datetime

from pydantic import Field, RootModel

from atlasd.control.models.base import Model


class Capability(Model):
    """One thing that a host may offer."""

    name: str = Field(description="systemd, cgroup v2, root, pidfd exit info, …")
    available: bool = Field(description="Whether this host offers it.")
    detail: str = Field(default="", description="What was found.")
    reduced: str = Field(default="", description="What atlasd cannot do without it.")
    hint: str = Field(default="", description="How to get it.")


class Doctor(Model):
    """What this host offers, and what is reduced."""

    capabilities: tuple[Capability, ...] = Field(description="In a fixed order.")


class RoleVersion(Model):
    """One running role."""

    version: str = Field(description="Of atlasd's code that it runs.")
    pid: int = Field(description="Its process.")
    since: datetime | None = Field(default=None, description="When it started.")


class Version(Model):
    """Versions of the roles."""

    version: str = Field(description="Of core.")
    python: str = Field(description="Of the interpreter that runs core.")
    core: RoleVersion = Field(description="The role that answers.")
    services: RoleVersion | None = Field(description="The services role; null: it is gone.")


class ShuttingDown(Model):
    """What the daemon is doing as its last."""

    keep_services: bool = Field(description="Whether services run on.")
    services: tuple[str, ...] = Field(default=(), description="Those that are stopped, or kept.")


class Upgraded(Model):
    """The services role after its upgrade."""

    version: str = Field(description="That runs now.")
    pid: int = Field(description="Its process, the same as before.")


class OpenApi(RootModel[dict[str, object]]):
    """An OpenAPI 3.1 document."""


class ErrorBody(Model):
    """What went wrong."""

    code: str = Field(description="Stable and dotted; see the reference of errors.")
    message: str = Field(description="What is wrong, and where.")
    hint: str = Field(default="", description="What to do next.")
    details: dict[str, object] = Field(default_factory=dict, description="For programs.")


class Error(Model):
    """The answer of an operation that failed."""

    error: ErrorBody = Field(description="What went wrong.")
