"""What services are handed reaches real processes, and nobody else; a change of it as they want."""

import contextlib
import fcntl
import json
import os
import pwd
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from atlasd.errors import AtlasError
from tests.integration.services.host import (
    SYSTEM_PYTHON,
    Host,
    Moments,
    environment,
    program,
    until,
)
from tests.integration.services.test_attributes import limit

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root")
NOBODY = pwd.getpwnam("nobody").pw_uid
HUP = {"signal": "HUP"}


class Shop:
    """A service of several instances that is handed one value in every way."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.token = host.root / "token"
        self.value = f"hunter2-{token_hex(8)}"
        """The first one: so odd that it can be searched for in everything."""
        self.tell(self.value)

    def tell(self, value: str) -> None:
        """Have the configuration stand for another value."""
        new = self.token.with_suffix(".new")
        new.write_text(value)
        new.replace(self.token)

    def table(self, *ways: str, refused: str = "", **more: Any) -> dict[str, object]:
        """`ways` are of file, fd and env."""
        names = {"file": "DB", "fd": "KEY", "env": "URL"}
        secrets = {names[w]: {"value": "${file:token}", "deliver": w} for w in ways}
        command = program("handed", self.host.files / "noted.{instance}", refused)
        return {"command": command, "ready": {"notify": True}, "secrets": secrets, **more}

    def noted(self, index: int = 0) -> list[dict[str, Any]]:
        """What an instance has noted, of every run of it."""
        path = self.host.files / f"noted.{index}"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def reload(self, value: str) -> list[tuple[str, str]]:
        """Other contents, and a reload; what was done as (action, detail)."""
        self.tell(value)
        done = self.host.control.call("config.reload")
        return [(a["action"], a["detail"]) for a in done["applied"]]

    def planned(self) -> list[str]:
        """What is still to be done; nobody's answer is a thing to wait for."""
        try:
            return [a["action"] for a in self.host.control.call("plan")["actions"]]
        except AtlasError:
            return ["services"]

    def has(self, value: str, count: int) -> bool:
        """Whether that many instances have noted the value last."""
        last = [noted[-1] for i in range(count) if (noted := self.noted(i))]
        return len(last) == count and all(value in one.values() for one in last)


@pytest.fixture
def shop(host: Host) -> Shop:
    return Shop(host)


