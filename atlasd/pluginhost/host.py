"""The plugin host: loads every plugin there is, says what they offer, and puts them to work."""

import asyncio
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from atlasd.bus import Bus
from atlasd.clock import Clock, RealClock
from atlasd.contracts.authorization import Actor, Decision
from atlasd.contracts.checks import CheckType
from atlasd.contracts.collectors import CollectorType, Metric
from atlasd.contracts.components import Component
from atlasd.contracts.operations import Operation
from atlasd.contracts.review import ConfigDiff, Objection
from atlasd.contracts.secrets import Rotator, RotatorType, SecretBackend, SecretStore
from atlasd.contracts.settings import NoSettings
from atlasd.contracts.subscribers import Subscriber
from atlasd.errors import AtlasError
from atlasd.events import Event
from atlasd.pluginhost import answers, work
from atlasd.pluginhost.admission import described
from atlasd.pluginhost.context import Context, Setting
from atlasd.pluginhost.guard import Backend, Guard, WrongAnswerError
from atlasd.pluginhost.kinds import Descriptor, kind_of
from atlasd.pluginhost.ledger import Cause, Cost, Ledger
from atlasd.pluginhost.report import OfferReport, PluginReport, PluginState
from atlasd.pluginhost.roll import Offer, Roll

D = TypeVar("D", bound=Descriptor)

OPERATION_LIMIT = timedelta(seconds=30)
"""What a plugin's operation may take."""
AUTHORIZE_LIMIT = timedelta(seconds=0.1)
"""An `authorize` hook that takes longer is counted as a failure: it holds up core's loop."""
REVIEW_LIMIT = timedelta(seconds=0.5)
"""A `review_config` hook that takes longer is counted as one too."""

_log = logging.getLogger(__name__)


class _Openable(Descriptor, Protocol):
    @property
    def open(self) -> Callable[[Any, Any], AbstractAsyncContextManager[Any]]: ...


O = TypeVar("O", bound=_Openable)  # noqa: E741  an openable


