"""Configurations that take over in a real daemon: signals, followed files, plugins, rollback."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atlasd.errors import AtlasError
from tests.integration.daemons import Atlas, atlas, until

SHOP = """\
# the shop
[services.web]
command = "sleep 1000"  # it serves
start_timeout = "20s"

[services.web.env]
PORT = "8000"
"""


@pytest.fixture
def host() -> Iterator[Atlas]:
    with atlas() as made:
        made.configure(SHOP)
        yield made


def ctl(host: Atlas, *arguments: str, code: int = 0, given: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "atlasd.cli.atlasctl", *arguments, "--root", str(host.root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def ctl_json(host: Atlas, *arguments: str) -> Any:
    return json.loads(ctl(host, *arguments, "--json"))


def etc(host: Atlas, name: str = "atlasd.toml") -> Path:
    return Path(host.paths.etc, name)


def edit(host: Atlas, old: str, new: str) -> None:
    """As an editor does it: a new file takes the place of the old one."""
    text = etc(host).read_text()
    assert old in text
    beside = etc(host, "atlasd.toml.new")
    beside.write_text(text.replace(old, new))
    beside.replace(etc(host))


def generation(host: Atlas) -> int:
    number: int = host.client.call("config.show")["generation"]
    return number


def health(host: Atlas) -> dict[str, Any]:
    found: dict[str, Any] = host.client.call("health")
    return found


def events(host: Atlas, kind: str) -> list[dict[str, Any]]:
    return list(host.client.stream("events", kind=kind))


def test_a_signal_has_the_files_read_and_restarts_nothing(host: Atlas) -> None:
    daemon = host.up()
    host.wait_state("web", "running")
    pids = host.pids("web")
    edit(host, "20s", "30s")
    os.kill(daemon.pid, signal.SIGHUP)
    until(lambda: generation(host) == 2, "the second generation")
    edit(host, "8000", "8001")
    os.kill(daemon.pid, signal.SIGHUP)
    until(lambda: generation(host) == 3, "the third generation")
    assert host.pids("web") == pids
    assert [a["action"] for a in host.client.call("plan")["actions"]] == ["restart"]
    kept = host.client.call("config.history")["generations"]
    assert [(g["number"], g["actor"]) for g in kept] == [
        (3, "signal:HUP"),
        (2, "signal:HUP"),
        (1, "start"),
    ]
    assert kept[1]["changes"][0]["effect"] == "live"
    assert kept[0]["changes"][0]["effect"] == "restart service web"
    assert [e["data"]["generation"] for e in events(host, "config-loaded")] == [2, 3]


def test_followed_files_take_over_and_a_broken_one_shows_until_it_is_mended(host: Atlas) -> None:
    host.up(ATLASD__HOST__WATCH_CONFIG="true")
    host.wait_state("web", "running")
    pids = host.pids("web")
    edit(host, "20s", "30s")
    until(lambda: generation(host) == 2, "the change to be followed")
    assert host.service("web")["instances"][0]["state"] == "running"

    edit(host, "[services.web.env]", "[services.web.env")
    found = until(
        lambda: (h := health(host))["status"] == "warn" and h, "the warning about a broken file"
    )
    assert found["checks"]["atlasd:config"][0]["status"] == "warn"
    assert "atlasd.toml:8:" in found["output"]
    status, body = host.http_json("/health")
    assert (status, body["status"]) == (200, "warn")
    assert host.http_json("/health/ready")[1]["status"] == "pass"
    assert generation(host) == 2
    assert "atlasd.toml:8:" in events(host, "config-refused")[-1]["detail"]
    assert "atlasd_config_rejected 1.0" in host.client.text("metrics")

    edit(host, "[services.web.env", "[services.web.env]")
    until(lambda: health(host)["status"] == "pass", "the warning to end")
    assert generation(host) == 2  # it means what it meant

    # What a restart takes is followed too, and waits.
    edit(host, "8000", "8001")
    until(lambda: generation(host) == 3, "the change to be followed")
    assert host.pids("web") == pids
    # A new file in conf.d, and one that had content and is empty now.
    etc(host, "conf.d").mkdir()
    etc(host, "conf.d/log.toml").write_text('[log]\nlevel = "debug"\n')
    until(lambda: generation(host) == 4, "the new file to be followed")
    etc(host).write_text("")
    until(lambda: "the file is empty" in health(host).get("output", ""), "the warning")
    assert generation(host) == 4
    assert host.pids("web") == pids


FREEZE = """
from atlasd import hookimpl
from atlasd.contracts.review import Objection

