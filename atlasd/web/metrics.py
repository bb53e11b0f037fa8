"""The api role's own metrics, put beside core's in one scrape."""

import contextlib
import re

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MEDIA = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_CONNECTED = re.compile(r"^atlasd_services_connected 1(?:\.0)?$", re.MULTILINE)


class ApiMetrics:
    """What the api role counts, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "atlasd_http_requests_total",
            "HTTP requests answered by the api role.",
            ["route", "status"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "atlasd_http_request_duration_seconds",
            "Time that answering an HTTP request took.",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.up = Gauge(
            "atlasd_up",
            "Whether a role answers: 1 or 0.",
            ["role"],
            registry=self.registry,
        )
        self.up.labels("api").set(1)

    def scrape(self, core: str | None) -> str:
        """Core's text, if there is any, and the api's own after it."""
        self.up.labels("core").set(core is not None)
        if core is not None:
            self.up.labels("services").set(bool(_CONNECTED.search(core)))
        else:  # only core can tell: no sample rather than a false alarm
            with contextlib.suppress(KeyError):
                self.up.remove("services")
        return (core or "") + generate_latest(self.registry).decode()
