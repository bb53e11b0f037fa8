"""The sections of a configuration, as models: host, api, log, secrets, settings and so on."""

import warnings
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from atlasd.config.fields import (
    Command,
    Duration,
    FilePath,
    FilePaths,
    ListenAddress,
    Section,
    Size,
    setting,
    spelled,
)
from atlasd.config.jobs import Jobs
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
    watch_config: bool = setting(
        True,
        "true: a change of the configuration's files is read at once, and what needs no restart "
        "takes over; all else waits for `atlasctl apply`. false: nothing is read until it is said.",
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


class SecretBackend(Section):
    """A place where secrets are kept; further keys are settings of the backend's type."""

    model_config = ConfigDict(extra="allow")

    type: str | None = setting(
        None, "Name of a backend type; without it the table's own name. See `atlasctl plugins`."
    )


class Rotation(Section):
    """How one secret is rotated: create, set, test, promote, retire."""

    rotator: str | None = setting(
        None, "Name of a rotator that a plugin supplies; without it the commands below are run."
    )
    create: Command | None = setting(
        None, "Command that prints the new value; without it `length` random characters."
    )
    length: int = setting(32, "Characters of a random value, letters and digits.", ge=16, le=4096)
    set: Command | None = setting(
        None, "Command that has the system accept the new value, which it reads from its input."
    )
    test: Command | None = setting(
        None,
        "Command that proves the new value, which it reads from its input; without success "
        "the current value stays.",
    )
    retire: Command | None = setting(
        None, "Command that has the system refuse the old value, which it reads from its input."
    )
    overlap: Duration = setting(
        3600.0, "Time for which the previous value still works after a promotion. Duration."
    )
    every: Duration | None = setting(
        None, "Time from one rotation to the next; without it only when asked. Duration.", gt=0
    )
    timeout: Duration = setting(60.0, "Time that a command may take. Duration.", gt=0)


class Secrets(Section):
    """Where secrets are kept, and how long a fetched one may be used."""

    backend: str = setting("fernet", "Backend of a reference that names none.")
    fresh_for: Duration = setting(
        300.0, "Time after which a value is fetched again, varied by a tenth. Duration.", gt=0
    )
    max_stale: Duration = setting(
        86400.0,
        "Age up to which a value is used while its backend does not answer. Duration.",
    )
    revocation_grace: Duration = setting(
        0.0, "Time for which a value is used after it was deleted, disabled or denied. Duration."
    )
    fail_closed: bool = setting(
        False, "true: no secret is handed out that cannot be entered in the audit log."
    )
    backends: dict[str, SecretBackend] = setting(
        {}, "Backends by name; those without settings need no table."
    )
    rotate: dict[str, Rotation] = setting({}, "How secrets are rotated, by their names.")


with warnings.catch_warnings():
    # `schema` is what operators call it; pydantic's own method of that name is long deprecated.
    warnings.simplefilter("ignore")

    class SettingsSet(Section):
        """Settings of an application, typed and validated; services are given them by name."""

        files: FilePaths = setting(
            (),
            "Files of settings, a later one beats an earlier one; {environment} is the one in "
            "force. One that starts with - need not exist.",
        )
        dialect: Literal["bash", "docker", "compose", "systemd"] = setting(
            "bash", "How .env files among them are read."
        )
        values: dict[str, Any] = setting({}, "Settings that beat those of the files.", repr=False)
        operators: bool = setting(
            True,
            "true: keys of the files that end in + or - append to lists and remove from them; "
            "false: they are keys like any other.",
        )
        schema: str | None = setting(  # type: ignore[assignment]
            None,
            "JSON Schema (a path), or a pydantic model, as `shop.settings:Settings`.",
        )
        python: FilePath | None = setting(
            None, "Python interpreter in which a pydantic model is loaded; without it atlasd's own."
        )
        env_prefix: str = setting(
            "", "What the names of its environment variables begin with, as `SHOP_`."
        )
        variables: dict[str, str] = setting(
            {},
            "Further environment variables, and those that a .env file calls otherwise: each name "
            'with the key of its setting, as PGHOST = "db.host".',
        )
        check: Command | None = setting(
            None,
            "Command that vets the settings, which it reads as JSON from its input; another exit "
            "code than 0 refuses the change.",
        )


class Plugin(Section):
    """Settings of what a plugin supplies under this name; the plugin says which there are."""

    model_config = ConfigDict(extra="allow")


class Settings(Section):
    """A whole configuration. Checks and plugins keep their own settings in `model_extra`."""

    host: Host = setting(Host(), "What holds for the host as a whole.")
    api: Api = setting(Api(), "The HTTP interface.")
    log: DaemonLog = setting(DaemonLog(), "What atlasd itself logs.")
    secrets: Secrets = setting(Secrets(), "Where secrets are kept.")
    settings: dict[str, SettingsSet] = setting({}, "Settings of applications, by name.")
    jobs: Jobs = setting(Jobs(), "The queue of jobs.")
    services: dict[str, Service] = setting({}, "Programs that are kept running, by name.")
    checks: dict[str, Check] = setting({}, "What is looked at regularly, by name.")
    plugins: dict[str, Plugin] = setting({}, "Settings of plugins, by name.")