class PluginHost:
    """All plugins of one role. Make it, `load` it once, and `close` it at the end."""

    def __init__(
        self,
        *,
        drop_ins: Path | None,
        state_dir: Path,
        publish: Callable[[Event], None] = lambda event: None,  # noqa: ARG005  as many have none
        clock: Clock | None = None,
        reserved_operations: Collection[str] = (),
    ) -> None:
        """Nothing is looked for yet.

        `drop_ins` is the `plugins.d` folder, `state_dir` the folder below which each plugin gets
        its own, and `reserved_operations` are the names of atlasd's own operations.
        """
        self._drop_ins = drop_ins
        self._state_dir = state_dir
        self.setting = Setting()
        """Told to every plugin: set it once the environment is known."""
        self._publish = publish
        self._clock: Clock = clock or RealClock()
        self._roll = Roll(reserved_operations=reserved_operations)
        self._ledger = Ledger(self._clock, publish)
        self._bench = work.Bench(ledger=self._ledger, clock=self._clock)
        self._contexts: dict[str, Context] = {}
        self._operations: dict[str, Guard] = {}
        self._collectors: list[work.RunningCollector] = []

    def load(self, entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> None:
        """Find every plugin, and admit or refuse it; never raises for what a plugin does.

        `entry_points` replaces those that are installed.
        """
        for candidate in self._roll.find_candidates(self._drop_ins, entry_points):
            began = self._clock.monotonic()
            self._roll.take(candidate)
            self._ledger.called(candidate.name, "registration", self._clock.monotonic() - began)

    def close(self) -> None:
        """Let go of the plugins' threads."""
        for context in self._contexts.values():
            context.close()

    # --- what there is

    def offers(self, kind: type[D]) -> tuple[Offer[D], ...]:
        """What admitted plugins supply of one kind, named by its descriptor class."""
        return self._roll.offers(kind)

    def find(self, kind: type[D], name: str, *, wanted_by: str = "") -> Offer[D]:
        """What is supplied under a name; see `Roll.find` for what it raises."""
        return self._roll.find(kind, name, wanted_by=wanted_by)

    def plugin_settings(self) -> Mapping[str, type[BaseModel]]:
        """The model of each settings table `[plugins.NAME]`, by name."""
        return self._roll.tables()

    def table_owners(self) -> Mapping[str, str]:
        """The plugin that reads each settings table `[plugins.NAME]`, by name."""
        return self._roll.table_owners()

    def refusals(self) -> tuple[str, ...]:
        """A sentence for each plugin that was refused."""
        return tuple(
            f"plugin {refused.candidate.name} was refused: {refused.reason}"
            for refused in self._roll.refused
        )

    def costs(self) -> Mapping[tuple[str, str], Cost]:
        """Calls, seconds and failures since the start, by plugin and kind of work.

        Kinds are the labels of `atlasd.pluginhost.kinds`, and `registration`, `authorize`,
        `review`, `event` and `log`.
        """
        return self._ledger.costs()

    def report(self) -> list[PluginReport]:
        """Every plugin that was found, in the order of names."""
        failures: dict[str, int] = {}
        for (plugin, _), cost in self.costs().items():
            failures[plugin] = failures.get(plugin, 0) + cost.failures
        found = []
        for name, admitted in self._roll.admitted.items():
            ailing = self._ledger.ailing(name)
            found.append(
                PluginReport(
                    name=name,
                    origin=admitted.candidate.origin,
                    version=admitted.candidate.version,
                    state=PluginState.FAILING if ailing else PluginState.ADMITTED,
                    reason="; ".join(failure.detail for failure in ailing),
                    offers=tuple(
                        OfferReport(kind=kind.words, name=offer.name, summary=offer.summary)
                        for kind, offer in admitted.offers
                    ),
                    failures=failures.get(name, 0),
                )
            )
        found += (
            PluginReport(
                name=refused.candidate.name,
                origin=refused.candidate.origin,
                version=refused.candidate.version,
                state=PluginState.REFUSED,
                reason=refused.reason,
            )
            for refused in self._roll.refused
        )
        return sorted(found, key=lambda report: (report.name, report.origin))

    # --- work

    def context(self, plugin: str) -> Context:
        """The context of one plugin, the same one each time."""
        if plugin not in self._contexts:
            self._contexts[plugin] = Context(
                plugin=plugin,
                clock=self._clock,
                state_dir=self._state_dir / plugin,
                publish=self._publish,
                ledger=self._ledger,
                setting=self.setting,
            )
        return self._contexts[plugin]

    @asynccontextmanager
    async def check(
        self, type_name: str, settings: BaseModel, *, name: str
    ) -> AsyncIterator[work.RunningCheck]:
        """A configured check, to be run again and again; closed at the end.

        `settings` were validated by the type's own model. Raises what `find` raises; a check that
        does not open is unknown when it is run, and is tried again.
        """
        offer = self.find(CheckType, type_name, wanted_by=f"checks.{name}.type")
        make = partial(offer.descriptor.open, settings, self.context(offer.plugin))
        backend = Backend(plugin=offer.plugin, kind="check", name=f"check {name}")
        async with work.running_check(self._bench, backend, make) as check:
            yield check

    @asynccontextmanager
    async def secret_backend(
        self, type_name: str, settings: BaseModel, name: str, environment: str
    ) -> AsyncIterator[work.RunningThing[SecretStore]]:
        """A place where secrets are kept, for one environment; opened when first called.

        Raises what `find` raises.
        """
        offer = self.find(SecretBackend, type_name, wanted_by=f"secrets.backends.{name}.type")
        make = partial(
            offer.descriptor.open, settings, self.context(offer.plugin).within(environment)
        )
        backend = Backend(plugin=offer.plugin, kind="secret_backend", name=f"secret backend {name}")
        async with work.running_thing(self._bench, backend, make) as running:
            yield running

    @asynccontextmanager
    async def secret_rotator(
        self, type_name: str, settings: Mapping[str, BaseModel], name: str, environment: str
    ) -> AsyncIterator[work.RunningThing[Rotator]]:
        """What rotates one secret; `settings` holds the validated tables `[plugins.NAME]`.

        Raises what `find` raises, and `plugin.settings` when it needs settings and has none.
        """
        offer = self.find(RotatorType, type_name, wanted_by=f"secrets.rotate.{name}.rotator")
        try:
            ready = settings.get(type_name) or offer.descriptor.settings()
        except ValidationError:
            raise AtlasError(
                "plugin.settings",
                f"the rotator {type_name} has settings that must be given",
                hint=f"write a table [plugins.{type_name}]",
            ) from None
        make = partial(offer.descriptor.open, ready, self.context(offer.plugin).within(environment))
        backend = Backend(plugin=offer.plugin, kind="secret_rotator", name=f"rotator of {name}")
        async with work.running_thing(self._bench, backend, make) as running:
            yield running

    def authorize(self, actor: Actor, operation: str) -> Decision | None:
        """The first decision of an `authorize` hook, or None when none has an opinion.

        One that raises or answers wrongly refuses: a broken lock is a locked one.
        """
        given: dict[str, object] = {"actor": actor, "operation": operation}
        for implementation in reversed(self._roll.manager.hook.authorize.get_hookimpls()):
            plugin = implementation.plugin_name
            arguments = [given[name] for name in implementation.argnames]
            began = self._clock.monotonic()
            fault: tuple[Cause, str] | None = None
            decision = None
            try:
                decision = answers.decision(implementation.function(*arguments))
            except WrongAnswerError as error:
                fault = (Cause.WRONG, str(error))
            except BaseException as error:  # noqa: BLE001  it may do anything but end the daemon
                _log.warning("plugin %s: authorize failed", plugin, exc_info=error)
                fault = (Cause.RAISED, described(error))
            seconds = self._clock.monotonic() - began
            self._ledger.called(plugin, "authorize", seconds)
            if fault is None and seconds > AUTHORIZE_LIMIT.total_seconds():
                slow = (Cause.HUNG, f"it took {seconds:.1f} s, and core's loop stood still")
                self._fail_authorize(plugin, *slow)
            elif fault is None:
                self._ledger.worked(plugin, "authorize")
            else:
                self._fail_authorize(plugin, *fault)
                reason = f"plugin {plugin} could not decide; `atlasctl plugins` shows why"
                return Decision(allowed=False, reason=reason)
            if decision is not None:
                return decision
        return None

    def _fail_authorize(self, plugin: str, cause: Cause, detail: str) -> None:
        self._ledger.failed(plugin, "authorize", "authorize", cause, f"authorize: {detail}")

    def review(self, diff: ConfigDiff) -> tuple[tuple[str, Objection], ...]:
        """What plugins have against a change of the configuration: each one's name and objection.

        All are asked, so that all is said at once. One that raises or answers wrongly objects: who
        was to look has not looked.
        """
        found = []
        for implementation in reversed(self._roll.manager.hook.review_config.get_hookimpls()):
            plugin = implementation.plugin_name
            arguments = [diff for _ in implementation.argnames]
            began = self._clock.monotonic()
            fault: tuple[Cause, str] | None = None
            objection = None
            try:
                objection = answers.objection(implementation.function(*arguments))
            except WrongAnswerError as error:
                fault = (Cause.WRONG, str(error))
            except BaseException as error:  # noqa: BLE001  it may do anything but end the daemon
                _log.warning("plugin %s: review_config failed", plugin, exc_info=error)
                fault = (Cause.RAISED, described(error))
            seconds = self._clock.monotonic() - began
            self._ledger.called(plugin, "review", seconds)
            if fault is not None:
                objection = Objection(
                    reason="it could not look at the change; `atlasctl plugins` shows why"
                )
            elif seconds > REVIEW_LIMIT.total_seconds():
                fault = (Cause.HUNG, f"it took {seconds:.1f} s, and core's loop stood still")
            else:
                self._ledger.worked(plugin, "review")
            if fault is not None:
                cause, detail = fault
                self._ledger.failed(plugin, "review", "review", cause, f"review_config: {detail}")
            if objection is not None:
                found.append((plugin, objection))
        return tuple(found)

    async def perform(self, operation: Operation, request: BaseModel) -> BaseModel:
        """What a plugin's operation answers to a validated request.

        Raises the plugin's own `AtlasError`, or `AtlasError("plugin.failed")` when it fails.
        """
        offer = self.find(Operation, operation.name)
        backend = self._backend(offer)
        guard = self._operations.get(operation.name)
        if guard is None:
            guard = self._operations[operation.name] = self._bench.guard(backend, most_strays=8)
        return await guard.call(
            partial(_perform, offer.descriptor, request, self.context(offer.plugin)),
            limit=OPERATION_LIMIT,
            accept=answers.model(operation.answer),
            honest=(AtlasError,),
        )

    async def collect(self) -> tuple[Metric, ...]:
        """What all running collectors give now; of two metrics with one name the first stays."""
        given = await asyncio.gather(*(collector.collect() for collector in self._collectors))
        found: dict[str, Metric] = {}
        for metrics in given:
            for metric in metrics:
                found.setdefault(metric.name, metric)
        return tuple(found.values())

    async def run(self, role: str, *, bus: Bus | None, settings: Mapping[str, BaseModel]) -> None:
        """Put the role's components to work, and in core the subscribers and collectors.

        Goes on until cancelled; then everything is closed. `settings` holds the validated tables
        `[plugins.NAME]`. What needs settings and has none stays idle.
        """
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for component in self.offers(Component):
                make = self._maker(component, settings)
                if component.descriptor.role == role and make is not None:
                    backend = self._backend(component)
                    group.create_task(
                        work.run_component(self._bench, backend, make), name=backend.name
                    )
            if role == "core":
                await self._run_collectors(stack, settings)
            if role == "core" and bus is not None:
                self._run_subscribers(group, bus, settings)
            await asyncio.Event().wait()

    async def _run_collectors(
        self, stack: AsyncExitStack, settings: Mapping[str, BaseModel]
    ) -> None:
        stack.callback(self._collectors.clear)
        for collector in self.offers(CollectorType):
            make = self._maker(collector, settings)
            if make is not None:
                running = work.running_collector(self._bench, self._backend(collector), make)
                self._collectors.append(await stack.enter_async_context(running))

    def _run_subscribers(
        self, group: asyncio.TaskGroup, bus: Bus, settings: Mapping[str, BaseModel]
    ) -> None:
        for subscriber in self.offers(Subscriber):
            make = self._maker(subscriber, settings)
            if make is not None:
                backend = self._backend(subscriber)
                subscription = bus.subscribe(
                    f"plugin {subscriber.plugin}", kinds=subscriber.descriptor.kinds
                )
                group.create_task(
                    work.run_subscriber(self._bench, backend, make, subscription),
                    name=backend.name,
                )

    def _backend(self, offer: Offer[Descriptor]) -> Backend:
        kind = kind_of(offer.descriptor)
        return Backend(
            plugin=offer.plugin, kind=kind.label, name=f"{kind.words} {offer.descriptor.name}"
        )

    def _maker(
        self, offer: Offer[O], settings: Mapping[str, BaseModel]
    ) -> Callable[[], AbstractAsyncContextManager[Any]] | None:
        """What opens it with its settings; None when it needs settings and there are none."""
        name = offer.descriptor.name
        model = self.plugin_settings().get(name, NoSettings)
        try:
            ready = settings.get(name) or model()
        except ValidationError:
            _log.info("%s is idle: there is no table [plugins.%s]", self._backend(offer).name, name)
            return None
        return partial(offer.descriptor.open, ready, self.context(offer.plugin))


async def _perform(operation: Operation, request: BaseModel, context: Context) -> BaseModel:
    return await operation.handle(request, context)
