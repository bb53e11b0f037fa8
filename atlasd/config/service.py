"""Settings of one service: `[services.NAME]`."""

from typing import Annotated, Literal

from pydantic import Field

from atlasd.config import units
from atlasd.config.fields import (
    COMMAND,
    Account,
    Command,
    Duration,
    Edges,
    ExitCodes,
    FilePath,
    FilePaths,
    Mode,
    Names,
    RlimitCount,
    RlimitSize,
    Section,
    SignalName,
    SignalNames,
    Size,
    SocketAddress,
    VariableNames,
    Variables,
    setting,
    spelled,
)
from atlasd.config.probes import Live, Ready
from atlasd.config.units import WrongValueError
from atlasd.services import spec

_STOP = spec.Stop()
_RELOAD = spec.Reload()
_RESTART = spec.Restart()
_BACKOFF = spec.Backoff()
_LOG = spec.Log()
_SOCKET = spec.Socket(name="", address="")
_HOOK = spec.Hook(command=())
_SPEC = spec.ServiceSpec(name="", command=())

INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "USER", "LOGNAME", "SHELL")
"""Variables that a service takes over from the daemon, unless it says otherwise."""


def _socket(value: object) -> object:
    return {"address": value} if isinstance(value, str) else value


def _secret(value: object) -> object:
    return {"value": value} if isinstance(value, str) else value


def _on_change(value: object) -> object:
    return {"action": value} if isinstance(value, str) else value


def _settings_files(value: object) -> object:
    if isinstance(value, list):
        return tuple(value)
    return (value,)


def _restart(value: object) -> object:
    return {"policy": value} if isinstance(value, str) else value


def _hooks(value: object) -> object:
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, list) for item in items):
        raise WrongValueError(
            "a list of hooks, each a string or a table { command, timeout }",
            hint='a command as a list of words goes into a table: { command = ["a", "b"] }',
        )
    return tuple({"command": item} if isinstance(item, str) else item for item in items)


class Socket(Section):
    """A listening socket that atlasd opens, keeps over restarts and passes on as LISTEN_FDS."""

    address: SocketAddress = Field(
        description="tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH or unixgram:///PATH."
    )
    backlog: int = setting(
        _SOCKET.backlog, "Connections that may wait to be accepted.", ge=1, le=65535
    )
    mode: Mode = setting(_SOCKET.mode, "Permissions of a unix socket's file, in octal digits.")


class Restart(Section):
    """When an instance that ended is started again."""

    policy: Literal["on-failure", "always", "never"] = setting(
        _RESTART.policy,
        "on-failure: after a failure; always: after a success too; never: not at all.",
    )
    success_codes: ExitCodes = setting(_RESTART.success_codes, "Exit codes that are a success.")
    success_signals: SignalNames = setting(
        _RESTART.success_signals,
        "Signals that are a success when the program died of one that atlasd did not send.",
    )
    no_restart_codes: ExitCodes = setting(
        _RESTART.no_restart_codes, "Exit codes after which the service is failed at once."
    )
    config_error_codes: ExitCodes = setting(
        _RESTART.config_error_codes,
        "Exit codes by which the program says that its configuration is wrong: failed at once.",
    )


class Backoff(Section):
    """Delays between restarts; the first failure since a stable run restarts without one."""

    base: Duration = setting(_BACKOFF.base, "Delay before the second restart. Duration.")
    factor: float = setting(
        _BACKOFF.factor,
        "What each further delay is multiplied by.",
        ge=1,
        le=100,
        allow_inf_nan=False,
    )
    cap: Duration = setting(_BACKOFF.cap, "Longest delay. Duration.")
    jitter: float = setting(
        _BACKOFF.jitter,
        "Part of a delay, 0 to 1, by which chance lengthens or shortens it.",
        ge=0,
        le=1,
        allow_inf_nan=False,
    )
    stable_for: Duration = setting(
        _BACKOFF.stable_for,
        "Ready and alive for this long, failures count from zero again. Duration.",
    )


