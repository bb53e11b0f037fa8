"""Health and metrics over HTTP, from a real daemon."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.daemons import Atlas, atlas, until

CONFIG = """
[services.web]
command = ["sleep", "3600"]
critical = true
env = {{ ATLAS_TEST_ROOT = "{root}" }}
[services.side]
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
        made.configure(CONFIG.format(root=made.root))
        yield made


def values(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_healthy_host_answers_pass_with_details(host: Atlas) -> None:
    host.up()
    host.wait_state("web", "running")
    host.wait_state("side", "running")
    status, media, _ = host.http("/health")
    assert (status, media.split(";")[0]) == (200, "application/health+json")
    status, body = until(
        lambda: (found := host.http_json("/health"))[1]["status"] == "pass" and found, "health"
    )
    assert status == 200
    (entry,) = body["checks"]["web:state"]
    assert entry["componentId"] == "web/0"
    assert entry["observedValue"] == "running"
    assert None not in entry.values()
    status, body = host.http_json("/health/services/web")
    assert (status, body["serviceId"], body["status"]) == (200, "web", "pass")
    assert host.http_json("/health/live")[0] == 200
    assert host.http_json("/health/ready") == (200, host.http_json("/health/ready")[1])


def test_a_critical_service_that_failed_is_503_and_another_is_not(host: Atlas) -> None:
    host.configure(
        CONFIG.format(root=host.root).replace(
            'command = ["sleep", "3600"]\ncritical',
            'command = ["false"]\nrestart = "never"\ncritical',
        )
    )
    host.up()
    host.wait_state("web", "failed")
    status, body = host.http_json("/health")
    assert (status, body["status"]) == (503, "fail")
    assert "web/0: failed" in body["output"]
    assert host.http_json("/health/services/web")[0] == 503
    assert host.http_json("/health/services/side")[0] == 200
    assert host.http_json("/health/live")[0] == 200
    assert host.http_json("/health/ready")[0] == 200, "atlasd itself does its work"


def test_what_is_not_there_is_404_with_a_hint(host: Atlas) -> None:
    host.up()
    host.wait_state("web", "running")
    status, body = host.http_json("/health/services/wbe")
    assert status == 404
    assert "did you mean 'web'" in body["error"]["hint"]
    status, body = host.http_json("/nowhere")
    assert (status, body["error"]["code"]) == (404, "operation.unknown")


def test_what_is_no_http_is_refused_in_one_line_of_the_log(host: Atlas) -> None:
    host.up()
    host.http("/health/live")
    address, _, port = Path(host.paths.run, "api.address").read_text().strip().rpartition(":")
    with socket.create_connection((address, int(port)), timeout=30) as peer:
        peer.sendall(b"GET / HTTP/9.9\r\n\r\n")
        assert peer.recv(100).startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    until(lambda: "a request that is no HTTP" in host.output(), "a line in the log")
    assert "Traceback" not in host.output()


def test_a_stranger_hears_the_verdict_and_nothing_else(host: Atlas) -> None:
    host.up()
    host.wait_state("web", "running")
    forwarded = {"X-Forwarded-For": "203.0.113.7"}
    status, body = host.http_json("/health", **forwarded)
    assert status == 200
    assert body.keys() == {"status"}
    assert host.http_json("/health/services/never", **forwarded)[1].keys() == {"status"}
    status, body = host.http_json("/metrics", **forwarded)
    assert (status, body["error"]["code"]) == (403, "operation.denied")
    assert host.http_json("/health", Host="evil.example")[1].keys() == {"status"}


def test_metrics_tell_of_services_and_of_core_itself(host: Atlas) -> None:
    host.up()
    host.wait_state("web", "running")
    (pid,) = host.pids("web")
    os.kill(pid, signal.SIGKILL)
    until(lambda: host.pids("web") not in ([], [pid]), "another process")
    host.wait_state("web", "running")
    status, media, text = host.http("/metrics")
    assert status == 200
    assert media.startswith("text/plain; version=0.0.4")
    found = values(text)
    running = frozenset({("service", "web"), ("instance", "0"), ("state", "running")})
    assert found["atlasd_service_state", running] == 1
    killed = frozenset({("service", "web"), ("reason", "signal")})
    assert found["atlasd_service_restarts_total", killed] == 1
    names = {name for name, _ in found}
    assert names >= {
        "atlasd_build_info",
        "atlasd_loop_lag_seconds",
        "atlasd_tick_duration_seconds_count",
        "atlasd_plugin_calls_total",
        "atlasd_watchdog_pings_total",
        "atlasd_bus_dropped_total",
        "atlasd_config_reloads_total",
        "atlasd_service_start_duration_seconds_count",
        "atlasd_service_memory_bytes",
        "process_cpu_seconds_total",
    }
    for role in ("api", "core", "services"):
        assert found["atlasd_up", frozenset({("role", role)})] == 1


def test_promtool_finds_nothing_to_say_about_a_scrape(host: Atlas) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    host.up()
    host.wait_state("web", "running")
    host.http("/health")
    _, _, text = host.http("/metrics")
    answer = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_with_core_gone_health_is_503_and_says_why_and_metrics_still_answer(host: Atlas) -> None:
    host.start("services")
    core = host.up("core")
    host.start("api")
    host.wait_state("web", "running")
    host.wait_state("side", "running")
    until(lambda: host.http_json("/health")[0] == 200, "a healthy host")
    pids = host.pids("web")
    core.kill()
    core.wait()
    status, body = until(
        lambda: (found := host.http_json("/health"))[0] == 503 and found, "health to notice"
    )
    assert "core does not answer" in body["output"]
    assert host.http_json("/health/ready")[0] == 503
    assert host.http_json("/health/services/web")[0] == 503
    assert host.http_json("/health/live")[0] == 200
    status, _, text = host.http("/metrics")
    found = values(text)
    assert status == 200
    assert found["atlasd_up", frozenset({("role", "api")})] == 1
    assert found["atlasd_up", frozenset({("role", "core")})] == 0
    assert "atlasd_service_state" not in {name for name, _ in found}
    host.up("core")
    until(lambda: host.http_json("/health")[0] == 200, "health to come back")
    assert host.pids("web") == pids


def test_a_core_that_hangs_is_told_from_one_that_is_well(host: Atlas) -> None:
    host.start("services")
    core = host.up("core")
    host.start("api")
    until(lambda: host.http_json("/health")[0] == 200, "a healthy host")
    core.send_signal(signal.SIGSTOP)
    try:
        _, body = until(
            lambda: (found := host.http_json("/health"))[0] == 503 and found, "health to notice"
        )
        assert "core does not answer" in body["output"]
        assert host.http_json("/health/live")[0] == 200
    finally:
        core.send_signal(signal.SIGCONT)


def test_an_address_that_is_taken_is_no_reason_to_leave_services_alone(host: Atlas) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        host.configure(f'[api]\nlisten = "127.0.0.1:{port}"\n' + CONFIG.format(root=host.root))
        host.up()
        host.wait_state("web", "running")
        until(lambda: f"cannot listen on 127.0.0.1:{port}" in host.output(), "the complaint")
    until(lambda: host.http_json("/health/live")[0] == 200, "the api, once the address is free")


def test_monitoring_goes_on_without_core_and_reports_when_it_is_back(host: Atlas) -> None:
    flag = host.root / "flag"
    host.configure(FLAG.format(flag=flag))
    host.start("monitoring")
    until(lambda: "core is gone" in host.output(), "monitoring to notice")
    host.start("services")
    host.up("core")

    def status() -> str:
        (found,) = host.client.call("checks")["checks"]
        return str(found["status"])

    until(lambda: status() == "fail", "the verdict")
    until(lambda: "core is back" in host.output(), "monitoring to say so")
    flag.touch()
    until(lambda: status() == "pass", "the next verdict")
