"""What a service is: the frozen specification that core resolves and the services role runs."""

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass

from atlasd.services import delivery

CONDITIONS = ("started", "ready", "healthy", "completed")
EDGE_KINDS = ("requires", "wants", "after")
READY_KINDS = ("notify", "fd", "tcp", "http", "exec", "log", "file", "uptime")
LIVE_KINDS = ("tcp", "http", "exec", "file")
ON_CHANGE = ("restart", "reload", "signal", "swap", "none")
LIVE_WAYS = delivery.LIVE_WAYS
SECRETS_DIR = delivery.FOLDER
DELIVERIES = ("file", "fd", "env")
RELOAD_KINDS = ("none", "signal", "exec", "notify")
KILL_MODES = ("mixed", "control-group", "process", "none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """A dependency: `service` must have met `condition` before the owner starts.

    `requires` starts it too and fails if it fails; `wants` starts it too; `after` only orders.
    """

    service: str
    kind: str = "requires"
    condition: str = "started"


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """Delays between restarts, in seconds; see `atlasd.services.restart.delay`."""

    base: float = 1.0
    factor: float = 2.0
    cap: float = 60.0
    jitter: float = 0.1
    """Fraction: a delay is multiplied by a uniform value in [1 - jitter, 1 + jitter]."""
    stable_for: float = 10.0
    """Ready and alive for this long: the count of consecutive failures starts anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Restart:
    """When a finished instance is started again."""

    policy: str = "on-failure"
    """on-failure | always | never"""
    backoff: Backoff = field(default_factory=Backoff)
    limit_count: int | None = None
    """At most this many failures within `limit_window` seconds; null: no limit."""
    limit_window: float = 600.0
    on_limit: str = "keep-trying"
    """keep-trying (at the cap) | fail"""
    success_codes: tuple[int, ...] = (0,)
    no_restart_codes: tuple[int, ...] = ()
    config_error_codes: tuple[int, ...] = (78,)
    """Exit codes that no restart heals (sysexits EX_CONFIG): failed at once."""
    success_signals: tuple[str, ...] = ()
    """Signals that count as a success when the process died of them unasked, as `TERM`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A readiness or liveness probe; times in seconds."""

    kind: str
    target: str = ""
    """URL (http), `host:port` or `unix:/path` (tcp), regular expression (log), path (file)."""
    command: tuple[str, ...] = ()
    """For exec: exit 0 pass, 1 warn, other fail (Nagios, Consul)."""
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)
    """For http: inclusive ranges of statuses that pass."""
    interval: float = 10.0
    deadline: float = 2.0
    fail_after: int = 3
    pass_after: int = 2
    start_period: float = 0.0
    """Failures within this time after the start are forgiven."""
    seconds: float = 0.0
    """For uptime: ready after this long."""
    fd: int = 3
    """For fd (s6): the descriptor on which the program writes a newline when it is ready."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """How an instance is ended; times in seconds."""

    signal: str = "TERM"
    timeout: float = 15.0
    escalation: tuple[tuple[str, float], ...] = ()
    """Further (signal, seconds to wait) steps before the final KILL."""
    kill_mode: str = "mixed"
    """mixed: signal to the main process, KILL to the rest | control-group: signals to all |
    process: main process only | none: signal, never KILL"""
    drain: tuple[str, ...] = ()
    """Command that is run first, for `drain_timeout` at most."""
    drain_timeout: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Reload:
    """How a running instance is told to read its configuration again."""

    kind: str = "none"
    signal: str = "HUP"
    command: tuple[str, ...] = ()
    timeout: float = 30.0
    """For notify (RELOADING=1, then READY=1) and exec: it must be done by then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Resource limits; null leaves what atlasd itself has."""

    memory: int | None = None
    """Bytes; needs a cgroup with the memory controller."""
    cpu: float | None = None
    """Cores; needs a cgroup with the cpu controller."""
    tasks: int | None = None
    """Processes and threads; needs a cgroup with the pids controller."""
    nofile: int | None = None
    nproc: int | None = None
    core: int | None = None
    fsize: int | None = None
    stack: int | None = None
    address_space: int | None = None
    memlock: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Socket:
    """A listening socket that the services role opens, keeps and passes on (LISTEN_FDS)."""

    name: str
    address: str
    """tcp://host:port, udp://host:port, unix:///path, or unixgram:///path"""
    backlog: int = 1024
    mode: int = 0o660
    """Of a unix socket's file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """A command that is run beside the service; a failing pre_start fails the start."""

    command: tuple[str, ...]
    timeout: float = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """What becomes of captured output."""

    max_size: int = 10 * 1024 * 1024
    """Bytes; a file that reaches it is rotated."""
    max_age: float = 7 * 86400.0
    """Seconds; rotated files older than this are removed, and a current file is rotated daily."""
    max_files: int = 10
    compress: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """Something that is handed to the program beside its configured environment.

    `file`: written 0400 below a folder of the service's own on tmpfs, its path told in the
    variable NAME_FILE; `fd`: a sealed memfd, its number in NAME_FD; `env`: the variable NAME.
    """

    name: str
    """Variable that it is told by, without the suffix: `DB_PASSWORD`."""
    kind: str = "file"
    """file | fd | env"""
    path: str = ""
    """Of a file: its name within the service's folder; empty: `name`."""
    content: str = field(default="", repr=False)
    """The bytes in base64."""
    secret: bool = True
    """Whether the content is itself one secret (a rendered file of settings is not)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownSecret:
    """A value that must not show in the service's captured output."""

    name: str
    """What is written in its place: `[secret:NAME]`."""
    value: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class OnChange:
    """What is done when only deliveries have changed, one instance after the other."""

    kind: str = "restart"
    """restart | reload | signal | swap (files are exchanged, nobody is told) | none (the next
    start has it)"""
    signal: str = "HUP"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceSpec:
    """One service, fully resolved: nothing in it refers to a file that core has to read."""

    name: str
    command: tuple[str, ...]
    type: str = "simple"
    """simple | oneshot"""
    instances: int = 1
    enabled: bool = True
    """False: known, but wanted down until somebody starts it."""
    edges: tuple[Edge, ...] = ()
    restart_with: tuple[str, ...] = ()
    """Services with whose restarts this one is restarted too."""
    sockets: tuple[Socket, ...] = ()
    ready: Probe | None = None
    start_timeout: float = 60.0
    min_uptime: float | None = None
    """Seconds a process must live before it counts as running. Null: 1, or 0 where a readiness
    is declared, which says more than any uptime."""
    live: Probe | None = None
    watchdog: float | None = None
    """Seconds within which the program must send WATCHDOG=1."""
    restart: Restart = field(default_factory=Restart)
    stop: Stop = field(default_factory=Stop)
    reload: Reload = field(default_factory=Reload)
    limits: Limits = field(default_factory=Limits)
    log: Log = field(default_factory=Log)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The whole environment of the program, secrets included: never logged."""
    deliveries: tuple[Delivery, ...] = field(default=(), repr=False)
    on_change: OnChange = field(default_factory=OnChange)
    secrets: tuple[KnownSecret, ...] = field(default=(), repr=False)
    """What its output is searched for: every secret that it is given, whatever the way."""
    inherited: tuple[str, ...] = ()
    """Names in `env` whose values are the daemon's own: a new process gets what they are then, but
    that atlasd was started from another shell is no reason to restart one."""
    cwd: str = "/"
    user: str | None = None
    group: str | None = None
    umask: int | None = None
    nice: int | None = None
    no_new_privs: bool = False
    pre_start: tuple[Hook, ...] = ()
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    post_stop: tuple[Hook, ...] = ()
    critical: bool = False

    def digest(self) -> str:
        """Digest of what only a new process can have: `RESTART_FIELDS`."""
        return _digest(self)

    def changed(self, other: "ServiceSpec") -> tuple[str, ...]:
        """Names of the fields in which the two differ, in the order of declaration."""
        differ = (f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name))
        same_env = self.own_env() == other.own_env()
        return tuple(n for n in differ if not (same_env and n in ("env", "inherited")))

    def own_env(self) -> dict[str, str]:
        """The environment without what is inherited from the daemon."""
        return {name: value for name, value in self.env.items() if name not in self.inherited}


RESTART_FIELDS = (
    "command",
    "type",
    "sockets",
    "env",
    "cwd",
    "user",
    "group",
    "umask",
    "nice",
    "no_new_privs",
    "watchdog",
)
"""Fields of `ServiceSpec` that only a new process can have; so are the limits that are rlimits,
a readiness or reload of kind notify or fd, which the program is told of in its environment, and
which files and descriptors it is handed, but not what is in them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostPolicy:
    """What holds for all services of the host together."""

    restart_rate: float = 10.0
    """Restarts after failures per second, host-wide."""
    restart_burst: int = 50
    log_budget: int = 1024 * 1024 * 1024
    """Bytes that captured output may take on disk, all services together."""
    cgroup: str = "auto"
    """auto | off | a cgroup v2 folder that was delegated to atlasd"""


