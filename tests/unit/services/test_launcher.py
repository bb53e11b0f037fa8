"""From a specification to a launch: environment, descriptors, and whose numbers they are."""

import pytest

from atlasd.services import launcher
from atlasd.services.spawn import DEFAULT_PATH, Account, SpawnError
from atlasd.services.spec import Probe, Reload
from tests.unit.services.stage import NOTIFY, spec

SHOP = Account(uid=5, gid=6, groups=(6,), name="shop", home="/srv/shop", shell="/bin/sh")
STDIO = (10, 11, 12)


def test_the_environment_is_the_specification_with_what_atlasd_says() -> None:
    env = launcher.environment(
        spec("web", env={"PORT": "80{instance}", "HOME": "/tmp"}, user="shop", watchdog=1.5),
        index=2,
        invocation="abc",
        account=SHOP,
        notify_path="/run/n",
        socket_names=["http", "admin"],
    )
    assert env == {
        "PATH": DEFAULT_PATH,
        "USER": "shop",
        "LOGNAME": "shop",
        "HOME": "/tmp",
        "SHELL": "/bin/sh",
        "PORT": "802",
        "INVOCATION_ID": "abc",
        "ATLASD_SERVICE": "web",
        "ATLASD_INSTANCE": "2",
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "1500000",
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "http:admin",
    }


def test_a_program_that_is_told_nothing_is_told_nothing() -> None:
    env = launcher.environment(spec("web"), index=0, invocation="abc")
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "USER"} & set(env)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, False),
        ({"ready": NOTIFY}, True),
        ({"ready": Probe(kind="http")}, False),
        ({"watchdog": 5.0}, True),
        ({"reload": Reload(kind="notify")}, True),
    ],
)
def test_who_speaks_over_a_notify_socket(changes: dict[str, object], wanted: object) -> None:
    assert launcher.wants_notify(spec("web", **changes)) is wanted


def test_descriptors_stand_where_the_program_expects_them() -> None:
    ready = Probe(kind="fd", fd=9)
    made = launcher.launch(
        spec("web", ready=ready, cwd="/srv/{instance}", command=("web", "-p", "80{instance}")),
        index=3,
        env={},
        account=None,
        cgroup=None,
        stdio=STDIO,
        sockets=[20, 21],
        ready_fd=30,
    )
    assert made.fds == {0: 10, 1: 11, 2: 12, 3: 20, 4: 21, 9: 30}
    assert made.listen_fds
    assert (made.cwd, made.argv) == ("/srv/3", ("web", "-p", "803"))


@pytest.mark.parametrize(("fd", "said"), [(1, "a standard one"), (3, "one of the sockets")])
def test_two_descriptors_of_one_number_are_refused_in_words(fd: int, said: str) -> None:
    with pytest.raises(SpawnError, match=said):
        launcher.launch(
            spec("web", ready=Probe(kind="fd", fd=fd)),
            index=0,
            env={},
            account=None,
            cgroup=None,
            stdio=STDIO,
            sockets=[20],
            ready_fd=30,
        )


def test_a_plain_program_needs_no_clone() -> None:
    plain = launcher.launch(spec("web"), index=0, env={}, account=None, cgroup=None, stdio=STDIO)
    assert plain.plain
    for changes in ({"nice": 5}, {"no_new_privs": True}):
        special = launcher.launch(
            spec("web", **changes), index=0, env={}, account=None, cgroup=None, stdio=STDIO
        )
        assert not special.plain
