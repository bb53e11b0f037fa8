"""The metrics of schedules, in Prometheus' terms."""

from atlasd.contracts.collectors import Metric, Sample
from atlasd.jobs.timetable import Tally


def metrics_of(tally: Tally) -> list[Metric]:
    """What the schedules of this daemon have done since its start."""
    return [
        Metric(
            name="atlasd_schedule_fired_total",
            help="Jobs that a schedule has enqueued.",
            kind="counter",
            samples=tuple(
                Sample(value=float(count), labels={"schedule": name})
                for name, count in sorted(tally.fired.items())
            ),
        ),
        Metric(
            name="atlasd_schedule_left_out_total",
            help="Runs of a schedule for which nothing was enqueued: misfire, deadline, overlap; "
            "held ones come later.",
            kind="counter",
            samples=tuple(
                Sample(value=float(count), labels={"schedule": name, "reason": reason})
                for (name, reason), count in sorted(tally.left_out.items())
            ),
        ),
        Metric(
            name="atlasd_schedule_lateness_seconds",
            help="By how much the last job of a schedule was enqueued too late.",
            kind="gauge",
            samples=tuple(
                Sample(value=late / 1000.0, labels={"schedule": name})
                for name, late in sorted(tally.lateness.items())
            ),
        ),
    ]
