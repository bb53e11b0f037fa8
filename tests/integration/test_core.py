"""The daemon as a whole, with real processes: `atlasd run` and the roles on their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlasd.errors import EXIT_CONFLICT, AtlasError
from tests.integration.daemons import Atlas, alive, atlas, until

SLEEP = """
[services.{name}]
command = ["sleep", "3600"]
env = {{ ATLAS_TEST_ROOT = "{root}" }}
"""


FLAG = """
[checks.flag]
type = "exec"
command = ["sh", "-c", "test -e {flag} || exit 2"]
interval = "500ms"
"""


@pytest.fixture
def host() -> Iterator[Atlas]:
    with atlas() as made:
        yield made


def sleepers(host: Atlas, *names: str, **extra: str) -> str:
    return "".join(SLEEP.format(name=name, root=host.root) + extra.get(name, "") for name in names)


def steps(body: dict[str, object], key: str = "actions") -> list[tuple[str, int, str]]:
    found = body[key]
    assert isinstance(found, list)
    return [(a["service"], a["instance"], a["action"]) for a in found]


def test_run_starts_what_is_configured_and_stops_it_in_the_end(host: Atlas) -> None:
    host.configure(sleepers(host, "web", "db"))
    daemon = host.up()
    pids = [
        *host.wait_state("web", "running")["instances"],
        *host.wait_state("db", "running")["instances"],
    ]
    services = host.services_pid()
    daemon.send_signal(signal.SIGINT)
    assert daemon.wait(60) == 0, host.output()
    assert not any(alive(instance["pid"]) for instance in pids)
    assert not alive(services)
    assert host.marked() == []
    assert not Path(host.paths.control_socket).exists()
    assert not Path(host.paths.services_socket).exists()


def test_a_killed_daemon_leaves_services_running_and_the_next_one_adopts_them(
    host: Atlas,
) -> None:
    host.configure(sleepers(host, "web"))
    daemon = host.up()
    host.wait_state("web", "running")
    pids, services = host.pids("web"), host.services_pid()
    daemon.kill()
    daemon.wait()
    assert all(alive(pid) for pid in pids)
    host.up()
    assert host.services_pid() == services
    assert host.pids("web") == pids
    assert host.service("web")["instances"][0]["restarts"] == 0


def test_a_killed_services_role_is_started_again_and_adopts(host: Atlas) -> None:
    host.configure(sleepers(host, "web", "db"))
    host.up()
    host.wait_state("web", "running")
    host.wait_state("db", "running")
    before = host.pids("web") + host.pids("db")
    services = host.services_pid()
    os.kill(services, signal.SIGKILL)
    until(lambda: host.services_pid() != services, "another services role")
    host.wait_settled()
    assert host.pids("web") + host.pids("db") == before
    kinds = [event["kind"] for event in host.client.stream("events", limit=50)]
    assert "services-disconnected" in kinds
    assert kinds.count("services-connected") == 2


def test_the_second_daemon_on_a_root_refuses(host: Atlas) -> None:
    host.configure(sleepers(host, "web"))
    first = host.up()
    for role in ("run", "core"):
        answer = subprocess.run(
            [sys.executable, "-m", "atlasd", role, "--root", str(host.root)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert answer.returncode == EXIT_CONFLICT
        assert f"another daemon (pid {first.pid})" in answer.stderr
        assert "Traceback" not in answer.stderr
    host.wait_state("web", "running")


def test_a_stale_socket_and_lock_file_do_no_harm(host: Atlas) -> None:
    host.configure("")
    Path(host.paths.run).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(host.paths.control_socket)
    Path(host.paths.run, "core.lock").write_text("1\n")
    host.up()
    assert host.client.call("status") == {"services": []}


def test_a_broken_configuration_keeps_the_daemon_from_starting_and_says_where(
    host: Atlas,
) -> None:
    host.configure('[services.web]\ncomand = "sleep 1"\n')
    daemon = host.start()
    assert daemon.wait(60) == 78
    output = host.output()
    assert "atlasd.toml:4" in output
    assert "did you mean" in output
    assert "Traceback" not in output


def test_stop_scale_and_pause_outlive_the_daemon(host: Atlas) -> None:
    host.configure(sleepers(host, "web", "api", "job"))
    daemon = host.up()
    for name in ("web", "api", "job"):
        host.wait_state(name, "running")
    host.client.call("service.stop", service="web")
    host.client.call("service.scale", service="api", instances=3)
    host.client.call("service.pause", service="job")
    host.wait_state("web", "stopped")
    until(lambda: len(host.pids("api")) == 3, "three instances")
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(60) == 0
    host.up()
    until(lambda: len(host.pids("api")) == 3, "three instances again")
    assert host.service("web")["wanted"] == "down"
    assert host.pids("web") == []
    assert host.service("job")["wanted"] == "paused"
    host.configure(sleepers(host, "web", "api", "job", api="instances = 2\n"))
    host.client.call("apply")
    until(lambda: len(host.pids("api")) == 2, "the newly configured number")
    assert host.pids("web") == []


def test_starting_a_service_wants_what_it_requires_too(host: Atlas) -> None:
    host.configure(sleepers(host, "db", "web", web='requires = ["db"]\n'))
    host.up()
    host.wait_state("web", "running")
    for name in ("web", "db"):
        host.client.call("service.stop", service=name)
        host.wait_state(name, "stopped")
    host.client.call("service.start", service="web")
    host.wait_state("web", "running")
    assert host.client.call("plan")["actions"] == []
    assert host.service("db")["wanted"] == "up"


def test_what_cannot_be_done_is_not_remembered(host: Atlas) -> None:
    host.configure(sleepers(host, "web", web="enabled = false\n"))
    host.up()
    for operation in ("start", "stop", "restart"):
        with pytest.raises(AtlasError) as caught:
            host.client.call(f"service.{operation}", service="web", instance=7)
        assert caught.value.code == "instance.unknown"
    assert host.client.call("plan")["actions"] == []
    assert host.service("web")["wanted"] == "down"


def test_one_changed_service_of_twenty_is_one_action(host: Atlas) -> None:
    names = [f"s{n:02}" for n in range(20)]
    host.configure(sleepers(host, *names))
    host.up()
    for name in names:
        host.wait_state(name, "running")
    before = {name: host.pids(name) for name in names}
    assert host.client.call("plan") == {
        "actions": [],
        "unchanged": 20,
        "notes": [],
        "next_seq": host.client.call("plan")["next_seq"],
    }
    host.configure(sleepers(host, *names).replace('"3600"]', '"3601"]', 1))
    planned = host.client.call("plan")
    assert steps(planned) == [("s00", 0, "restart")]
    assert planned["unchanged"] == 19
    assert "command" in planned["actions"][0]["detail"]
    assert steps(host.client.call("apply")) == [("s00", 0, "restart")]
    until(lambda: host.pids("s00") not in ([], before["s00"]), "a new s00")
    after = {name: host.pids(name) for name in names}
    assert {name for name in names if after[name] != before[name]} == {"s00"}
    assert host.client.call("plan")["actions"] == []


@pytest.mark.parametrize("how", ["apply", "reload", "hup"])
def test_a_bad_file_changes_nothing(host: Atlas, how: str) -> None:
    host.configure(sleepers(host, "web"))
    daemon = host.up()
    host.wait_state("web", "running")
    before = host.pids("web")
    host.configure(sleepers(host, "web", "new") + "[services.bad]\ncommand = 7\n")
    if how == "hup":
        daemon.send_signal(signal.SIGHUP)
        until(lambda: "configuration not read anew" in host.output(), "the refusal in the log")
    else:
        with pytest.raises(AtlasError) as caught:
            host.client.call("apply" if how == "apply" else "config.reload")
        assert caught.value.code == "config.invalid"
        assert "atlasd.toml" in caught.value.message
    assert host.pids("web") == before
    assert [s["name"] for s in host.client.call("status")["services"]] == ["web"]
    events = list(host.client.stream("events", limit=20, kind="config-refused"))
    assert len(events) == 1


def test_a_reload_takes_over_what_needs_no_restart_and_names_what_waits(host: Atlas) -> None:
    host.configure(sleepers(host, "web", "db"))
    host.up()
    host.wait_state("web", "running")
    host.wait_state("db", "running")
    before = host.pids("web") + host.pids("db")
    changed = sleepers(host, "web", "db", web="critical = true\n", db="nice = 5\n")
    host.configure(changed)
    done = host.client.call("config.reload")
    assert steps(done, "applied") == [("web", 0, "update")]
    assert steps(done, "pending") == [("db", 0, "restart")]
    assert host.client.call("service", service="web")["critical"] is True
    assert host.pids("web") + host.pids("db") == before
    assert steps(host.client.call("apply")) == [("db", 0, "restart")]
    host.configure(changed + sleepers(host, "new"))
    assert steps(host.client.call("config.reload"), "pending") == [("new", 0, "start")]
    with pytest.raises(AtlasError, match="waits to be applied"):
        host.client.call("service.start", service="new")


def test_why_tells_of_a_kill_in_plain_words(host: Atlas) -> None:
    host.configure(sleepers(host, "web"))
    host.up()
    host.wait_state("web", "running")
    (pid,) = host.pids("web")
    os.kill(pid, signal.SIGKILL)
    until(lambda: host.pids("web") not in ([], [pid]), "another process")
    host.wait_state("web", "running")
    told = until(
        lambda: (w := host.client.call("service.why", service="web"))["crashes"] and w,
        "the crash record",
    )
    story = "\n".join(told["story"])
    assert "it ended (killed by signal KILL)" in story
    assert "it was started again" in story
    assert "web is running, and wanted up." in told["story"]
    assert told["crashes"][0]["signal"] == "KILL"
    assert told["crashes"][0]["count"] == 1


def test_why_knows_who_asked(host: Atlas) -> None:
    host.configure(sleepers(host, "web"))
    host.up()
    host.wait_state("web", "running")
    host.client.call("service.stop", service="web")
    host.wait_state("web", "stopped")
    told = host.client.call("service.why", service="web")
    assert any(f"uid:{os.getuid()} asked for service.stop" in line for line in told["story"])
    assert told["next"] == ["`atlasctl start web` starts it."]
    with pytest.raises(AtlasError) as caught:
        host.client.call("service.why", service="wbe")
    assert caught.value.code == "service.unknown"
    assert "did you mean 'web'" in caught.value.hint


def test_events_resume_without_a_gap_and_follow(host: Atlas) -> None:
    host.configure(sleepers(host, "web"))
    host.up()
    host.wait_state("web", "running")
    past = list(host.client.stream("events"))
    seqs = [int(str(event["seq"])) for event in past]
    assert seqs == list(range(1, len(seqs) + 1))
    with host.client.stream("events", follow=True, since=1) as stream:
        again = [stream.read(timeout=30) for _ in past]
        assert [event["seq"] for event in again if event] == seqs
        (pid,) = host.pids("web")
        os.kill(pid, signal.SIGKILL)
        kinds: list[object] = []
        last = seqs[-1]
        while "crash" not in kinds:
            event = stream.read(timeout=30)
            assert event is not None
            assert event["seq"] == last + 1
            last += 1
            kinds.append(event["kind"])


def test_the_journal_outlives_core_and_misses_nothing_that_happened_meanwhile(
    host: Atlas,
) -> None:
    host.configure(sleepers(host, "web"))
    services = host.start("services")
    core = host.up("core")
    host.wait_state("web", "running")
    (pid,) = host.pids("web")
    core.kill()
    core.wait()
    os.kill(pid, signal.SIGKILL)  # while nobody is there to hear of it
    host.up("core")
    host.wait_state("web", "running")
    crashes = until(
        lambda: list(host.client.stream("events", kind="crash")), "the crash in the journal"
    )
    assert len(crashes) == 1
    assert crashes[0]["detail"] == "killed by signal KILL"
    assert services.poll() is None
    moves = list(host.client.stream("events", kind="transition"))
    told = [(m["old"], m["new"], m["time"]) for m in moves]
    assert len(told) == len(set(told)), "nothing is journalled twice"


def test_core_answers_without_the_services_role_and_says_so(host: Atlas) -> None:
    host.configure(sleepers(host, "web"))
    host.start("core")
    until(lambda: host.client.call("version"), "core")
    with pytest.raises(AtlasError) as caught:
        host.client.call("status")
    assert caught.value.code == "services.unreachable"
    until(lambda: host.client.call("health")["status"] == "fail", "health to say so")
    body = host.client.call("health")
    assert "the services role does not answer" in body["output"]
    assert host.client.call("version")["services"] is None
    doctor = host.client.call("doctor")["capabilities"]
    assert doctor[0]["name"] == "services-role"
    assert doctor[0]["available"] is False
    # What is asked meanwhile is remembered, and done when the role is there.
    with pytest.raises(AtlasError) as caught:
        host.client.call("service.stop", service="web")
    assert "what was asked is remembered" in caught.value.hint
    host.start("services")
    host.wait_settled()
    assert host.service("web")["wanted"] == "down"
    assert host.pids("web") == []


def test_shutdown_stops_everything_and_keep_services_does_not(host: Atlas) -> None:
    host.configure(sleepers(host, "web"))
    daemon = host.up()
    host.wait_state("web", "running")
    (pid,) = host.pids("web")
    answer = host.client.call("shutdown", keep_services=True)
    assert answer == {"keep_services": True, "services": ["web"]}
    assert daemon.wait(60) == 0, host.output()
    assert alive(pid)
    daemon = host.up()
    assert host.pids("web") == [pid]
    host.client.call("shutdown")
    assert daemon.wait(60) == 0, host.output()
    assert not alive(pid)


def test_logs_are_read_and_followed_through_core(host: Atlas) -> None:
    script = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.05; done"
    host.configure(
        f'[services.web]\ncommand = ["sh", "-c", "{script}"]\n'
        f'env = {{ ATLAS_TEST_ROOT = "{host.root}" }}\n'
    )
    host.up()
    until(lambda: len(list(host.client.stream("service.logs", service="web"))) > 3, "some output")
    last = list(host.client.stream("service.logs", service="web", lines=2))
    assert len(last) == 2
    with host.client.stream("logs", follow=True, lines=1) as stream:
        seen = [stream.read(timeout=30) for _ in range(6)]
    numbers = [int(str(line["message"]).split()[1]) for line in seen if line]
    assert numbers == list(range(numbers[0], numbers[0] + 6))
    matched = list(host.client.stream("service.logs", service="web", grep="line 1$"))
    assert [line["message"] for line in matched] == ["line 1"]


def test_checks_run_are_reported_and_follow_the_configuration(host: Atlas) -> None:
    flag = host.root / "flag"
    check = FLAG.format(flag=flag)
    host.configure(check + "critical = true\n")
    host.up()

    def status() -> str:
        (found,) = host.client.call("checks")["checks"]
        return str(found["status"])

    until(lambda: status() == "fail", "the check to fail")
    assert host.client.call("health")["status"] == "fail"
    flag.touch()
    until(lambda: status() == "pass", "the check to pass")
    assert host.client.call("health")["status"] == "pass"
    changes = list(host.client.stream("events", kind="check"))
    assert [event["new"] for event in changes][-2:] == ["fail", "pass"]
    host.configure(check.replace("checks.flag", "checks.other"))
    host.client.call("apply")

    def names() -> list[str]:
        return [c["name"] for c in host.client.call("checks")["checks"] if c["status"] == "pass"]

    until(lambda: names() == ["other"], "the other check")


def test_the_last_words_of_a_hanging_core_stand_in_its_log(host: Atlas) -> None:
    plugins = Path(host.paths.plugins_dir)
    plugins.mkdir(parents=True)
    (plugins / "stuck.py").write_text(
        "import time\n"
        "from contextlib import asynccontextmanager\n"
        "from atlasd import hookimpl\n"
        "from atlasd.contracts.components import Component\n"
        "ATLASD_API = 1\n"
        "class Stuck:\n"
        "    async def run(self):\n"
        "        time.sleep(1000)  # blocks the loop\n"
        "@asynccontextmanager\n"
        "async def open_part(settings, context):\n"
        "    yield Stuck()\n"
        "@hookimpl\n"
        "def register_components():\n"
        "    return [Component(name='stuck', summary='hangs', open=open_part)]\n"
    )
    host.configure("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        address = str(host.root / "notify")
        systemd.bind(address)
        systemd.settimeout(60)
        core = host.start("core", NOTIFY_SOCKET=address, WATCHDOG_USEC="1500000")
        until(lambda: "no progress for" in host.output(), "the stacks in the log")
        output = host.output()
        assert "plugins.d/stuck.py" in output
        assert "task core plugins" in output or "component stuck" in output
        systemd.setblocking(False)
        said = b""
        while True:
            try:
                said += systemd.recv(4096) + b"\n"
            except BlockingIOError:
                break
        assert said.count(b"WATCHDOG=1") <= 1
        time.sleep(0.6)  # longer than a period: nobody pings for a loop that hangs
        with pytest.raises(BlockingIOError):
            systemd.recv(4096)
    core.kill()


def test_systemd_is_told_of_readiness_status_reload_and_the_end(host: Atlas) -> None:
    host.configure(sleepers(host, "web"))
    host.start("services")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        address = str(host.root / "notify")
        systemd.bind(address)
        systemd.settimeout(60)
        core = host.start("core", NOTIFY_SOCKET=address, WATCHDOG_USEC="3000000")
        heard: list[str] = []

        def hear(word: str) -> None:
            while not any(word in line for line in heard):
                heard.extend(systemd.recv(65536).decode().splitlines())

        hear("READY=1")
        hear("WATCHDOG=1")
        hear("STATUS=1 service: 1 running")
        with pytest.raises(AtlasError) as caught:
            host.client.call("shutdown")  # systemd would start it again
        assert "systemctl stop" in caught.value.hint
        core.send_signal(signal.SIGHUP)
        hear("RELOADING=1")
        hear("MONOTONIC_USEC=")
        heard.clear()
        core.send_signal(signal.SIGTERM)
        hear("STOPPING=1")
        assert core.wait(60) == 0


def test_core_alone_leaves_services_alone_when_it_is_told_to_stop(host: Atlas) -> None:
    host.configure(sleepers(host, "web"))
    services = host.start("services")
    core = host.up("core")
    host.wait_state("web", "running")
    (pid,) = host.pids("web")
    core.send_signal(signal.SIGTERM)
    assert core.wait(60) == 0
    assert alive(pid)
    assert services.poll() is None


def test_a_services_role_that_cannot_start_is_explained(host: Atlas) -> None:
    host.configure("")
    Path(host.paths.run, "services", "lock").mkdir(parents=True)
    daemon = host.start()
    assert daemon.wait(60) != 0
    output = host.output()
    assert "the services role could not be started" in output
    assert "services-role.log" in output


def test_a_start_that_fails_leaves_no_services_role_behind(host: Atlas) -> None:
    host.configure(sleepers(host, "web"))
    Path(host.paths.control_socket).mkdir(parents=True)
    daemon = host.start()
    assert daemon.wait(60) != 0
    assert "is in the way" in host.output()
    until(lambda: not host.marked(), "the services role to end")


def test_listening_sockets_outlive_the_services_role_in_cores_hands(host: Atlas) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host.configure(sleepers(host, "web", web=f'sockets.http = "tcp://127.0.0.1:{port}"\n'))
    services = host.start("services")
    host.up("core")
    host.wait_state("web", "running")

    def held() -> float:
        text = host.client.text("metrics")
        line = next(x for x in text.splitlines() if x.startswith("atlasd_held_descriptors "))
        return float(line.split()[1])

    until(lambda: held() >= 1, "core to hold the socket")
    (pid,) = host.pids("web")
    services.kill()
    services.wait()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), "the program's end")
    # Now nobody but core has the socket: whoever connects waits in its queue.
    waiting = socket.create_connection(("127.0.0.1", port), timeout=30)
    host.start("services")
    host.wait_settled()
    host.wait_state("web", "running")
    socket.create_connection(("127.0.0.1", port), timeout=30).close()
    waiting.settimeout(0.05)
    with pytest.raises(TimeoutError):
        waiting.recv(1)  # neither reset nor closed: it is the same socket
    waiting.close()