def _digest(spec: ServiceSpec) -> str:
    body = {name: _plain(getattr(spec, name)) for name in RESTART_FIELDS}
    body["env"] = spec.own_env()
    limits = _plain(spec.limits)
    assert isinstance(limits, dict)
    body["rlimits"] = {k: v for k, v in limits.items() if k not in ("memory", "cpu", "tasks")}
    if spec.ready is not None and spec.ready.kind in ("notify", "fd"):
        body["ready"] = [spec.ready.kind, spec.ready.fd]
    if spec.reload.kind == "notify":  # it must have been told where to speak
        body["reload"] = spec.reload.kind
    if shape := delivery.shape(spec.deliveries):
        body["deliveries"] = shape
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def to_wire(value: ServiceSpec | HostPolicy) -> dict[str, object]:
    """The value as JSON-able material; `spec_from_wire` and `policy_from_wire` read it back."""
    plain = _plain(value)
    assert isinstance(plain, dict)
    return plain


def spec_from_wire(body: Mapping[str, object]) -> ServiceSpec:
    """The specification that `to_wire` wrote.

    Fields that are missing take their defaults, unknown ones are passed over, so that two
    versions of atlasd can read each other. Raises `ValueError` for a wrong shape.
    """
    spec = _build(ServiceSpec, body, "spec")
    assert isinstance(spec, ServiceSpec)
    return spec


