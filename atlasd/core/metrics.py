"""Core's metrics in the Prometheus text format: of the services, of the checks, and of itself."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from atlasd.contracts import collectors as contracts
from atlasd.core.health import CheckState
from atlasd.events import Event, InstanceMoved
from atlasd.services.protocol import SnapshotBody
from atlasd.states import Health, Lifecycle, Wanted

START_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
TICK_BUCKETS = (0.0001, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0)

# A second series for each counter, which only OpenMetrics knows and promtool takes for a mistake.
disable_created_metrics()  # type: ignore[no-untyped-call]

_CHECK_VALUES = {Health.FAIL: 0.0, Health.WARN: 1.0, Health.PASS: 2.0}


class Cost(Protocol):
    """What one kind of work of one plugin has cost so far."""

    @property
    def calls(self) -> int: ...  # noqa: D102

    @property
    def seconds(self) -> float: ...  # noqa: D102

    @property
    def failures(self) -> int: ...  # noqa: D102


class CoreMetrics:
    """What core counts itself, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.start_duration = Histogram(
            "atlasd_service_start_duration_seconds",
            "Time from the start of an instance until it is ready.",
            ["service"],
            buckets=START_BUCKETS,
            registry=self.registry,
        )
        self.tick = Histogram(
            "atlasd_tick_duration_seconds",
            "Time that a pass of core's scheduler took.",
            buckets=TICK_BUCKETS,
            registry=self.registry,
        )
        self.reloads = Counter(
            "atlasd_config_reloads_total",
            "Times the configuration was read anew, by what became of it.",
            ["result"],
            registry=self.registry,
        )
        self.operations = Counter(
            "atlasd_operations_total",
            "Operations asked of core on its control socket.",
            ["operation", "result"],
            registry=self.registry,
        )
        for result in ("loaded", "partial", "refused"):
            self.reloads.labels(result)
        ProcessCollector(registry=self.registry)
        self._starting: dict[tuple[str, int | None], float] = {}

    def hear(self, event: Event) -> None:
        """Learn from a fact: how long a start took."""
        if not isinstance(event, InstanceMoved):
            return
        key = (event.service, event.instance)
        if event.new == Lifecycle.STARTING:
            self._starting[key] = event.time
            return
        began = self._starting.pop(key, None)
        if began is not None and event.new == Lifecycle.RUNNING:
            took = max(0.0, event.time - began)
            self.start_duration.labels(event.service).observe(took)


SecretNumber = tuple[str, Mapping[str, str], float]
"""Name, labels and value of a sample."""


def render(
    own: CoreMetrics,
    *,
    version: str,
    snapshot: SnapshotBody | None,
    checks: Sequence[CheckState],
    numbers: Mapping[str, float],
    plugins: Mapping[tuple[str, str], Cost],
    secrets: Iterable[SecretNumber] = (),
    added: Iterable[contracts.Metric | contracts.Histogram] = (),
    now: float,
) -> str:
    """Everything in the text format; without a snapshot the services' part is left out.

    `numbers` holds core's own gauges and counters by name (see `CORE_NUMBERS`); `plugins` what
    each plugin and kind of work has cost; `secrets` are samples of `SECRET_NUMBERS`; `added` comes
    from plugins' collectors and from the job engine.
    """
    registry = CollectorRegistry(auto_describe=False)
    info = GaugeMetricFamily("atlasd_build_info", "The version of atlasd.", labels=["version"])
    info.add_metric([version], 1.0)
    families: list[Metric] = [info]
    if snapshot is not None:
        families += _services(snapshot)
    families += _checks(checks, now)
    families += _numbers(numbers)
    families += _plugins(plugins)
    families += _secrets(secrets)
    families += _added(added)
    registry.register(_Fixed(families))
    return (generate_latest(registry) + generate_latest(own.registry)).decode()


