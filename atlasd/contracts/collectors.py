"""What a collector promises: metrics in Prometheus' terms, fresh each time it is asked."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import NoSettings


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One value of a metric."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    """Few and of few values: a service, a queue; never a pid, a path or a message."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric and its values now."""

    name: str
    """In base units: `shop_orders_total`, `shop_queue_oldest_seconds`. A counter ends in `_total`.
    The prefix `atlasd_` is atlasd's own."""
    help: str
    kind: Literal["gauge", "counter"]
    samples: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """The values of one histogram."""

    bounds: tuple[float, ...]
    """Upper ends of the buckets; one more bucket takes what is above."""
    counts: tuple[int, ...]
    """Values in each bucket, not cumulated: one more than there are bounds."""
    sum: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """A metric of how values are spread; atlasd's own engines have them, collectors don't."""

    name: str
    help: str
    samples: tuple[Buckets, ...]


class Collector(Protocol):
    """A collector that has been opened."""

    async def collect(self) -> Sequence[Metric]:
        """The metrics now; asked whenever somebody scrapes, so it must be quick.

        At most 1,000 samples. An answer that is late, too large or badly named is left out of the
        scrape, and counted.
        """


@dataclass(frozen=True, kw_only=True)
class CollectorType:
    """A source of metrics, as `register_collectors` returns it."""

    name: str
    summary: str
    open: Callable[[Any, PluginContext], AbstractAsyncContextManager[Collector]]
    """Called once, when core is up."""
    settings: type[BaseModel] = NoSettings
    """Of the table `[plugins.NAME]`, NAME being the collector's."""
    requires: tuple[str, ...] = ()
    extra: str = ""
