import shutil
import subprocess
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from atlasd.contracts.collectors import Metric, Sample
from atlasd.core.health import CheckState
from atlasd.core.metrics import CORE_NUMBERS, CoreMetrics, render
from atlasd.events import InstanceMoved
from atlasd.services.protocol import SnapshotBody
from atlasd.states import Health
from tests.unit.core.snapshots import NOW, instance, service, snapshot


@dataclass
class Spent:
    calls: int = 3
    seconds: float = 0.25
    failures: int = 1


def scrape(
    found: SnapshotBody | None = None,
    *,
    own: CoreMetrics | None = None,
    checks: tuple[CheckState, ...] = (),
    added: tuple[Metric, ...] = (),
) -> str:
    return render(
        own or CoreMetrics(),
        version="1.2.3",
        snapshot=found,
        checks=checks,
        numbers=dict.fromkeys(CORE_NUMBERS, 1.0),
        plugins={("shop", "check"): Spent()},
        added=added,
        now=NOW,
    )


def samples(text: str, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


HOST = snapshot(
    service(
        "web",
        instance(),
        instance(1, state="backoff", memory_bytes=None, cpu_seconds=None, tasks=None),
        restarts_total={"signal": 2, "exit-code": 1},
        oom_kills_total=1,
        last_exit=NOW - 5,
    ),
    service("db", wanted="paused"),
)


def test_an_instance_is_in_exactly_one_state() -> None:
    found = samples(scrape(HOST), "atlasd_service_state")
    per_instance: dict[tuple[str, str], float] = {}
    for labels, value in found.items():
        named = dict(labels)
        key = named["service"], named["instance"]
        per_instance[key] = per_instance.get(key, 0) + value
    assert per_instance == {("web", "0"): 1, ("web", "1"): 1, ("db", "0"): 1}
    assert sum(v for labels, v in found.items() if ("state", "backoff") in labels) == 1


def test_restarts_add_up_over_their_reasons() -> None:
    found = samples(scrape(HOST), "atlasd_service_restarts_total")
    assert sum(found.values()) == 3
    assert found[("reason", "signal"), ("service", "web")] == 2


def test_output_that_was_lost_is_told_beside_what_was_captured() -> None:
    text = scrape(HOST)
    assert samples(text, "atlasd_output_bytes_total") == {(): 10.0}
    assert samples(text, "atlasd_output_lost_bytes_total") == {(): 3.0}


def test_what_is_not_known_is_left_out() -> None:
    text = scrape(HOST)
    memory = samples(text, "atlasd_service_memory_bytes")
    assert {dict(labels)["instance"] for labels in memory if ("service", "web") in labels} == {"0"}
    assert (("service", "db"),) not in samples(text, "atlasd_service_last_exit_timestamp_seconds")
    assert samples(scrape(None), "atlasd_service_state") == {}


def test_checks_are_two_one_nought_and_absent_while_unknown() -> None:
    checks = tuple(
        CheckState(name=status.value, type="x", status=status, time=NOW, duration=0.5)
        for status in Health
    )
    found = samples(scrape(checks=checks), "atlasd_check_status")
    assert {dict(labels)["check"]: value for labels, value in found.items()} == {
        "fail": 0,
        "warn": 1,
        "pass": 2,
    }


def test_a_start_is_timed_from_starting_to_running_and_forgotten_when_it_fails() -> None:
    own = CoreMetrics()

    def moved(time: float, new: str) -> None:
        own.hear(InstanceMoved(time=time, service="web", instance=0, old="x", new=new))

    moved(1.0, "starting")
    moved(1.2, "running")
    moved(5.0, "starting")
    moved(9.0, "backoff")
    moved(20.0, "running")
    text = scrape(own=own)
    assert samples(text, "atlasd_service_start_duration_seconds_count") == {
        (("service", "web"),): 1
    }
    total = samples(text, "atlasd_service_start_duration_seconds_sum")
    assert total[("service", "web"),] == pytest.approx(0.2)


def test_plugins_costs_and_metrics_stand_beside_cores_own() -> None:
    orders = Metric(
        name="shop_orders_total",
        help="Orders.",
        kind="counter",
        samples=(Sample(value=5, labels={"shop": "a"}),),
    )
    again = Metric(name="shop_orders_total", help="Again.", kind="gauge", samples=())
    text = scrape(added=(orders, again))
    assert samples(text, "shop_orders_total") == {(("shop", "a"),): 5}
    assert samples(text, "atlasd_plugin_failures_total") == {
        (("kind", "check"), ("plugin", "shop")): 1
    }
    assert samples(text, "atlasd_build_info") == {(("version", "1.2.3"),): 1}


def test_no_name_is_told_twice() -> None:
    names = [line.split()[2] for line in scrape(HOST).splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    own = CoreMetrics()
    own.operations.labels("status", "done").inc()
    own.start_duration.labels("web").observe(0.1)
    checks = (CheckState(name="disk", type="x", status=Health.PASS, time=NOW, duration=0.1),)
    answer = subprocess.run(
        [promtool, "check", "metrics"],
        input=scrape(HOST, own=own, checks=checks),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
