"""Core's parts put together: the link to services, the journal, the boards, the scheduler."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any, Self, cast

from atlasd.bus import Bus
from atlasd.clock import Clock, RealClock
from atlasd.core import journal as journal_module
from atlasd.core import wanted as wanted_module
from atlasd.core.board import CheckBoard, ConfigBoard, StateBoard
from atlasd.core.journal import Journal, Read
from atlasd.core.metrics import CoreMetrics
from atlasd.core.reconcile import APPLY_TIMEOUT, TICK, Reconciler, Wish
from atlasd.core.wanted import Intents
from atlasd.errors import AtlasError
from atlasd.events import (
    CoreStarted,
    CoreStopped,
    Event,
    EventsLost,
    InstanceMoved,
    ServicesConnected,
    ServicesDisconnected,
    from_wire,
)
from atlasd.services.client import Cursor, Hello, ServicesClient
from atlasd.services.protocol import EventBody, SnapshotBody
from atlasd.states import Lifecycle
from atlasd.store import Store

SCHEMAS = {"wanted": wanted_module.SCHEMA, "journal": journal_module.SCHEMA}
"""Core's tables in the daemon's database, by component."""
SHUTDOWN_TIMEOUT = 600.0
"""Seconds that all services together may take to stop."""
STATUS_EVERY = 1.0
"""Seconds between two lines of status for systemd, at least."""

_log = logging.getLogger("atlasd.core")


class Core:
    """Everything that core is, but for the control socket and the plugins."""

    def __init__(
        self,
        *,
        services_socket: str,
        store: Store,
        journal: Journal,
        intents: Intents,
        wish: Wish,
        version: str,
        say: Callable[[str], object],
        clock: Clock | None = None,
    ) -> None:
        """`say` is told the line of status for systemd."""
        self.clock: Clock = clock or RealClock()
        self.version = version
        self.store = store
        self.journal = journal
        self.intents = intents
        self.metrics = CoreMetrics()
        self.checks = CheckBoard()
        self.states = StateBoard()
        self.configuration = ConfigBoard()
        self.bus = Bus(self.clock, first=journal.next_seq, record=self._record)
        self.started = self.clock.wall()
        self.connections = 0
        self.converged = False
        """Whether what is wanted was handed to the services role that answers now."""
        self.stopping = False
        self.keep_services = False
        self.ended = asyncio.Event()
        """Set when core was asked to end, and has done what was asked first."""
        read = journal.read
        self.services = ServicesClient(
            services_socket,
            version=version,
            cursor=Cursor(identity=read.identity, seq=read.seq) if read else None,
            connected=self._on_connected,
            disconnected=self._on_disconnected,
            event=self._on_event,
            lost=self._on_lost,
        )
        self.reconciler = Reconciler(
            self.services,
            intents,
            wish,
            report=_log.warning,
            ticked=self._on_tick,
        )
        self.checks.configure(wish.checks)
        self._say = say
        self._ending: asyncio.Task[None] | None = None
        self._said = ""
        self._refresh = asyncio.Event()
        self._stale = True
        self._connected = asyncio.Event()

    @classmethod
    async def open(
        cls,
        *,
        store: Store,
        services_socket: str,
        wish: Wish,
        version: str,
        say: Callable[[str], object],
        clock: Clock | None = None,
    ) -> Self:
        """Core as an earlier one left it: its intents, its journal. Raises `store.unusable`."""
        return cls(
            services_socket=services_socket,
            store=store,
            journal=await Journal.load(store, report=_log.error),
            intents=await Intents.load(store),
            wish=wish,
            version=version,
            say=say,
            clock=clock,
        )

    async def run(self) -> None:
        """Work until cancelled: link, scheduler, journal and status, each a task of its own."""
        self.bus.publish(CoreStarted(time=self.clock.wall(), pid=os.getpid(), version=self.version))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.journal.run(), name="core journal")
                group.create_task(self.services.run(), name="core link to services")
                group.create_task(self.reconciler.run(), name="core scheduler")
                group.create_task(self._keep_status(), name="core status")
        finally:
            self.bus.close()

    async def snapshot(self, *services: str) -> SnapshotBody:
        """What services says of these services, or of all. Raises `services.unreachable`."""
        body = await self.services.call("snapshot", services=list(services) or None)
        return cast("SnapshotBody", body)

    async def snapshot_or_none(self) -> SnapshotBody | None:
        """As `snapshot` of all, or None while services does not answer."""
        try:
            return await self.snapshot()
        except AtlasError:
            return None

    async def next_hello(self, connections: int) -> Hello:
        """The services role's greeting in a later connection than that number of them."""
        while self.connections <= connections or self.services.hello is None:
            self._connected.clear()
            await self._connected.wait()
        return self.services.hello

    def changed(self) -> None:
        """Something was asked of services: have the boards and the status follow."""
        self._stale = True
        self._refresh.set()

    def shut_down(self, *, keep_services: bool, actor: str) -> None:
        """Begin to end: the services role first, then whoever runs core hears `ended`."""
        if self.stopping:
            return
        self.stopping = True
        self.keep_services = keep_services
        reason = "shutdown, services kept" if keep_services else "shutdown"
        self.bus.publish(CoreStopped(time=self.clock.wall(), reason=reason, actor=actor))
        self._say("stopping; the services are kept" if keep_services else "stopping the services")
        self._ending = asyncio.create_task(self._end(actor), name="core shutdown")

    async def _end(self, actor: str) -> None:
        try:
            if self.services.connected:
                await self.services.call(
                    "shutdown",
                    timeout=SHUTDOWN_TIMEOUT,
                    keep_services=self.keep_services,
                    actor=actor,
                )
        except AtlasError as error:
            # The answer and the role's end race each other.
            _log.info("the services role: %s", error.message)
        finally:
            self.ended.set()

    async def prove_store(self) -> None:
        """Return when the writer of the database has done a transaction; for the watchdog."""
        await self.store.run(lambda connection: connection.execute("SELECT 1").fetchone())

    async def prove_scheduler(self) -> None:
        """Return when the scheduler has come round lately; raises `TimeoutError` otherwise."""
        silent = self.reconciler.since_last_pass
        if silent > APPLY_TIMEOUT + 2 * TICK:
            raise TimeoutError(f"the scheduler has not come round for {silent:.0f} s")

    async def prove_link(self) -> None:
        """Return when the link to services works, or fails as it should: see `Watchdog`."""
        if not self.services.connected:
            return
        with contextlib.suppress(AtlasError):
            await self.services.call("snapshot", timeout=5.0, services=[])

    def numbers(self) -> dict[str, float]:
        """Core's own gauges and counters, by the names of `atlasd.core.metrics.CORE_NUMBERS`."""
        found = {
            "atlasd_bus_published_total": float(self.bus.published),
            "atlasd_bus_dropped_total": float(self.bus.dropped),
            "atlasd_store_commits_total": float(self.store.commits),
            "atlasd_journal_failures_total": float(self.journal.failures),
            "atlasd_services_connected": float(self.services.connected),
            "atlasd_services_connections_total": float(self.connections),
            "atlasd_held_descriptors": float(len(self.services.held)),
            "atlasd_start_time_seconds": self.started,
            **self.configuration.numbers(),
        }
        if self.checks.last_report is not None:
            found["atlasd_monitoring_last_report_timestamp_seconds"] = self.checks.last_report
        return found

    # --- what happens

    def _record(self, event: Event) -> None:
        self.journal.record(event)
        self.metrics.hear(event)
        if isinstance(event, InstanceMoved) and event.instance is not None:
            self.states.move(event.service, event.instance, event.new)
            if event.new == Lifecycle.STOPPED:
                self._stale = True  # it may be gone for good, which no event says
            self._refresh.set()

    def _on_connected(self, hello: Hello) -> None:
        self.connections += 1
        self._connected.set()
        self.converged = False
        detail = f"capabilities: {', '.join(sorted(hello.capabilities))}"
        self.bus.publish(
            ServicesConnected(
                time=self.clock.wall(), pid=hello.pid, version=hello.version, detail=detail
            )
        )
        self.reconciler.due()
        self.changed()

    def _on_disconnected(self, why: str) -> None:
        self.converged = False
        self.bus.publish(ServicesDisconnected(time=self.clock.wall(), detail=why))
        self._refresh.set()

    def _on_event(self, body: EventBody) -> None:
        told: dict[str, Any] = {key: value for key, value in body.items() if key != "seq"}
        cursor = self.services.cursor
        if cursor is not None:
            self.journal.read = Read(identity=cursor.identity, seq=cursor.seq)
        event = from_wire(told)
        if event is None:
            _log.debug("an event of an unknown kind from services: %s", told.get("kind"))
            return
        self.bus.publish(event)

    def _on_lost(self, count: int) -> None:
        detail = "the services role no longer had them"
        self.bus.publish(EventsLost(time=self.clock.wall(), count=count, detail=detail))
        self.changed()

    def _on_tick(self, seconds: float) -> None:
        self.metrics.tick.observe(seconds)
        if self.services.connected and not self.converged and not self.reconciler.is_due:
            self.converged = True
            self.changed()

    async def _keep_status(self) -> None:
        while True:
            await self._refresh.wait()
            self._refresh.clear()
            await self._tell_status()
            await asyncio.sleep(STATUS_EVERY)

    async def _tell_status(self) -> None:
        if self._stale and self.services.connected:
            # Between two snapshots the events say enough; a snapshot reads /proc for each process.
            self._stale = False
            snapshot = await self.snapshot_or_none()
            if snapshot is not None:
                self.states.take(snapshot)
        text = (
            self.states.line()
            if self.services.connected
            else f"the services role does not answer ({self.services.why_not}); "
            "services run on without core"
        )
        if text != self._said and not self.stopping:
            self._said = text
            self._say(text)
