"""The whole of it, by hand as it were: a daemon, real programs, and `atlasctl`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemons import Atlas, alive, atlas, until

SHOP = """
[services.web]
command = ["sleep", "infinity"]
instances = 2
env = {{ ATLAS_TEST_ROOT = "{root}" }}

[services.talker]
command = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; echo oh $i >&2; sleep 0.2; done"]
env = {{ ATLAS_TEST_ROOT = "{root}" }}

[services.broken]
command = ["sh", "-c", "echo it does not work >&2; exit 3"]
enabled = false
env = {{ ATLAS_TEST_ROOT = "{root}" }}
"""


@pytest.fixture
def shop() -> Iterator[Atlas]:
    with atlas() as made:
        made.configure(SHOP.format(root=made.root))
        made.up()
        made.wait_state("web", "running")
        yield made


def ctl(shop: Atlas, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "atlasd.cli.atlasctl", "--root", str(shop.root), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}\n{shop.output()}"
    return done.stdout if code == 0 else done.stderr


def ctl_json(shop: Atlas, *arguments: str) -> Any:
    return json.loads(ctl(shop, *arguments, "--json"))


def test_killed_it_is_back_and_why_tells_it(shop: Atlas) -> None:
    before = shop.pids("web")
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(set(shop.pids("web")) - set(before)) == 1, "another process")
    shop.wait_state("web", "running")
    told = ctl(shop, "why", "web")
    assert "killed by signal KILL" in told
    assert before[1] in shop.pids("web")
    row = next(line for line in ctl(shop, "status").splitlines() if line.startswith("web/0"))
    assert row.split()[1:4] == ["up", "running", "pass"]


def test_stop_and_start_are_what_they_say(shop: Atlas) -> None:
    pids = shop.pids("web")
    assert "web: stopped in" in ctl(shop, "stop", "web")
    assert not any(alive(pid) for pid in pids)
    status = ctl_json(shop, "status", "web")["services"][0]
    assert status["wanted"] == "down"
    assert "web: started in" in ctl(shop, "start", "web")
    assert len(shop.pids("web")) == 2
    assert ctl(shop, "start", "web") == "web: runs already\n"


def test_one_instance_is_restarted_alone(shop: Atlas) -> None:
    first, second = shop.pids("web")
    ctl(shop, "restart", "web/1")
    again = shop.pids("web")
    assert again[0] == first
    assert again[1] != second


def test_scale_goes_both_ways_without_touching_the_others(shop: Atlas) -> None:
    pids = shop.pids("web")
    ctl(shop, "scale", "web=4")
    more = shop.pids("web")
    assert (more[:2], len(more)) == (pids, 4)
    ctl(shop, "scale", "web=1")
    assert shop.pids("web") == pids[:1]
    assert not any(alive(pid) for pid in more[1:])


def test_a_service_that_cannot_run_fails_its_start(shop: Atlas) -> None:
    said = ctl(shop, "start", "broken", "--timeout", "60", code=1)
    assert "broken could not be started" in said
    assert "exit code 3" in said
    assert "it does not work" in ctl(shop, "why", "broken")
    ctl(shop, "stop", "broken")
    assert ctl_json(shop, "status", "broken")["services"][0]["instances"][0]["pid"] is None


def test_logs_are_filtered_and_followed(shop: Atlas) -> None:
    until(lambda: "line 3" in ctl(shop, "logs", "talker"), "three lines")
    errors = ctl(shop, "logs", "talker", "--stream", "stderr").splitlines()
    assert errors
    assert all(" oh " in line for line in errors)
    assert ctl(shop, "logs", "talker", "--grep", "line 2$").count("\n") == 1
    row = json.loads(ctl(shop, "logs", "talker", "-n", "1", "--json"))
    assert set(row) == {"time", "service", "instance", "stream", "message"}
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "atlasd.cli.atlasctl", "--root", str(shop.root)),
            *("logs", "talker", "-f", "-n", "0", "--grep", "line", "--json"),
        ],
        stdout=subprocess.PIPE,
    ) as following:
        assert following.stdout is not None
        numbers = [
            int(json.loads(following.stdout.readline())["message"].split()[1]) for _ in range(5)
        ]
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 130
    assert numbers == list(range(numbers[0], numbers[0] + 5))


def test_one_changed_service_of_twenty_is_one_action(shop: Atlas) -> None:
    def configuration(changed: str) -> str:
        many = "".join(
            f'[services.s{n:02}]\ncommand = ["sleep", "{changed if n == 7 else "1000"}"]\n'
            f'env = {{ ATLAS_TEST_ROOT = "{shop.root}" }}\n'
            for n in range(20)
        )
        return SHOP.format(root=shop.root) + many

    shop.configure(configuration("1000"))
    assert "20 steps" in ctl(shop, "apply")
    before = {name: shop.pids(name) for name in ("s06", "s07", "s08", "web")}
    shop.configure(configuration("2000"))
    plan = ctl_json(shop, "plan")
    assert [(a["service"], a["action"]) for a in plan["actions"]] == [("s07", "restart")]
    assert "command" in plan["actions"][0]["detail"]
    assert shop.pids("s07") == before["s07"]  # a plan changes nothing
    assert "1 step" in ctl(shop, "apply")
    after = {name: shop.pids(name) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"s07"}
    assert "nothing to do" in ctl(shop, "plan")


def test_an_invalid_configuration_changes_nothing(shop: Atlas) -> None:
    pids = shop.pids("web")
    shop.configure(SHOP.format(root=shop.root).replace("instances", "instanzes"))
    said = ctl(shop, "apply", code=78)
    assert "atlasd.toml" in said
    assert "instanzes" in said
    assert "instances" in said
    assert shop.pids("web") == pids
    checked = subprocess.run(
        [sys.executable, "-m", "atlasd", "check", "--root", str(shop.root), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 78
    problem = json.loads(checked.stdout)["problems"][0]
    assert (problem["key"], problem["line"] > 0) == ("services.web.instanzes", True)


def test_a_second_daemon_on_the_root_refuses(shop: Atlas) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "atlasd", "run", "--root", str(shop.root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 5
    assert "already uses" in second.stderr
    assert len(shop.pids("web")) == 2


def test_shutdown_takes_the_services_along(shop: Atlas) -> None:
    pids = shop.pids("web")
    said = ctl(shop, "shutdown")
    assert "stopping atlasd and its 3 services" in said
    assert shop.processes[0].wait(60) == 0
    until(lambda: not any(alive(pid) for pid in pids), "the services to be gone")
    assert "no daemon answers" in ctl(shop, "status", code=7)


def test_shutdown_can_leave_the_services_and_the_next_daemon_adopts_them(shop: Atlas) -> None:
    pids = shop.pids("web")
    assert "left running" in ctl(shop, "shutdown", "--keep-services")
    assert shop.processes[0].wait(60) == 0
    assert all(alive(pid) for pid in pids)
    shop.up()
    assert shop.pids("web") == pids


def test_a_written_plugin_is_admitted_by_the_next_daemon(shop: Atlas) -> None:
    ctl(shop, "shutdown")
    shop.processes[0].wait(60)
    kinds = ("check", "subscriber", "operation", "collector", "component", "config-source")
    for kind in kinds:
        ctl(shop, "plugins", "new", kind, f"my_{kind.replace('-', '_')}")
    shop.up()
    found = {p["name"]: p for p in ctl_json(shop, "plugins")["plugins"]}
    mine = {name: p for name, p in found.items() if name.startswith("my_")}
    assert {name: (p["state"], p["reason"]) for name, p in mine.items()} == {
        f"my_{kind.replace('-', '_')}": ("admitted", "") for kind in kinds
    }
    assert all(p["offers"] for p in mine.values())
    assert Path(shop.paths.plugins_dir, "my_check.py").exists()