def policy_from_wire(body: Mapping[str, object]) -> HostPolicy:
    """The host policy that `to_wire` wrote; same rules as `spec_from_wire`."""
    policy = _build(HostPolicy, body, "host")
    assert isinstance(policy, HostPolicy)
    return policy


_hints: dict[type, dict[str, object]] = {}


def _build(cls: type, body: object, where: str) -> object:
    if not isinstance(body, Mapping):
        raise ValueError(f"{where}: expected an object, not {type(body).__name__}")
    hints = _hints.get(cls)
    if hints is None:
        hints = _hints[cls] = typing.get_type_hints(cls)
    values: dict[str, object] = {}
    for f in fields(cls):
        if f.name in body:
            values[f.name] = _convert(hints[f.name], body[f.name], f"{where}.{f.name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{where}.{f.name}: missing")
    return cls(**values)


def _convert(hint: object, value: object, where: str) -> object:
    origin = typing.get_origin(hint)
    args = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(a for a in args if a is not type(None))
        return _convert(hint, value, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where}: expected a list, not {type(value).__name__}")
        if args[-1] is Ellipsis:
            return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(args) != len(value):
            raise ValueError(f"{where}: expected {len(args)} items, not {len(value)}")
        return tuple(
            _convert(a, v, f"{where}[{i}]")
            for i, (a, v) in enumerate(zip(args, value, strict=True))
        )
    if origin is not None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected an object, not {type(value).__name__}")
        return {str(k): str(v) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    number = hint is int and isinstance(value, bool)  # which Python takes for one
    if isinstance(hint, type) and (not isinstance(value, hint) or number):
        raise ValueError(f"{where}: expected {hint.__name__}, not {type(value).__name__}")
    return value
