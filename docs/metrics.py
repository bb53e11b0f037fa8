"""The metrics page of the reference, read off a scrape of a made-up host."""

import types
import typing
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from atlasd.contracts import collectors as contracts
from atlasd.contracts.commits import Tally
from atlasd.contracts.queue import BreakerRow, Claimed, Finish, JobState, QueueCount
from atlasd.core import metrics as core
from atlasd.core.health import CheckState
from atlasd.jobs import schedule_metrics, timetable
from atlasd.jobs.ledger import Ledger
from atlasd.jobs.measures import Measures
from atlasd.jobs.metrics import metrics_of
from atlasd.services.protocol import SnapshotBody
from atlasd.states import Health
from docs.markdown import table


class Spent(typing.NamedTuple):
    """What the work of a plugin has cost."""

    calls: int = 1
    seconds: float = 1.0
    failures: int = 0


def metrics() -> str:
    """Every metric of `/metrics`, with its labels."""
    rows = [
        (f"`{name(metric)}`", metric.type, ", ".join(labels(metric)), metric.documentation)
        for metric in sorted(scrape(), key=lambda found: found.name)
        if not metric.name.startswith("process_")
    ]
    return "\n".join(
        ["# Metrics\n", INTRODUCTION, table(("metric", "kind", "labels", "meaning"), rows)]
    )


INTRODUCTION = """What `/metrics` of the api role answers, in the Prometheus text format. Units are
seconds and bytes; counters end in `_total`; no label ever holds a process id, a path or a message.
The usual `process_…` metrics are those of core. What plugins add has other names: the prefix
`atlasd_` is atlasd's own.
"""


def scrape() -> Iterator[Metric]:
    """Every family of metrics, each with a sample, as a host with one of everything has them."""
    own = core.CoreMetrics()
    own.operations.labels("status", "done")
    own.start_duration.labels("web").observe(0.1)
    text = core.render(
        own,
        version="0",
        snapshot=typing.cast("SnapshotBody", made_up(SnapshotBody)),
        checks=[CheckState(name="disk", type="x", status=Health.PASS, time=0.0, duration=0.1)],
        numbers=dict.fromkeys(core.CORE_NUMBERS, 1.0),
        plugins={("http", "check"): Spent()},
        secrets=[
            (name, dict.fromkeys(labels, "x"), 1.0)
            for name, (_, _, labels) in core.SECRET_NUMBERS.items()
        ],
        added=of_jobs(),
        now=1.0,
    )
    yield from text_string_to_metric_families(text)


def of_jobs() -> list[contracts.Metric | contracts.Histogram]:
    """The job engine's, over the default store."""
    job = Claimed(1, 1, 1, 30_000, "mail", "send", "{}", 5, 0, 0, 3, 0, 0, "", "", "")
    measures, ledger = Measures(), Ledger()
    measures.given([job], 30_000)
    measures.settled([Finish(1, 1)], [job], [True])
    ledger.retries["mail", "send"] = ledger.deaths["mail", "exhausted"] = ledger.trips["bank"] = 1
    schedules = timetable.Tally(fired={"nightly": 1}, lateness={"nightly": 1})
    schedules.left_out["nightly", "misfire"] = 1
    return schedule_metrics.metrics_of(schedules) + metrics_of(
        [QueueCount("mail", JobState.AVAILABLE, 1, 1)],
        now=1,
        settled={},
        workers=1,
        measures=measures,
        ledger=ledger,
        breakers=[BreakerRow("bank")],
        numbers=Tally().numbers(),
    )


def name(metric: Metric) -> str:
    """A metric's name as it is scraped."""
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def labels(metric: Metric) -> list[str]:
    """A metric's labels, but for those that a histogram has anyway."""
    found = dict.fromkeys(label for sample in metric.samples for label in sample.labels)
    return [f"`{label}`" for label in found if label != "le"]


def made_up(hint: typing.Any) -> typing.Any:
    """A value of a type, with one of everything in it."""
    if typing.is_typeddict(hint):
        return {key: made_up(below) for key, below in typing.get_type_hints(hint).items()}
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return [made_up(args[0])]
    if origin is dict:
        return {made_up(args[0]): made_up(args[1])}
    if origin in (typing.Union, types.UnionType):
        return made_up(args[0])
    return hint()
