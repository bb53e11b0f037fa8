"""What atlasd tells systemd about itself, and the descriptors that systemd hands to it."""

import fcntl
import os
import socket
import time
from array import array
from collections.abc import MutableMapping, Sequence

MAX_FDS = 253
"""Descriptors that the kernel carries in one message (SCM_MAX_FD)."""


def enabled(environ: MutableMapping[str, str] | None = None) -> bool:
    """Whether somebody listens: `NOTIFY_SOCKET` is set to an address that can be one."""
    return _address(_environ(environ)) is not None


def send(
    *lines: str,
    fds: Sequence[int] = (),
    environ: MutableMapping[str, str] | None = None,
) -> bool:
    """Send one datagram of `KEY=VALUE` lines, with descriptors if any; whether it was sent.

    Without `NOTIFY_SOCKET`, or when nobody receives, nothing happens: a daemon must not fall
    because the one that watches it is absent, and it waits for a full queue for a second at most.
    Raises `ValueError` for a line with a newline, or more than `MAX_FDS` descriptors.
    """
    if any("\n" in line for line in lines):
        raise ValueError("a line of a notification must not contain a newline")
    if len(fds) > MAX_FDS:
        raise ValueError(f"at most {MAX_FDS} descriptors go into one notification")
    address = _address(_environ(environ))
    if address is None:
        return False
    body = "\n".join(lines).encode()
    extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A full queue is waited for only briefly: the watchdog must not stop what it watches.
            sender.settimeout(1.0)
            sender.sendmsg([body], extra, 0, address)
    except OSError:
        return False
    return True


def ready(status: str = "", *, environ: MutableMapping[str, str] | None = None) -> bool:
    """Start-up, or a reload, is complete."""
    return send("READY=1", *_status(status), environ=environ)


def reloading(status: str = "", *, environ: MutableMapping[str, str] | None = None) -> bool:
    """A reload begins; `ready` ends it. Carries the time that Type=notify-reload asks for."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return send("RELOADING=1", f"MONOTONIC_USEC={now}", *_status(status), environ=environ)


def stopping(status: str = "", *, environ: MutableMapping[str, str] | None = None) -> bool:
    """Shutdown begins."""
    return send("STOPPING=1", *_status(status), environ=environ)


def status(text: str, *, environ: MutableMapping[str, str] | None = None) -> bool:
    """One line for people, shown by `systemctl status`."""
    return send(*_status(text), environ=environ)


def watchdog(*, environ: MutableMapping[str, str] | None = None) -> bool:
    """Progress is being made; due at least every half `watchdog_interval`."""
    return send("WATCHDOG=1", environ=environ)


def main_pid(pid: int, *, environ: MutableMapping[str, str] | None = None) -> bool:
    """The process that systemd is to take for the service's main one."""
    return send(f"MAINPID={pid}", environ=environ)


def extend_timeout(seconds: float, *, environ: MutableMapping[str, str] | None = None) -> bool:
    """Start, reload or stop needs this much longer from now on."""
    return send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}", environ=environ)


def store(
    name: str,
    fds: Sequence[int],
    *,
    poll: bool = True,
    environ: MutableMapping[str, str] | None = None,
) -> bool:
    """Give duplicates of descriptors to systemd's store under `name`; `listen_fds` gets them back.

    `poll=False` keeps systemd from dropping one at its hang-up, which pipes and pidfds need.
    Raises `ValueError` for a name that systemd would refuse.
    """
    _check_name(name)
    lines = ["FDSTORE=1", f"FDNAME={name}", *(() if poll else ("FDPOLL=0",))]
    return send(*lines, fds=fds, environ=environ)


def unstore(name: str, *, environ: MutableMapping[str, str] | None = None) -> bool:
    """Have systemd close every stored descriptor of this name. Raises as `store` does."""
    _check_name(name)
    return send("FDSTOREREMOVE=1", f"FDNAME={name}", environ=environ)


def watchdog_interval(environ: MutableMapping[str, str] | None = None) -> float | None:
    """Seconds within which systemd wants to hear `watchdog`; None when it does not watch us."""
    env = _environ(environ)
    wanted = _number(env.get("WATCHDOG_USEC", ""))
    if not wanted:
        return None
    pid = env.get("WATCHDOG_PID")
    if pid is not None and _number(pid) != os.getpid():
        return None
    return wanted / 1_000_000


def listen_fds(environ: MutableMapping[str, str] | None = None) -> dict[str, list[int]]:
    """The descriptors that were passed to this process, by name, each close-on-exec from now on.

    The variables that announce them are removed, so that no child takes them for its own.
    Descriptors without a name are found under `unknown`.
    """
    env = _environ(environ)
    pid = _number(env.pop("LISTEN_PID", ""))
    count = _number(env.pop("LISTEN_FDS", "")) or 0
    names = env.pop("LISTEN_FDNAMES", "").split(":")
    env.pop("LISTEN_PIDFDID", None)
    found: dict[str, list[int]] = {}
    if pid != os.getpid():
        return found
    for index in range(count):
        fd = 3 + index
        try:
            fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        except OSError:
            continue  # announced but not open: there is nothing to use
        name = names[index] if index < len(names) and names[index] else "unknown"
        found.setdefault(name, []).append(fd)
    return found


def _environ(environ: MutableMapping[str, str] | None) -> MutableMapping[str, str]:
    return os.environ if environ is None else environ


def _address(environ: MutableMapping[str, str]) -> str | bytes | None:
    text = environ.get("NOTIFY_SOCKET", "")
    if text.startswith("@") and len(text) > 1:
        return b"\0" + os.fsencode(text[1:])
    return text if text.startswith("/") else None


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())}",) if text else ()


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def _check_name(name: str) -> None:
    if not 0 < len(name) <= 255 or not name.isascii() or not name.isprintable() or ":" in name:
        raise ValueError(f"{name!r} cannot name a stored descriptor: printable ASCII without ':'")
