"""What is kept of an unplanned end, how equal ones are counted, and the story that is told."""

import json
import os
import signal
from datetime import UTC, datetime

from tests.integration.services.host import Host, program, until

SCRIPT = """
echo "order $$ at 0x$$abcdef: starting" >&2
head -c 30000000 /dev/zero | tail -c 1 >/dev/null
i=0; while [ $i -lt 50 ]; do echo "line $i" >&2; i=$((i+1)); done
echo "Traceback: order $$ cannot be packed" >&2
exit 3
"""


def test_a_record_says_what_died_of_what(host: Host) -> None:
    began = datetime.now(tz=UTC)
    host.start(
        {
            "web": {
                "command": ["sh", "-c", SCRIPT],
                "backoff": {"base": "1h", "cap": "1h"},
                "min_uptime": "0s",
            }
        }
    )
    host.wait_for("web", "backoff")
    until(lambda: len(host.crashes("web")) == 2)
    first, second = host.crashes("web")
    assert datetime.fromisoformat(first["time"]) >= began.replace(microsecond=0)
    assert (first["service"], first["instance"], first["cause"]) == ("web", 0, "exit-code")
    assert (first["exit_code"], first["signal"], first["oom"]) == (3, None, False)
    assert first["detail"] == "exit code 3"
    assert first["pid"] != second["pid"]
    assert 0 < first["uptime_seconds"] < 60
    assert first["cpu_seconds"] >= 0
    assert first["last_output"][-1].endswith("cannot be packed")
    assert first["last_output"][-2] == "line 49"
    assert len(first["last_output"]) == 20
    assert (first["failures"], first["restarts_in_window"]) == (1, 1)
    assert (second["failures"], second["restarts_in_window"]) == (2, 2)
    assert first["next"] == "started again"
    assert second["next"].startswith("start again in 3")
    # Their pids stand in their last words; it is the same crash all the same.
    assert (first["count"], second["count"]) == (1, 2)
    assert first["fingerprint"] == second["fingerprint"]


def test_equal_crashes_are_counted_over_the_death_of_the_role(host: Host) -> None:
    kind = host.files / "kind"
    kind.write_text("3")
    script = f"echo 'out of paper' >&2; exit $(cat {kind})"
    host.start(
        {"web": {"command": ["sh", "-c", script], "backoff": {"base": "1h", "cap": "1h"}}},
    )
    until(lambda: len(host.crashes("web")) == 2)
    host.restart_role("services")
    host.core_is_up()
    host.ctl("restart", "web", "--no-wait")
    until(lambda: len(host.crashes("web")) == 4)
    kind.write_text("4")
    host.ctl("restart", "web", "--no-wait")
    until(lambda: len(host.crashes("web")) == 6)
    records = host.crashes("web")
    assert [r["count"] for r in records] == [1, 2, 3, 4, 1, 2]
    assert len({r["fingerprint"] for r in records}) == 2
    why = json.loads(host.ctl("why", "web", "--json").stdout)
    groups = {c["fingerprint"]: c for c in why["crashes"]}
    assert [groups[records[i]["fingerprint"]]["count"] for i in (0, 5)] == [4, 2]


def test_why_tells_the_story(host: Host) -> None:
    host.start(
        {
            "web": {
                "command": ["sh", "-c", "echo 'no such table: orders' >&2; exit 3"],
                "backoff": {"base": "1h", "cap": "1h"},
            }
        }
    )
    until(lambda: len(host.crashes("web")) == 2)
    host.wait_for("web", "backoff")
    told = until(
        lambda: text if "seen 2 times" in (text := host.ctl("why", "web").stdout) else None
    )
    assert "exit code 3" in told
    assert "no such table: orders" in told
    assert "in backoff after 2 failures in a row" in told
    assert "the next try is in" in told
    assert "atlasctl logs web" in told


def test_a_planned_end_is_no_crash(host: Host) -> None:
    services: dict[str, dict[str, object]] = {
        "stopped": {"command": program("count", 0.01), "min_uptime": "0s"},
        "restarted": {"command": ["sleep", "1000"], "min_uptime": "0s"},
        "killed": {
            "command": program("stubborn"),
            "stop": {"timeout": "100ms"},
            "min_uptime": "0s",
        },
        "changed": {"command": ["sleep", "1000"], "min_uptime": "0s"},
        "scaled": {"command": ["sleep", "1000"], "instances": 2, "min_uptime": "0s"},
        "finished": {"command": ["true"], "type": "oneshot"},
    }
    host.start(services)
    host.wait_for("finished", "exited")
    host.all_running([n for n in services if n != "finished"])
    host.ctl("stop", "stopped", "killed")
    host.ctl("restart", "restarted")
    host.ctl("scale", "scaled=1")
    services["changed"]["command"] = ["sleep", "2000"]
    host.configure(services)
    host.ctl("apply")
    until(lambda: any("2000" in line for line in host.commands().values()))
    assert {name: host.crashes(name) for name in services} == {name: [] for name in services}
    assert all(not s["restarts_total"] for s in host.snapshot().values())


def test_a_crash_loop_is_flagged(host: Host) -> None:
    host.start(
        {
            "web": {
                "command": program("crash", 1),
                "backoff": {"base": "20ms", "cap": "20ms"},
                "min_uptime": "0s",
            }
        }
    )
    until(lambda: len(host.crashes("web")) >= 7)
    assert host.instance("web")["crash_loop"] is True
    assert host.instance("web")["health"] in ("fail", "warn")
    assert "keeps crashing" in host.ctl("status", "web").stdout


def test_the_first_failure_since_a_stable_run_restarts_at_once(host: Host) -> None:
    host.start(
        {
            "web": {
                "command": ["sleep", "1000"],
                "backoff": {"base": "1h", "cap": "1h", "stable_for": "300ms"},
                "min_uptime": "0s",
            }
        }
    )
    for number in range(1, 4):
        pid = host.wait_for("web")["pid"]
        until(lambda: host.instance("web")["failures"] == 0)
        os.kill(pid, signal.SIGKILL)
        until(lambda number=number: host.instance("web")["restarts"] == number)  # type: ignore[misc]
    # Not stable yet: now it has to wait.
    host.ctl("stop", "web")
    host.configure(
        {
            "web": {
                "command": ["sleep", "1000"],
                "backoff": {"base": "1h", "cap": "1h", "stable_for": "1h"},
                "min_uptime": "0s",
            }
        }
    )
    host.ctl("apply")
    host.ctl("start", "web")
    os.kill(host.pid("web"), signal.SIGKILL)
    until(lambda: host.instance("web")["restarts"] == 4)
    os.kill(host.wait_for("web")["pid"], signal.SIGKILL)
    web = host.wait_for("web", "backoff")
    assert web["next_start_in"] > 3000
    assert web["failures"] == 2