def everywhere(word: str) -> Iterator[str]:
    """Where the word shows in what /proc tells of any process: its arguments and environment."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            for name in ("environ", "cmdline"):
                with contextlib.suppress(OSError):
                    if word.encode() in (folder / name).read_bytes():
                        yield f"{folder}/{name}"


def noted_times(shop: Shop, times: int) -> bool:
    return len(shop.noted()) == times


def as_user(uid: int, code: str, *arguments: object) -> str:
    """What a program of that user prints."""
    done = subprocess.run(
        [SYSTEM_PYTHON, "-I", "-S", "-c", code, *map(str, arguments)],
        user=uid,
        group=uid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


# ---------------------------------------------------------------------- what a program gets


@needs_root
def test_another_users_program_has_it_and_nobody_else(shop: Shop) -> None:
    host = shop.host
    host.start({"web": shop.table("file", "fd", user="nobody")})
    host.all_running()
    (noted,) = shop.noted()
    assert noted["uid"] == NOBODY
    assert noted["DB_FILE"] == noted["KEY_FD"] == shop.value
    pid = host.pid("web")
    variables = environment(pid)
    file = Path(variables["DB_FILE"])
    assert file == host.run / "services/secrets/web/current/DB"
    assert variables["SECRETS_DIR"] == str(file.parent)
    assert list(everywhere(shop.value)) == []
    for path, mode, owner in (
        (file, 0o400, NOBODY),
        (file.parent.resolve(), 0o500, NOBODY),
        (file.parent.parent, 0o711, 0),
        (file.parent.parent.parent, 0o711, 0),
    ):
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (mode, owner), path
    assert as_user(NOBODY, "import sys; print(open(sys.argv[1]).read())", file) == f"{shop.value}\n"
    daemon = pwd.getpwnam("daemon").pw_uid
    for code, path in (
        ("import sys; print(open(sys.argv[1]).read())", file),
        ("import os, sys; print(os.listdir(sys.argv[1]))", file.parent),
        ("import os, sys; print(os.listdir(sys.argv[1]))", file.parent.parent),
        ("import os, sys; print(os.listdir(sys.argv[1]))", file.parent.parent.parent),
        ("import sys; print(open(sys.argv[1]).read())", host.run / "services/target.json"),
    ):
        assert "PermissionError" in as_user(daemon, code, path), path
    # Its own user cannot put anything else in its place.
    assert "PermissionError" in as_user(
        NOBODY, "import os, sys; os.symlink('/etc', sys.argv[1] + '/other')", file.parent.parent
    )


@needs_root
def test_an_ordinary_users_role_hands_over_as_itself(new_host: Callable[..., Host]) -> None:
    shop = Shop(new_host(uid=NOBODY, cgroup="off"))
    host = shop.host
    host.start({"web": shop.table("file", "fd", reload=HUP, on_change="reload")})
    host.all_running()
    assert (
        shop.noted()[0] | {"DB_FILE": shop.value, "KEY_FD": shop.value, "uid": NOBODY}
        == shop.noted()[0]
    )
    file = Path(environment(host.pid("web"))["DB_FILE"])
    assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (NOBODY, 0o400)
    shop.reload("another value")
    until(lambda: shop.has("another value", 1), host.logs_of_roles)
    # What is root's in /proc is of a process that cannot be dumped, nor read by its own user.
    role = host.pids["services"]
    assert Path(f"/proc/{role}/mem").stat().st_uid == 0
    assert Path(f"/proc/{host.pid('web')}/mem").stat().st_uid == NOBODY
    secret = f"import sys; print(open('/proc/{role}/environ').read())"
    assert "PermissionError" in as_user(NOBODY, secret)
    # Adoption reads what it needs of processes all the same.
    before = host.pid("web")
    host.restart_role("services")
    until(lambda: host.instance("web")["pid"] == before, host.logs_of_roles)


def test_a_descriptor_is_sealed_and_begins_anew_at_each_start(shop: Shop) -> None:
    host = shop.host
    host.start({"web": shop.table("fd")})
    for starts in (1, 2, 3):
        until(partial(noted_times, shop, starts), host.logs_of_roles)
        host.wait_for("web")
        if starts < 3:
            os.kill(host.pid("web"), signal.SIGKILL)
    assert [one["KEY_FD"] for one in shop.noted()] == [shop.value] * 3
    pid = host.pid("web")
    number = environment(pid)["KEY_FD"]
    assert number == "3"
    assert list(everywhere(shop.value)) == []
    link = Path(f"/proc/{pid}/fd/{number}")
    assert link.readlink().name.startswith("memfd:KEY")
    if ROOT:
        fd = os.open(link, os.O_RDWR)
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        assert seals & fcntl.F_SEAL_WRITE
        assert seals & fcntl.F_SEAL_SEAL
        os.close(fd)


def test_descriptors_stand_beside_sockets_and_the_ready_one(shop: Shop) -> None:
    host = shop.host
    secrets = {n: {"value": "${file:token}", "deliver": "fd"} for n in ("A", "B")}
    script = 'read a <&"$A_FD"; read b <&"$B_FD"; [ "$a" = "$b" ] && echo >&6; exec sleep 1000'
    host.start(
        {
            "web": {
                "command": ["sh", "-c", script],
                "sockets": {"a": "tcp://127.0.0.1:0", "b": "tcp://127.0.0.1:0"},
                "ready": {"fd": 6},
                "secrets": secrets,
            }
        }
    )
    host.all_running()
    variables = environment(host.pid("web"))
    assert (variables["LISTEN_FDS"], variables["A_FD"], variables["B_FD"]) == ("2", "5", "7")


def test_only_a_variable_shows_in_proc(shop: Shop) -> None:
    host = shop.host
    host.start({"web": shop.table("env"), "other": shop.table("file")})
    host.all_running()
    assert list(everywhere(shop.value)) == [f"/proc/{host.pid('web')}/environ"]
    for asked in ("plan", "status", "events", "why web", "status web --json", "doctor", "health"):
        said = host.ctl(*asked.split(), check=False)
        assert shop.value not in said.stdout + said.stderr, asked
    assert shop.value not in host.logs_of_roles()


def test_programs_with_secrets_leave_no_core_dump(shop: Shop) -> None:
    host = shop.host
    host.start(
        {
            "web": shop.table("file", cwd=str(host.files)),
            "asked": shop.table("file", limits={"core": "1MiB"}),
            "plain": {"command": program("sleep"), "min_uptime": "0s"},
        }
    )
    pids = host.all_running()
    hard = limit(pids["plain"][0], "Max core file size")[1]
    assert limit(pids["web"][0], "Max core file size") == ("1", hard)
    assert limit(pids["asked"][0], "Max core file size") == ("1048576", "1048576")
    assert limit(pids["plain"][0], "Max core file size") == limit(
        host.pids["services"], "Max core file size"
    )
    os.kill(pids["web"][0], signal.SIGQUIT)
    crash = until(lambda: host.crashes("web"), host.logs_of_roles)[0]
    assert crash["signal"] == "QUIT"
    assert "core dumped" not in crash["detail"]


# ---------------------------------------------------------------------- a change


@pytest.mark.parametrize("way", ["restart", "reload", "signal", "swap", "none"])
def test_a_change_reaches_the_program_as_it_wants(shop: Shop, way: str) -> None:
    host = shop.host
    on_change: object = {"action": "signal", "signal": "USR1"} if way == "signal" else way
    host.start({"web": shop.table("file", "env", on_change=on_change, reload=HUP, instances=2)})
    pids = host.all_running()["web"]
    before = Path(environment(pids[0])["DB_FILE"])
    (first, second) = shop.reload("another value")
    assert first[0] == second[0] == "deliver"
    assert first[1].startswith("changed: DB, URL")
    if way == "restart":
        until(lambda: shop.has("another value", 2), host.logs_of_roles)
        assert set(host.all_running()["web"]).isdisjoint(pids)
        assert [one["why"] for one in shop.noted()] == ["start", "start"]
        assert environment(host.pid("web"))["URL"] == "another value"
    elif way in ("reload", "signal"):
        until(lambda: shop.has("another value", 2), host.logs_of_roles)
        assert shop.noted()[-1]["why"] == ("SIGHUP" if way == "reload" else "SIGUSR1")
        assert shop.noted()[-1]["URL"] == shop.value
        assert host.all_running()["web"] == pids
        assert host.instance("web", 1)["outdated"] == ["URL"]
    else:
        assert before.read_text() == ("another value" if way == "swap" else shop.value)
        assert [one["why"] for one in shop.noted()] == ["start"]
        assert host.all_running()["web"] == pids
        outdated = ["URL"] if way == "swap" else ["DB", "URL"]
        assert host.instance("web")["outdated"] == outdated
    assert shop.planned() == []
    if way != "restart":
        assert "has an older" in host.ctl("why", "web").stdout
        host.ctl("restart", "web")
        until(lambda: shop.has("another value", 2), host.logs_of_roles)
        assert host.instance("web")["outdated"] == []
        assert environment(host.pid("web"))["URL"] == "another value"
    assert before.read_text() == "another value"


def test_a_value_that_the_program_cannot_live_with_reaches_one_instance(shop: Shop) -> None:
    host = shop.host
    table = shop.table("file", refused="bad", instances=3, ready={"notify": True})
    host.start({"web": table | {"backoff": {"base": "1h", "cap": "1h"}}})
    pids = host.all_running()["web"]
    shop.reload("bad")
    host.wait_for("web", "backoff", 0)
    halted = until(lambda: [e for e in host.events("web") if e["kind"] == "roll-halted"])
    assert "instances 1, 2 were left as they are" in halted[0]["detail"]
    assert [host.pid("web", i) for i in (1, 2)] == pids[1:]
    # A core that comes back and asks anew is no reason to go on.
    host.restart_role("core")
    host.core_is_up()
    until(lambda: len([e for e in host.events("web") if e["kind"] == "roll-halted"]) == 2)
    assert [host.pid("web", i) for i in (1, 2)] == pids[1:]
    shop.reload("good")
    until(lambda: shop.has("good", 3), host.logs_of_roles)
    assert set(host.all_running()["web"]).isdisjoint(pids)


def test_each_instance_is_up_before_the_next_is_touched(shop: Shop) -> None:
    host = shop.host
    host.start({"web": shop.table("file", instances=3, ready={"notify": True})})
    host.all_running()
    least = 3
    over = threading.Event()

    def watch() -> None:
        nonlocal least
        while not over.is_set():
            instances = host.snapshot()["web"]["instances"]
            least = min(least, sum(i["traffic"] == "in" for i in instances))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        shop.reload("another value")
        until(lambda: shop.has("another value", 3), host.logs_of_roles)
        host.all_running()
    finally:
        over.set()
        watcher.join()
    assert least == 2


def test_a_reader_finds_the_old_files_or_the_new_ones_whole(shop: Shop) -> None:
    host = shop.host
    files = {n: {"value": "${file:token}"} for n in ("A", "B")}
    host.start(
        {
            "web": {
                "command": program("sleep"),
                "min_uptime": "0s",
                "secrets": files,
                "on_change": "swap",
            }
        }
    )
    host.all_running()
    folder = environment(host.pid("web"))["SECRETS_DIR"]
    faults: list[str] = []
    over = threading.Event()
    reads = 0

    def read() -> None:
        nonlocal reads
        while not over.is_set():
            try:
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                pair = set()
                for name in ("A", "B"):
                    with open(os.open(name, os.O_RDONLY, dir_fd=fd)) as file:
                        pair.add(file.read())
                os.close(fd)
                if len(pair) != 1 or len(pair.pop()) != 50_000:
                    faults.append("torn")
                Path(folder, "A").read_bytes()
            except OSError as error:
                faults.append(repr(error))
            reads += 1
            time.sleep(0.0005)

    shop.reload("0" * 50_000)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(1, 9):
            assert shop.reload(str(turn) * 50_000)[0][0] == "deliver"
    finally:
        over.set()
        reader.join()
    assert faults == []
    assert reads > 20
    assert Path(folder, "B").read_text() == "8" * 50_000


# ---------------------------------------------------------------------- the role dies


@pytest.mark.parametrize("way", ["restart", "reload"])
def test_killed_at_any_moment_of_a_delivery(shop: Shop, moments: Moments, way: str) -> None:
    host = shop.host
    host.start({"web": shop.table("file", "fd", reload=HUP, on_change=way, instances=2)})
    host.all_running()
    for trial in range(6):
        value = f"value {trial}"
        shop.reload(value)
        moments.pause(0.3 if way == "restart" else 0.05)
        host.restart_role("services")
        until(partial(shop.has, value, 2), host.logs_of_roles)
        until(lambda: not shop.planned(), host.logs_of_roles)
        host.all_running()
        for index in (0, 1):
            last = shop.noted(index)[-1]
            assert last["DB_FILE"] == value
            if way == "restart":
                assert last["KEY_FD"] == value
            # Whoever was killed in between may have been told twice; never of something older.
            told = [one["DB_FILE"] for one in shop.noted(index)]
            assert told == sorted(told, key=lambda v: int(v.split()[-1]) if " " in v else -1)
    folder = host.run / "services/secrets/web"
    assert (folder / "current/DB").read_text() == "value 5"


def test_an_upgrade_in_place_keeps_what_was_handed_over(shop: Shop) -> None:
    host = shop.host
    host.start({"web": shop.table("file", "fd", reload=HUP, on_change="reload")})
    pids = host.all_running()
    shop.reload("another value")
    until(lambda: shop.has("another value", 1), host.logs_of_roles)
    file = Path(environment(host.pid("web"))["DB_FILE"])
    until(lambda: host.instance("web")["outdated"] == ["KEY"])
    os.kill(host.pids["services"], signal.SIGHUP)
    until(lambda: host.logs_of_roles().count("services ready") == 2, host.logs_of_roles)
    assert host.all_running() == pids
    assert host.instance("web")["outdated"] == ["KEY"]
    assert file.read_text() == "another value"
    until(lambda: shop.planned() != ["services"], "core is back")
    assert shop.planned() == []
    assert len(shop.noted()) == 2
    shop.reload("a third value")
    until(lambda: shop.has("a third value", 1), host.logs_of_roles)


def test_apply_waits_until_everybody_has_it_and_fails_if_somebody_does_not(shop: Shop) -> None:
    host = shop.host
    host.start({"web": shop.table("file", refused="bad", instances=2)})
    host.all_running()
    shop.tell("good")
    assert "applied in" in host.ctl("apply").stdout
    assert shop.has("good", 2)
    shop.tell("bad")
    done = host.ctl("apply", check=False)
    assert done.returncode != 0
    assert "keeps what it was handed before" in done.stderr
    assert shop.noted(1)[-1]["DB_FILE"] == "good"


def test_an_orderly_end_leaves_no_file(shop: Shop) -> None:
    host = shop.host
    host.start({"web": shop.table("file")})
    host.all_running()
    file = Path(environment(host.pid("web"))["DB_FILE"])
    host.ctl("shutdown")
    until(lambda: not file.exists() and not list((host.run / "services/secrets").iterdir()))


def test_nothing_is_left_of_a_service_that_is_no_more(shop: Shop) -> None:
    host = shop.host
    host.start({"web": shop.table("file"), "other": shop.table("file")})
    host.all_running()
    host.configure({"other": shop.table("file")})
    host.ctl("apply")
    folder = host.run / "services/secrets"
    until(lambda: [path.name for path in folder.iterdir()] == ["other"])
