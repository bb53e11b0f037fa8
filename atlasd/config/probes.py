"""Settings of readiness and liveness: how a service shows that it works."""

from atlasd.config.fields import (
    AbsolutePath,
    Command,
    Duration,
    HttpUrl,
    Pattern,
    Section,
    Statuses,
    TcpTarget,
    setting,
)
from atlasd.services import spec

_DEFAULT = spec.Probe(kind="tcp")

PROBING = ("http", "tcp", "exec", "file")
"""Kinds that atlasd asks again and again; the others tell by themselves, or are over at once."""
PROBE_OPTIONS = ("interval", "deadline", "fail_after", "pass_after", "start_period")


class Probing(Section):
    """What readiness and liveness have in common."""

    http: HttpUrl | None = setting(
        None, "URL that is asked; a status in `statuses` passes. http only, no redirects followed."
    )
    tcp: TcpTarget | None = setting(
        None, 'Address that must accept a connection: "HOST:PORT" or "unix:/PATH".'
    )
    exec: Command | None = setting(
        None,
        "Command that is run: exit code 0 passes, 1 warns, any other fails. Until it has passed "
        "once, a warning counts as not ready.",
    )
    file: AbsolutePath | None = setting(None, "Absolute path of a file that must exist.")
    statuses: Statuses = setting(
        _DEFAULT.statuses, 'HTTP statuses that pass, as 200, "200-299" or a list of these.'
    )
    interval: Duration = setting(
        _DEFAULT.interval, "Time from one probe to the next. Duration.", gt=0
    )
    deadline: Duration = setting(
        _DEFAULT.deadline, "Time that a single probe may take. Duration.", gt=0
    )
    fail_after: int = setting(
        _DEFAULT.fail_after, "Failures in a row until the verdict is fail.", ge=1, le=1000
    )
    pass_after: int = setting(
        _DEFAULT.pass_after, "Passes in a row until a fail becomes a pass again.", ge=1, le=1000
    )
    start_period: Duration = setting(
        _DEFAULT.start_period, "Time after the start in which failures are forgiven. Duration."
    )


class Ready(Probing):
    """When an instance counts as running: exactly one kind, and its options.

    Not ready means that it gets no traffic; only not live means that it is restarted.
    """

    log: Pattern | None = setting(
        None, "Regular expression that a line of captured output must contain a match of."
    )
    notify: bool | None = setting(
        None, "true: the program sends READY=1 to $NOTIFY_SOCKET, as for systemd."
    )
    fd: int | None = setting(
        None,
        "Number of the descriptor on which the program writes a newline when it is ready, as for "
        "s6.",
        ge=3,
        le=1023,
    )
    uptime: Duration | None = setting(
        None, "Ready after having lived for this long. Duration.", gt=0
    )
    timeout: Duration | None = setting(
        None,
        "Time from the start until it must be ready, else it is stopped and tried again. "
        "Duration; the same as the service's `start_timeout`.",
        gt=0,
    )


class Live(Probing):
    """A running instance that fails this is restarted: exactly one kind, and its options."""
