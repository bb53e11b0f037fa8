import os
import socket

import pytest

from atlasd.control import rights
from atlasd.control.rights import Caller, demand, right_of
from atlasd.control.wire import BY_NAME, OPERATIONS, Right
from atlasd.errors import AtlasError

DAEMON = 990
GROUP = 991


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "expected"),
    [
        (0, 0, [], Right.ADMINISTER),
        (DAEMON, 5, [], Right.ADMINISTER),
        (1000, GROUP, [], Right.OPERATE),
        (1000, 1000, [4, GROUP], Right.OPERATE),
        (1000, 1000, [4, 27], None),
        (1000, 0, [0], None),
    ],
)
def test_who_may_do_what(uid: int, gid: int, groups: list[int], expected: Right | None) -> None:
    assert right_of(uid, gid, frozenset(groups), daemon_uid=DAEMON, group=GROUP) is expected


def test_without_the_group_only_root_and_the_daemon_may() -> None:
    assert right_of(1000, 7, frozenset({8}), daemon_uid=DAEMON, group=None) is None
    assert right_of(DAEMON, 7, frozenset(), daemon_uid=DAEMON, group=None) is Right.ADMINISTER


def caller(right: Right | None) -> Caller:
    return Caller(pid=1, uid=1000, gid=1000, groups=frozenset(), right=right)


def test_a_right_includes_the_lesser_ones() -> None:
    allowed = {
        right: {o.name for o in OPERATIONS if caller(right).may(o.right)}
        for right in (None, *Right)
    }
    assert allowed[None] == set()
    assert "status" in allowed[Right.READ]
    assert "service.stop" not in allowed[Right.READ]
    assert allowed[Right.READ] < allowed[Right.OPERATE] < allowed[Right.ADMINISTER]
    assert allowed[Right.ADMINISTER] == set(BY_NAME)
    assert allowed[Right.ADMINISTER] - allowed[Right.OPERATE] == {
        "shutdown",
        "services-role.upgrade",
        "settings.reveal",
        "queue.purge",
        "dead.purge",
        "config.rollback",
        "config.set",
        "config.unset",
        "config.encrypt",
        "config.decrypt",
        "config.reveal",
        "secret.reveal",
        "secret.set",
        "secret.rollback",
        "secret.delete",
        "secret.recover",
        "secret.rotate",
        "secret.import",
        "secret.export",
        "secret.keygen",
        "secret.rotate-keys",
    }


@pytest.mark.parametrize(
    ("right", "operation", "hint"),
    [(None, "status", "group atlasd"), (Right.OPERATE, "shutdown", "as root")],
)
def test_a_refusal_says_how_to_be_let_in(right: Right | None, operation: str, hint: str) -> None:
    with pytest.raises(AtlasError) as caught:
        demand(caller(right), BY_NAME[operation])
    assert caught.value.code == "operation.denied"
    assert "1000" in caught.value.message
    assert operation in caught.value.message
    assert hint in caught.value.hint


def test_the_kernel_says_who_is_there() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        found = rights.caller_of(ours)
    assert (found.pid, found.uid, found.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert found.groups == frozenset(os.getgroups())
    assert found.right is Right.ADMINISTER  # the daemon's own user
    assert found.actor == f"uid:{os.getuid()}"


class CrowdedSocket:
    """A peer in so many groups that the first buffers are too small."""

    def __init__(self, groups: int) -> None:
        self._raw = b"".join(n.to_bytes(4, "little") for n in range(groups))
        self.asked: list[int] = []

    def getsockopt(self, level: int, name: int, size: int) -> bytes:
        if name == socket.SO_PEERCRED:
            return (1).to_bytes(4, "little") + (1000).to_bytes(4, "little") * 2
        self.asked.append(size)
        if size < len(self._raw):
            raise OSError(34, "ERANGE")
        return self._raw


@pytest.mark.parametrize("count", [0, 64, 65, 3000])
def test_all_groups_count_however_many(count: int) -> None:
    peer = CrowdedSocket(count)
    assert rights.caller_of(peer).groups == frozenset(range(count))  # type: ignore[arg-type]


def test_a_kernel_that_knows_no_peer_groups_leaves_the_primary_one() -> None:
    class Old(CrowdedSocket):
        def getsockopt(self, level: int, name: int, size: int) -> bytes:
            if name == socket.SO_PEERCRED:
                return super().getsockopt(level, name, size)
            raise OSError(92, "ENOPROTOOPT")

    assert rights.caller_of(Old(0)).groups == frozenset()  # type: ignore[arg-type]