class _Fixed(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


CORE_NUMBERS: Mapping[str, tuple[str, str]] = {
    "atlasd_loop_lag_seconds": ("gauge", "How late core's loop ran, the worst of the last minute."),
    "atlasd_watchdog_pings_total": ("counter", "Pings sent to systemd's watchdog by core."),
    "atlasd_bus_published_total": ("counter", "Facts published on core's bus."),
    "atlasd_bus_dropped_total": ("counter", "Facts that slow subscribers of core's bus lost."),
    "atlasd_store_commits_total": ("counter", "Transactions committed to the daemon's database."),
    "atlasd_journal_failures_total": ("counter", "Times the database refused journal entries."),
    "atlasd_services_connected": ("gauge", "Whether the services role answers core: 1 or 0."),
    "atlasd_services_connections_total": ("counter", "Times core reached the services role."),
    "atlasd_held_descriptors": ("gauge", "Pipes and sockets that core keeps for services."),
    "atlasd_monitoring_last_report_timestamp_seconds": (
        "gauge",
        "When the monitoring role last reported verdicts.",
    ),
    "atlasd_start_time_seconds": ("gauge", "When core started, in seconds since the epoch."),
    "atlasd_config_generation": ("gauge", "Number of the configuration that is in force."),
    "atlasd_config_rejected": (
        "gauge",
        "Whether the files hold a configuration that was refused: 1 or 0.",
    ),
    "atlasd_config_partial": (
        "gauge",
        "Whether a part of core could not take the configuration over: 1 or 0.",
    ),
    "atlasd_config_last_reload_timestamp_seconds": (
        "gauge",
        "When a configuration last took over, in seconds since the epoch.",
    ),
}
"""Core's own numbers: kind and help."""

PLUGIN_NUMBERS: Mapping[str, str] = {
    "atlasd_plugin_calls_total": "Calls of a plugin's work, by its kind.",
    "atlasd_plugin_call_seconds_total": "Time spent in a plugin's work, by its kind.",
    "atlasd_plugin_failures_total": "Times a plugin raised, hung or flooded at work, by its kind.",
}
"""What is told of each plugin and kind of work, all of them counters: help by name."""


SECRET_NUMBERS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "atlasd_secret_fetches_total": (
        "counter",
        "Times secrets were fetched: done, shared (another role just had), or an error's code.",
        ("backend", "outcome"),
    ),
    "atlasd_secret_served_total": (
        "counter",
        "Values handed out, by the state in which they were: fresh, stale or revoked.",
        ("backend", "state"),
    ),
    "atlasd_secret_age_seconds": (
        "gauge",
        "Time since a secret that is in use was fetched; absent without a value.",
        ("backend", "secret", "selector"),
    ),
    "atlasd_secret_stale": (
        "gauge",
        "Whether a secret that is in use cannot be fetched anew: 1 or 0.",
        ("backend", "secret", "selector"),
    ),
    "atlasd_secret_rotations_total": (
        "counter",
        "Rotations: outcome is done (promoted) or failed (a step of one).",
        ("outcome",),
    ),
    "atlasd_secret_audit_failures_total": (
        "counter",
        "Times the audit log of secrets could not be written.",
        (),
    ),
}
"""What is told of secrets: kind, help and labels."""


def _family(name: str, kind: str, text: str, labels: Sequence[str]) -> Metric:
    if kind == "counter":
        return CounterMetricFamily(name, text, labels=labels)
    return GaugeMetricFamily(name, text, labels=labels)


def _numbers(numbers: Mapping[str, float]) -> list[Metric]:
    families = []
    for name, value in numbers.items():
        kind, text = CORE_NUMBERS[name]
        family = _family(name, kind, text, [])
        family.add_sample(name, {}, value)
        families.append(family)
    return families


def _plugins(costs: Mapping[tuple[str, str], Cost]) -> list[Metric]:
    families: list[Metric] = []
    for name, text in PLUGIN_NUMBERS.items():
        family = _family(name, "counter", text, [])
        for plugin, kind in sorted(costs):
            cost = costs[plugin, kind]
            value = {
                "atlasd_plugin_calls_total": float(cost.calls),
                "atlasd_plugin_call_seconds_total": cost.seconds,
                "atlasd_plugin_failures_total": float(cost.failures),
            }[name]
            family.add_sample(name, {"plugin": plugin, "kind": kind}, value)
        families.append(family)
    return families


def _secrets(samples: Iterable[SecretNumber]) -> list[Metric]:
    families: dict[str, Metric] = {}
    for name, labels, value in samples:
        kind, text, names = SECRET_NUMBERS[name]
        family = families.setdefault(name, _family(name, kind, text, []))
        family.add_sample(name, {label: labels[label] for label in names}, value)
    return list(families.values())


def _added(metrics: Iterable[contracts.Metric | contracts.Histogram]) -> list[Metric]:
    """Plugins' metrics; of two with one name the first stands, as a scrape may have it once."""
    families: dict[str, Metric] = {}
    for metric in metrics:
        if metric.name in families:
            continue
        if isinstance(metric, contracts.Histogram):
            families[metric.name] = _histogram(metric)
            continue
        family = _family(metric.name, metric.kind, metric.help, [])
        for sample in metric.samples:
            family.add_sample(metric.name, dict(sample.labels), sample.value)
        families[metric.name] = family
    return list(families.values())


