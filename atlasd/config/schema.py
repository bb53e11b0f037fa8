"""The sections of a configuration, as models: host, api, log, services, checks, plugins."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from atlasd.config.fields import (
    Duration,
    ListenAddress,
    Section,
    Size,
    setting,
    spelled,
)
from atlasd.config.service import Service
from atlasd.config.units import WrongValueError
from atlasd.services import spec

_POLICY = spec.HostPolicy()
_CGROUP = '"auto", "off", or the absolute path of a cgroup v2 folder'


def _cgroup(value: object) -> object:
    if value not in ("auto", "off") and not (isinstance(value, str) and value.startswith("/")):
        raise WrongValueError(_CGROUP)
    return value


class RestartBudget(Section):
    """Restarts after failures that the host as a whole can bear; others wait their turn.

    Starts that somebody or something asked for are not counted.
    """

    rate: float = setting(
        _POLICY.restart_rate, "Restarts a second.", gt=0, le=10000, allow_inf_nan=False
    )
    burst: int = setting(
        _POLICY.restart_burst, "Restarts that may come all at once.", ge=1, le=100000
    )


class Host(Section):
    """What holds for the host as a whole."""

    environment: str | None = setting(
        None,
        "Name of the environment, whose file environments/NAME.toml is laid over the others. "
        "--env and ATLASD_ENV beat it; without any of the three it is production.",
    )
    restart_budget: RestartBudget = setting(
        RestartBudget(), "Host-wide limit for restarts after failures."
    )
    log_budget: Size = setting(
        _POLICY.log_budget,
        "Disk space that captured output may take, all services together. Size.",
        ge=2**20,
    )
    cgroup: Annotated[str, spelled(_cgroup, _CGROUP, "string")] = setting(
        _POLICY.cgroup,
        "Where services get their control groups: auto (what was delegated to atlasd, if "
        "anything), off, or the path of a delegated cgroup v2 folder.",
    )


class Api(Section):
    """The HTTP interface: health, metrics, dashboard."""

    listen: ListenAddress = setting(
        "127.0.0.1:8000", "HOST:PORT that the api role listens on; port 0 takes any free one."
    )


class DaemonLog(Section):
    """What atlasd itself logs; the output of services is `[services.NAME.log]`."""

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "Least severity that is logged."
    )
    format: Literal["auto", "text", "json", "journal"] = setting(
        "auto", "auto: journal under systemd, else text."
    )


class Check(Section):
    """Something that is looked at regularly; further keys are settings of the check's type."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description='Name of a check type, as "http"; see `atlasctl plugins`.')
    interval: Duration = setting(30.0, "Time from one run to the next. Duration.", gt=0)
    deadline: Duration = setting(10.0, "Time that a run may take. Duration.", gt=0)
    service: str | None = setting(None, "Service whose health it is part of.")
    optional: bool = setting(
        False,
        "true: its failure makes the service (or the host) warn, not fail.",
    )
    critical: bool = setting(
        False,
        "true, for a check of no service: its failure makes the host fail, not warn.",
    )


class Plugin(Section):
    """Settings of what a plugin supplies under this name; the plugin says which there are."""

    model_config = ConfigDict(extra="allow")


class Settings(Section):
    """A whole configuration. Checks and plugins keep their own settings in `model_extra`."""

    host: Host = setting(Host(), "What holds for the host as a whole.")
    api: Api = setting(Api(), "The HTTP interface.")
    log: DaemonLog = setting(DaemonLog(), "What atlasd itself logs.")
    services: dict[str, Service] = setting({}, "Programs that are kept running, by name.")
    checks: dict[str, Check] = setting({}, "What is looked at regularly, by name.")
    plugins: dict[str, Plugin] = setting({}, "Settings of plugins, by name.")
