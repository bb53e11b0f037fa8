"""Who may do what over the control socket: the one place that decides it.

Root and the daemon's own user administer. Members of the group `atlasd` operate. Nobody else may
even read: the socket's mode (0660) keeps others out already, and status and logs can show what an
application would rather keep to itself. Who is who, the kernel says (SO_PEERCRED, SO_PEERGROUPS);
nothing in a request is believed.
"""

import grp
import os
import socket
import struct
from contextvars import ContextVar
from dataclasses import dataclass

from atlasd.control.wire import Operation, Right
from atlasd.errors import AtlasError

GROUP = "atlasd"
"""Group whose members may operate."""

_ORDER = (Right.READ, Right.OPERATE, Right.ADMINISTER)
_SO_PEERGROUPS = 59  # Linux 4.13; the socket module has no name for it
_MOST_GROUPS = 65536  # NGROUPS_MAX


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who is at the other end of a connection."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]
    """Supplementary groups."""
    right: Right | None
    """The most that the caller may do; None: nothing at all."""

    @property
    def actor(self) -> str:
        """How events and the journal name the caller: `uid:0`."""
        return f"uid:{self.uid}"

    def may(self, right: Right) -> bool:
        """Whether the caller has this right, or one that includes it."""
        return self.right is not None and _ORDER.index(self.right) >= _ORDER.index(right)


CALLER: ContextVar[Caller | None] = ContextVar("CALLER", default=None)
"""Who has asked for the operation that is being performed, if it came over the socket."""


def right_of(
    uid: int, gid: int, groups: frozenset[int], *, daemon_uid: int, group: int | None
) -> Right | None:
    """The most that a user may do; `group` is the id of the group `atlasd`, if there is one."""
    if uid in (0, daemon_uid):
        return Right.ADMINISTER
    if group is not None and (gid == group or group in groups):
        return Right.OPERATE
    return None


def caller_of(connection: socket.socket) -> Caller:
    """The process that opened a connection, as the kernel knew it at that moment."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", raw)
    groups = _groups(connection)
    return Caller(
        pid=pid,
        uid=uid,
        gid=gid,
        groups=groups,
        right=right_of(uid, gid, groups, daemon_uid=os.geteuid(), group=group_id()),
    )


def group_id() -> int | None:
    """The id of the group `atlasd`, or None where there is no such group."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None


def demand(caller: Caller, operation: Operation) -> None:
    """Raise `operation.denied` when the caller's right is not enough for the operation."""
    if caller.may(operation.right):
        return
    if caller.right is None:
        hint = f"become a member of the group {GROUP}: usermod -aG {GROUP} USER, then log in anew"
    else:
        hint = "run it as root or as the daemon's own user"
    raise AtlasError(
        "operation.denied",
        f"user {caller.uid} may not {operation.right} atlasd: "
        f"{operation.name} needs the right to {operation.right}",
        hint=hint,
        details={"operation": operation.name, "needs": operation.right, "has": caller.right},
    )


def _groups(connection: socket.socket) -> frozenset[int]:
    size = struct.calcsize("i")
    length = 64 * size
    while True:
        try:
            raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, length)
        except OSError:
            # ERANGE: more groups than fit; ENOPROTOOPT: an older kernel, where the primary
            # group alone has to do.
            if length >= _MOST_GROUPS * size or not _has_peer_groups(connection):
                return frozenset()
            length = min(length * 8, _MOST_GROUPS * size)
            continue
        return frozenset(struct.unpack(f"{len(raw) // size}i", raw))


def _has_peer_groups(connection: socket.socket) -> bool:
    import errno

    try:
        connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 0)
    except OSError as fault:
        return fault.errno == errno.ERANGE
    return True