class Limit(Section):
    """How many failures are too many."""

    count: int = Field(description="Failures within `window` that are still borne.", ge=1)
    window: Duration = setting(
        _RESTART.limit_window, "Time in which failures are counted. Duration.", gt=0
    )
    on_limit: Literal["keep-trying", "fail"] = setting(
        _RESTART.on_limit,
        "keep-trying: at the longest delay of the backoff; fail: given up until somebody starts "
        "it.",
    )


class Escalation(Section):
    """A further step of a stop."""

    signal: SignalName = Field(description="Signal that is sent when the step before did not do.")
    timeout: Duration = Field(description="Time to wait for its effect. Duration.")


def _escalation(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class Stop(Section):
    """How an instance is ended."""

    signal: SignalName = setting(_STOP.signal, "Signal that asks the main process to end.")
    timeout: Duration = setting(
        _STOP.timeout, "Time it has to end before the next step, at last KILL. Duration."
    )
    escalation: Annotated[
        tuple[Escalation, ...], spelled(_escalation, "a list of { signal, timeout }", "list")
    ] = setting((), "Steps between the first signal and KILL, each { signal, timeout }.")
    kill_mode: Literal["mixed", "control-group", "process", "none"] = setting(
        _STOP.kill_mode,
        "mixed: signal to the main process, KILL to what remains; control-group: signals to all; "
        "process: the main process only; none: the signal only, never KILL.",
    )
    drain: Command | None = setting(
        None, "Command that is run before the first signal, so that work in hand can be finished."
    )
    drain_timeout: Duration = setting(_STOP.drain_timeout, "Time that `drain` may take. Duration.")


class Reload(Section):
    """How a running instance is told to read its configuration again: exactly one kind."""

    signal: SignalName | None = setting(None, "Signal that is sent to the main process.")
    exec: Command | None = setting(None, "Command that is run; exit code 0 is a success.")
    notify: bool | None = setting(
        None,
        "true: HUP is sent, and the program answers RELOADING=1, then READY=1, as for systemd's "
        "notify-reload.",
    )
    timeout: Duration = setting(
        _RELOAD.timeout, "Time until `exec` or `notify` must be done. Duration.", gt=0
    )


class Limits(Section):
    """Resource limits; what is not given stays as it is for atlasd itself."""

    memory: Size | None = setting(
        None, "Memory of an instance. Size; needs cgroup v2 with the memory controller.", ge=1
    )
    cpu: float | None = setting(
        None,
        "Processors, as 1.5. Needs cgroup v2 with the cpu controller.",
        gt=0,
        le=10000,
        allow_inf_nan=False,
    )
    tasks: int | None = setting(
        None, "Processes and threads. Needs cgroup v2 with the pids controller.", ge=1
    )
    nofile: RlimitCount | None = setting(None, "Open descriptors of a process.")
    nproc: RlimitCount | None = setting(None, "Processes of the service's user.")
    core: RlimitSize | None = setting(None, "Size of a core dump. Size.")
    fsize: RlimitSize | None = setting(None, "Size of a file that is written. Size.")
    stack: RlimitSize | None = setting(None, "Stack of the main thread. Size.")
    address_space: RlimitSize | None = setting(None, "Virtual memory of a process. Size.")
    memlock: RlimitSize | None = setting(None, "Memory that may be locked. Size.")


class Hook(Section):
    """A command that is run beside the service."""

    command: Command = Field(description=f"{COMMAND[0].upper()}{COMMAND[1:]}.")
    timeout: Duration = setting(_HOOK.timeout, "Time that it may take. Duration.", gt=0)


class Log(Section):
    """What becomes of the captured output, per instance."""

    max_size: Size = setting(_LOG.max_size, "A file that reaches it is rotated. Size.", ge=4096)
    max_age: Duration = setting(
        _LOG.max_age, "Rotated files older than this are removed. Duration.", gt=0
    )
    max_files: int = setting(_LOG.max_files, "Rotated files that are kept.", ge=1, le=10000)
    compress: bool = setting(_LOG.compress, "Compress rotated files (gzip).")


class ServiceSecret(Section):
    """A secret that the program is handed; nothing else of the secret store is open to it."""

    value: str = Field(
        description="Reference, as `secret://db#password`, or text with `${secret:db#password}`.",
        repr=False,
    )
    deliver: Literal["file", "fd", "env"] = setting(
        "file",
        "file: mode 0400 on tmpfs, its path in NAME_FILE; fd: a sealed memfd, its number in "
        "NAME_FD; env: the variable NAME, which others can read in /proc.",
    )
    path: str | None = setting(None, "Name of the file; without it NAME. For file only.")


class SettingsFile(Section):
    """A file rendered from the service's settings: mode 0400, on tmpfs, never on disk."""

    path: str = Field(description="Its name in the service's own folder.")
    name: str = setting(
        "SETTINGS", "What its variable is called, which tells its path: SETTINGS is SETTINGS_FILE."
    )
    format: Literal["toml", "json", "yaml", "env", "template"] = setting(
        "json", "toml, json, yaml, env (NAME=value lines), or template."
    )
    template: FilePath | None = setting(None, "Jinja template, for the format template.")
    dialect: Literal["bash", "docker", "compose", "systemd"] = setting(
        "bash", "Who reads the lines, for the format env."
    )
    check: Command | None = setting(
        None,
        "Command that vets the rendered file, {file} standing for its path, before anything else "
        "sees it; another exit code than 0 refuses the whole change.",
    )


class OnChange(Section):
    """What is done when only settings or secrets of the service have changed."""

    action: Literal["restart", "reload", "signal", "swap", "none"] = setting(
        spec.OnChange().kind,
        "restart; reload, as `reload` says; signal; swap: files are exchanged, nobody is told; "
        "none: the next start has it, as for a oneshot that says nothing. Instances have their "
        "turn one by one, healthy before the next.",
    )
    signal: SignalName = setting(spec.OnChange().signal, "What is sent, for signal.")


class Worker(Section):
    """Jobs that the service runs, in place of a command: exactly one of module, exec and http."""

    module: Names = setting((), "Modules that declare jobs.")
    exec: Command | None = setting(
        None, "Command that is run for each job, its payload on standard input."
    )
    http: str | None = setting(None, "URL to which each job's payload is posted.")
    result: Literal["json", "text", "none"] = setting(
        "json", "What is made of the output of `exec`, or of the answer of `http`."
    )
    queues: Names = setting(
        (), "Queues that it takes jobs from; without any, those of the module's handlers."
    )
    processes: int = setting(1, "Processes of an instance.", ge=1, le=1000)
    concurrency: int = setting(1, "Jobs at once in each process.", ge=1, le=10000)
    prefetch: int | None = setting(
        None, "Jobs that a process fetches ahead; without it by how long they take.", ge=1, le=1000
    )
    grace: Duration = setting(
        25.0, "Time that running jobs have when it is told to end. Duration.", gt=0
    )


class Scale(Section):
    """How many instances there are, by the backlog of the worker's queues."""

    min: int = setting(1, "Instances at least.", ge=0, le=1000)
    max: int = Field(description="Instances at most.", ge=1, le=1000)
    target_wait: Duration = setting(
        10.0, "Time that a job may wait before it is begun. Duration.", gt=0
    )
    quiet: Duration = setting(
        60.0,
        "Time in which fewer instances would have done, before the first is stopped. Duration.",
        gt=0,
    )


Hooks = Annotated[tuple[Hook, ...], spelled(_hooks, "a list of hooks", "string", "list", "table")]


class Service(Section):
    """A program that is kept running, or a oneshot that runs to its end."""

    command: Command | None = setting(
        None,
        "What is run: a list of words, or a string that is split as a shell would split it. No "
        "shell runs. Either this or `worker`.",
    )
    worker: Worker | None = setting(None, "Jobs that it runs, in place of a command.")
    type: Literal["simple", "oneshot"] = setting(
        _SPEC.type,
        "simple: stays; oneshot: runs to its end, and is completed when that is a success.",
    )
    enabled: bool = setting(_SPEC.enabled, "false: known, but down until somebody starts it.")
    instances: int = setting(_SPEC.instances, "Processes of it, 0 to 1000.", ge=0, le=1000)
    scale: Scale | None = setting(
        None, "Instances by the backlog of the worker's queues, in place of `instances`."
    )
    critical: bool = setting(
        _SPEC.critical, "true: the host's health is no better than this service's."
    )
    requires: Edges = setting(
        (),
        "Services that must be there first, each NAME or NAME:CONDITION (started, ready, healthy, "
        "completed). They are started too; if one fails, this one does.",
    )
    wants: Edges = setting((), "As `requires`, but this one starts even if the other has failed.")
    after: Edges = setting((), "Order only: as `requires`, if the other is to be up at all.")
    restart_with: Names = setting((), "Services with whose restarts this one restarts too.")
    cwd: FilePath = setting(_SPEC.cwd, "Working directory.")
    env: Variables = setting({}, "Environment variables. Beats `env_file`.", repr=False)
    env_file: FilePaths = setting(
        (),
        "Files of NAME=VALUE lines, a later one beats an earlier one. One that starts with - need "
        "not exist.",
    )
    settings: Names = setting(
        (),
        "Sets of application settings, [settings.NAME], that it is given; a later one beats an "
        "earlier one. As environment variables, unless there is a `settings_file`.",
    )
    settings_file: Annotated[
        tuple[SettingsFile, ...],
        spelled(_settings_files, "a table or a list of them", "list", "table"),
    ] = setting((), "Files rendered from its settings, each { path, format, template, check }.")
    secrets: dict[
        str, Annotated[ServiceSecret, spelled(_secret, "a reference", "string", "table")]
    ] = setting(
        {},
        "Secrets that it is handed, by the name of their variable, each a reference or "
        "{ value, deliver, path }.",
    )
    on_change: Annotated[
        OnChange, spelled(_on_change, "an action, or a table", "string", "table")
    ] = setting(OnChange(), "What is done when only its settings or secrets have changed.")
    inherit_env: VariableNames = setting(
        INHERITED, "Variables that are taken over from the daemon's own environment."
    )
    user: Account | None = setting(None, "User that it runs as. Needs root.")
    group: Account | None = setting(
        None, "Group that it runs as; without it the user's own. Needs root."
    )
    umask: Mode | None = setting(None, "File mode creation mask, in octal digits.")
    nice: int | None = setting(None, "Scheduling priority, -20 (first) to 19.", ge=-20, le=19)
    no_new_privs: bool = setting(
        _SPEC.no_new_privs, "true: it cannot gain rights, setuid programs included."
    )
    sockets: dict[str, Annotated[Socket, spelled(_socket, "an address", "string", "table")]] = (
        setting({}, "Listening sockets by name, each an address or { address, backlog, mode }.")
    )
    ready: Ready | None = setting(
        None, "How it shows that it is ready; without it, living for `min_uptime` will do."
    )
    live: Live | None = setting(None, "How it shows that it still works.")
    start_timeout: Duration = setting(
        _SPEC.start_timeout, "Time from the start until it must be ready. Duration.", gt=0
    )
    min_uptime: Duration | None = setting(
        None,
        "Time that a process must live before it counts as running; 1s unless given, 0s where "
        "there is a `ready`. Duration.",
    )
    watchdog: Duration | None = setting(
        None,
        "Time within which the program must send WATCHDOG=1, else it is restarted. Duration.",
        gt=0,
    )
    restart: Annotated[Restart, spelled(_restart, "a policy, or a table", "string", "table")] = (
        setting(Restart(), "When it is started again: a policy, or a table.")
    )
    backoff: Backoff = setting(Backoff(), "Delays between restarts.")
    limit: Limit | None = setting(None, "How many failures are too many; without it, none are.")
    stop: Stop = setting(Stop(), "How it is ended.")
    reload: Reload | None = setting(None, "How it is told to read its configuration again.")
    limits: Limits = setting(Limits(), "Resource limits.")
    log: Log = setting(Log(), "What becomes of its output.")
    pre_start: Hooks = setting(
        (), "Commands before each start, one after the other; one that fails fails the start."
    )
    post_start: Hooks = setting((), "Commands once an instance is running.")
    pre_stop: Hooks = setting((), "Commands before an instance is stopped.")
    post_stop: Hooks = setting((), "Commands after an instance has ended, however it did.")


NAME_EXPECTED = (
    f"a name of small letters, digits, - and _, a letter first, at most 63 ({units.NAME.pattern})"
)
