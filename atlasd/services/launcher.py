"""From a specification to what one program is started with: arguments, environment, descriptors."""

from collections.abc import Mapping, Sequence
from itertools import count

from atlasd.services import delivery
from atlasd.services.cgroup import Cgroup
from atlasd.services.spawn import DEFAULT_PATH, Account, Launch, SpawnError
from atlasd.services.spec import ServiceSpec

LISTEN_FDS_START = 3
INVOCATION = "INVOCATION_ID"
"""As systemd names it: 128 random bits in hexadecimal, another for each start."""
HOOK = "ATLASD_HOOK"
"""Tells a command beside the program what it is: pre_start, post_start, pre_stop, post_stop,
reload or probe. The program itself doesn't have it."""


def with_index(text: str, index: int) -> str:
    """The text with `{instance}` replaced by the instance's index."""
    return text.replace("{instance}", str(index))


def environment(
    spec: ServiceSpec,
    *,
    index: int,
    invocation: str,
    account: Account | None = None,
    notify_path: str | None = None,
    socket_names: Sequence[str] = (),
    secrets_dir: str = "",
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of one instance's program; the specification's own values win.

    `secrets_dir` is where the files are that it is handed.
    """
    env = {"PATH": DEFAULT_PATH}
    if account is not None and spec.user is not None:
        env |= {
            "USER": account.name,
            "LOGNAME": account.name,
            "HOME": account.home,
            "SHELL": account.shell,
        }
    env |= {name: with_index(value, index) for name, value in spec.env.items()}
    if spec.deliveries:
        env |= delivery.variables(spec.deliveries, secrets_dir)
    env |= {
        INVOCATION: invocation,
        "ATLASD_SERVICE": spec.name,
        "ATLASD_INSTANCE": str(index),
    }
    if notify_path is not None:
        env["NOTIFY_SOCKET"] = notify_path
    if spec.watchdog is not None:
        env["WATCHDOG_USEC"] = str(round(spec.watchdog * 1_000_000))
    if socket_names:
        env["LISTEN_FDS"] = str(len(socket_names))
        env["LISTEN_FDNAMES"] = ":".join(socket_names)
    if extra:
        env |= extra
    return env


def holds_secrets(spec: ServiceSpec) -> bool:
    """Whether a core dump of the program could show a secret: it is to leave none then."""
    return bool(spec.secrets) or any(one.secret for one in spec.deliveries)


def wants_notify(spec: ServiceSpec) -> bool:
    """Whether the program is to speak to us over a notify socket."""
    return (
        (spec.ready is not None and spec.ready.kind == "notify")
        or spec.watchdog is not None
        or spec.reload.kind == "notify"
    )


def numbers(spec: ServiceSpec, sockets: int) -> dict[str, int]:
    """Name → number of each descriptor that is handed over: after the sockets, beside `ready`."""
    ready = spec.ready.fd if spec.ready is not None and spec.ready.kind == "fd" else -1
    free = (n for n in count(LISTEN_FDS_START + sockets) if n != ready)
    return {one.name: next(free) for one in spec.deliveries if one.kind == "fd"}


def launch(
    spec: ServiceSpec,
    *,
    index: int,
    env: Mapping[str, str],
    account: Account | None,
    cgroup: Cgroup | None,
    stdio: tuple[int, int, int],
    sockets: Sequence[int] = (),
    ready_fd: int | None = None,
    handed: Mapping[int, int] | None = None,
) -> Launch:
    """All that one instance's program is started with.

    `handed` are further descriptors, by the `numbers` that they are to have.
    Raises `SpawnError` when two descriptors would have the same number.
    """
    fds = {0: stdio[0], 1: stdio[1], 2: stdio[2]}
    fds |= {LISTEN_FDS_START + i: fd for i, fd in enumerate(sockets)}
    if ready_fd is not None and spec.ready is not None:
        if spec.ready.fd in fds:
            raise SpawnError(
                f"ready = {{ fd = {spec.ready.fd} }}: that descriptor is "
                + ("a standard one" if spec.ready.fd < LISTEN_FDS_START else "one of the sockets")
                + f", which go up to {max(fds)}"
            )
        fds[spec.ready.fd] = ready_fd
    if handed:
        fds |= handed
    return Launch(
        argv=tuple(with_index(a, index) for a in spec.command),
        env=env,
        fds=fds,
        listen_fds=bool(sockets),
        cwd=with_index(spec.cwd, index),
        account=account,
        umask=spec.umask,
        nice=spec.nice,
        no_new_privs=spec.no_new_privs,
        limits=spec.limits,
        no_core=holds_secrets(spec),
        cgroup_fd=cgroup.fd if cgroup is not None else None,
        join=cgroup.join_paths if cgroup is not None else (),
    )
