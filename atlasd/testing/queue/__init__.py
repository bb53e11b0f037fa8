"""The conformance suite of queue stores."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from atlasd.clock import HandClock
from atlasd.contracts.queue import QueueStoreType
from atlasd.testing.context import PlainContext
from atlasd.testing.descriptors import assert_settings_are_strict
from atlasd.testing.queue.bench import Advance, Bench
from atlasd.testing.queue.breaking import Breaking
from atlasd.testing.queue.claiming import Claiming
from atlasd.testing.queue.enqueuing import Enqueuing
from atlasd.testing.queue.firing import Firing
from atlasd.testing.queue.lasting import Lasting, Sharing
from atlasd.testing.queue.leases import Leases
from atlasd.testing.queue.operating import Operating
from atlasd.testing.queue.settling import Settling
from atlasd.testing.queue.timing import Timing
from atlasd.testing.queue.uniqueness import Uniqueness
from atlasd.testing.queue.waiting import Waiting

__all__ = ["Advance", "Bench", "QueueStoreSuite"]


class QueueStoreSuite(
    Enqueuing,
    Uniqueness,
    Claiming,
    Settling,
    Leases,
    Waiting,
    Timing,
    Breaking,
    Operating,
    Firing,
    Lasting,
    Sharing,
):
    """What every queue store keeps.

    Derive a class whose name begins with `Test`, and give it:

    - a fixture `store_type`, the descriptor (see `load_drop_in` and `load_module`);
    - a fixture `settings`, of its table in the configuration, for a place that is empty;
    - for a store that doesn't take its time from its context: a fixture `advance`, a coroutine
      function that lets the store's clock go forward by so many milliseconds. Between two calls
      that clock should stand still; where it cannot, the tests that go by the millisecond fail.

    The tests are coroutines: pytest-asyncio must run in its mode `auto`. After every test all jobs
    are looked at for what holds at any time.
    """

    @pytest.fixture
    def clock(self) -> HandClock:
        """What the store's context has for a clock."""
        return HandClock()

    @pytest.fixture
    def context(self, tmp_path: Path, clock: HandClock) -> Iterator[PlainContext]:
        """What the store is opened with."""
        plain = PlainContext(tmp_path / "plugin_state", clock=clock, config_dir=tmp_path)
        yield plain
        plain.close()

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        """As in a file."""
        return {}

    @pytest.fixture
    def advance(self, clock: HandClock) -> Advance:
        """Lets the store's clock go forward."""

        async def advance(milliseconds: int) -> None:
            clock.wind(milliseconds / 1000)

        return advance

    @pytest.fixture
    async def bench(
        self,
        store_type: QueueStoreType,
        settings: dict[str, Any],
        context: PlainContext,
        advance: Advance,
    ) -> AsyncIterator[Bench]:
        """The store, opened; looked over and closed at the end."""
        async with Bench(store_type, settings, context, advance) as bench:
            yield bench
            await bench.assert_sound()

    def test_settings_are_strict(
        self, store_type: QueueStoreType, settings: dict[str, Any]
    ) -> None:
        """What is misspelt is refused, and each setting is described."""
        assert_settings_are_strict(store_type.settings, settings)