ATLASD_API = 1

@hookimpl
def review_config(diff):
    for change in diff.changes:
        if change.key.startswith("services.web.env"):
            return Objection(reason="the port is frozen", key=change.key)
"""


def test_a_plugin_that_objects_is_named_and_nothing_has_changed(host: Atlas) -> None:
    drop_in = Path(host.paths.plugins_dir, "freeze.py")
    drop_in.parent.mkdir(mode=0o755)
    drop_in.write_text(FREEZE)
    host.up()
    edit(host, "8000", "8001")
    said = ctl(host, "config", "reload", code=5)
    assert "plugin freeze objects to services.web.env.PORT: the port is frozen" in said
    assert generation(host) == 1
    assert "the port is frozen" in health(host)["output"]
    assert "the port is frozen" in "".join(host.client.call("plan")["notes"])
    ctl(host, "apply", code=5)
    assert host.client.call("plugins")["plugins"][0]["name"]
    assert 'plugin="freeze",kind="review"' in host.client.text("metrics").replace(
        'kind="review",plugin="freeze"', 'plugin="freeze",kind="review"'
    )
    edit(host, "8001", "8000")
    edit(host, "20s", "30s")
    assert "generation 2 is in force" in ctl(host, "config", "reload")
    assert health(host)["status"] == "pass"


def test_a_rollback_gives_the_files_back_and_the_service_its_old_program(host: Atlas) -> None:
    host.up()
    host.wait_state("web", "running")
    first = etc(host).read_text()
    edit(host, "8000", "8001")
    etc(host, "conf.d").mkdir()
    etc(host, "conf.d/more.toml").write_text('[services.db]\ncommand = "sleep 1001"\n')
    ctl(host, "apply")
    host.wait_state("db", "running")
    edit(host, "8001", "8002")
    said = ctl(host, "config", "rollback", code=5)
    assert "atlasd.toml was changed since generation 2" in said
    done = ctl_json(host, "config", "rollback", "1", "--force")
    assert (done["restored"], done["generation"]) == (1, 3)
    assert etc(host).read_text() == first
    assert not etc(host, "conf.d/more.toml").exists()
    assert "8002" in etc(host, "atlasd.toml.bak").read_text()
    ctl(host, "apply")
    assert [s["name"] for s in host.client.call("status")["services"]] == ["web"]
    # And back again.
    ctl(host, "config", "rollback", "2")
    assert "8001" in etc(host).read_text()
    assert etc(host, "conf.d/more.toml").exists()
    kept = host.client.call("config.history")["generations"]
    assert [g["number"] for g in kept] == [4, 3, 2, 1]
    assert [g["number"] for g in kept if g["current"]] == [4]
    # The texts are nobody else's to read.
    assert Path(host.paths.database).stat().st_mode & 0o077 == 0


def test_numbers_go_on_with_the_next_daemon(host: Atlas) -> None:
    daemon = host.up()
    edit(host, "20s", "30s")
    ctl(host, "config", "reload")
    daemon.kill()
    daemon.wait()
    host.up()
    assert generation(host) == 2
    assert len(host.client.call("config.history")["generations"]) == 2


def test_a_setting_is_set_in_its_file_and_comments_stay(host: Atlas) -> None:
    host.up()
    said = ctl(host, "config", "set", "services.web.start_timeout", "40s")
    assert '~ services.web.start_timeout: "20s" → "40s"  (live)' in said
    assert etc(host).read_text() == host_text(host).replace("20s", "40s")
    done = ctl_json(host, "config", "set", "services.web.env.PORT", "9000", "--reload")
    assert done["reloaded"]["generation"] == 2
    assert [a["action"] for a in done["reloaded"]["pending"]] == ["restart"]
    said = ctl(host, "config", "set", "services.web.instances", "many", code=78)
    assert "expected a whole number" in said
    ctl(host, "config", "unset", "services.web.env.PORT")
    assert "PORT" not in etc(host).read_text()
    explained = ctl(host, "config", "explain", "services.web.start_timeout")
    assert 'services.web.start_timeout = "40s"' in explained
    assert "atlasd.toml:" in explained
    assert ctl(host, "config", "get", "services.web.start_timeout") == "40s\n"


def host_text(host: Atlas) -> str:
    return '[api]\nlisten = "127.0.0.1:0"\n' + SHOP


def test_writers_at_the_same_time_lose_nothing(host: Atlas) -> None:
    """Through the daemon and without one, all at once: each key of each writer is there."""
    host.up()
    faults: list[BaseException] = []

    def through_core(n: int) -> None:
        try:
            for m in range(3):
                host.client.call("config.set", key=f"services.web.env.C{n}{m}", value="x")
        except BaseException as error:  # noqa: BLE001  it is looked at below
            faults.append(error)

    def alone(n: int) -> None:
        request = json.dumps({"key": f"services.web.env.A{n}", "value": "x"})
        done = subprocess.run(
            [sys.executable, "-m", "atlasd", "config", "config.set", "--root", str(host.root)],
            input=request.encode(),
            capture_output=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            faults.append(AssertionError(done.stdout + done.stderr))

    threads = [threading.Thread(target=through_core, args=(n,)) for n in range(3)]
    threads += [threading.Thread(target=alone, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert faults == []
    env = ctl_json(host, "config", "show")["settings"]["services"]["web"]["env"]
    assert set(env) == {"PORT"}  # what is in force has not changed yet
    ctl(host, "config", "reload")
    env = ctl_json(host, "config", "show")["settings"]["services"]["web"]["env"]
    names = {f"C{n}{m}" for n in range(3) for m in range(3)} | {"A0", "A1"}
    assert set(env) == {"PORT"} | names


def test_without_a_daemon_the_files_are_asked(host: Atlas) -> None:
    ctl(host, "config", "set", "log.level", "debug", "--file", "conf.d/log.toml")
    assert etc(host, "conf.d/log.toml").read_text() == '[log]\nlevel = "debug"\n'
    assert etc(host, "conf.d/log.toml").stat().st_mode == etc(host).stat().st_mode
    said = ctl(host, "config", "set", "log.level", "info", "--file", "atlasd.toml", code=5)
    assert "conf.d/log.toml:2:9" in said
    ctl(host, "config", "set", "log.level", "error", "--env", "staging")
    said = ctl(host, "config", "diff", "production", "staging")
    assert "log.level" in said
    assert "environments/staging.toml:2:9" in said
    assert ctl_json(host, "config", "schema")["$schema"].startswith("https://json-schema.org")
    etc(host).write_text("[services.web]\ncomand = 3\n")
    assert "did you mean 'command'?" in ctl(host, "config", "check", code=78)


def test_a_daemon_that_cannot_start_is_helped_by_a_rollback(host: Atlas) -> None:
    daemon = host.up()
    text = etc(host).read_text()
    daemon.kill()
    daemon.wait()
    etc(host).write_text(text + "\n[broken\n")
    broken = host.start()
    assert broken.wait(60) == 78
    said = ctl(host, "config", "rollback", code=5)
    assert "rollback 1 --force" in said
    ctl(host, "config", "rollback", "--force")
    assert etc(host).read_text() == text
    assert "broken" in etc(host, "atlasd.toml.bak").read_text()
    host.up()
    assert generation(host) == 1


def test_secrets_stand_in_no_answer_and_no_history(host: Atlas) -> None:
    host.configure(SHOP + 'API_TOKEN = "hunter2222"\nURL = "a://u:hunter3333@h"\n')
    host.up()
    edit(host, "hunter2222", "hunter4444")
    shown = [
        ctl(host, "config", "reload"),
        ctl(host, "config", "show", "--json"),
        ctl(host, "config", "show", "--origin", "--defaults"),
        ctl(host, "config", "export"),
        ctl(host, "config", "get", "services.web.env.API_TOKEN"),
        ctl(host, "config", "explain", "services.web.env.URL"),
        ctl(host, "config", "history", "--changes"),
        ctl(host, "events", "--json"),
        host.output(),
    ]
    assert "hunter" not in "".join(shown)
    assert "hunter4444" in ctl(host, "config", "export", "--reveal")
    with sqlite3.connect(host.paths.database) as store:
        told = store.execute("SELECT changes, detail FROM generations").fetchall()
    assert "hunter" not in repr(told)


def test_core_alone_asks_for_a_free_port_and_says_what_needs_a_new_start(host: Atlas) -> None:
    host.up()
    with pytest.raises(AtlasError) as error:
        host.client.call("config.explain", key="services.web.comand")
    assert error.value.code == "config.unknown"
    assert "'command'" in error.value.hint
    assert host.client.call("config.explain", key="api.listen")["effect"] == "restart api"