def _histogram(metric: contracts.Histogram) -> Metric:
    names = list(metric.samples[0].labels) if metric.samples else []
    family = HistogramMetricFamily(metric.name, metric.help, labels=names)
    for sample in metric.samples:
        ends = [*map(str, sample.bounds), "+Inf"]
        family.add_metric(
            [sample.labels[name] for name in names],
            buckets=list(zip(ends, accumulate(sample.counts), strict=True)),
            sum_value=sample.sum,
        )
    return family


def _checks(checks: Sequence[CheckState], now: float) -> list[Metric]:
    status = GaugeMetricFamily(
        "atlasd_check_status",
        "Verdict of a check: 0 fail, 1 warn, 2 pass; absent while unknown.",
        labels=["check"],
    )
    took = GaugeMetricFamily(
        "atlasd_check_duration_seconds", "Time that a check's last run took.", labels=["check"]
    )
    for check in checks:
        value = _CHECK_VALUES.get(check.fresh(now))
        if value is not None:
            status.add_metric([check.name], value)
        if check.duration is not None:
            took.add_metric([check.name], check.duration)
    return [status, took]


def _services(snapshot: SnapshotBody) -> list[Metric]:
    where = ["service", "instance"]
    state = GaugeMetricFamily(
        "atlasd_service_state",
        "Whether an instance is in the state: 1 in one of them, 0 in the others.",
        labels=[*where, "state"],
    )
    wanted = GaugeMetricFamily(
        "atlasd_service_wanted",
        "Whether a service is wanted so: 1 in one of them, 0 in the others.",
        labels=["service", "wanted"],
    )
    health = GaugeMetricFamily(
        "atlasd_service_health",
        "Whether an instance's probes say so: 1 in one of them, 0 in the others.",
        labels=[*where, "health"],
    )
    restarts = CounterMetricFamily(
        "atlasd_service_restarts_total",
        "Restarts after failures, by reason.",
        labels=["service", "reason"],
    )
    ooms = CounterMetricFamily(
        "atlasd_service_oom_kills_total",
        "Times the kernel killed the service for want of memory.",
        labels=["service"],
    )
    exits = GaugeMetricFamily(
        "atlasd_service_last_exit_timestamp_seconds",
        "When a process of the service last ended.",
        labels=["service"],
    )
    cpu = CounterMetricFamily(
        "atlasd_service_cpu_seconds_total",
        "CPU time of an instance's present processes.",
        labels=where,
    )
    memory = GaugeMetricFamily(
        "atlasd_service_memory_bytes", "Memory of an instance.", labels=[*where, "kind"]
    )
    tasks = GaugeMetricFamily(
        "atlasd_service_tasks", "Processes and threads of an instance.", labels=where
    )
    for service in snapshot["services"]:
        name = service["name"]
        for word in Wanted:
            wanted.add_metric([name, word], float(service["wanted"] == word))
        for reason, count in service["restarts_total"].items():
            restarts.add_metric([name, reason], count)
        ooms.add_metric([name], service["oom_kills_total"])
        if service["last_exit"] is not None:
            exits.add_metric([name], service["last_exit"])
        for instance in service["instances"]:
            at = [name, str(instance["index"])]
            for move in Lifecycle:
                state.add_metric([*at, move], float(instance["state"] == move))
            for verdict in Health:
                health.add_metric([*at, verdict], float(instance["health"] == verdict))
            if instance["cpu_seconds"] is not None:
                cpu.add_metric(at, instance["cpu_seconds"])
            if instance["memory_bytes"] is not None:
                memory.add_metric([*at, "current"], instance["memory_bytes"])
            if instance["tasks"] is not None:
                tasks.add_metric(at, instance["tasks"])
    return [
        *(state, wanted, health, restarts, ooms, exits, cpu, memory, tasks),
        _single("counter", "atlasd_spawns_total", "Processes started.", snapshot["spawns_total"]),
        _single(
            "counter",
            "atlasd_output_bytes_total",
            "Bytes of output captured.",
            snapshot["output_bytes_total"],
        ),
        _single(
            "counter",
            "atlasd_output_lost_bytes_total",
            "Bytes of output that were lost because they could not be written.",
            # A services role of an older version does not say.
            snapshot.get("output_lost_bytes_total", 0),
        ),
        _single(
            "gauge",
            "atlasd_restart_budget_tokens",
            "Restarts after failures that the host would bear at this moment.",
            snapshot["budget_tokens"],
        ),
    ]


def _single(kind: str, name: str, text: str, value: float) -> Metric:
    family = _family(name, kind, text, [])
    family.add_sample(name, {}, value)
    return family
