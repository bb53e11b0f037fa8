"""The host: what it reports, and plugins of every kind at work, good ones beside bad ones."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from atlasd.bus import Bus
from atlasd.contracts.authorization import Actor, Decision
from atlasd.contracts.checks import CheckResult, CheckType
from atlasd.contracts.config import ConfigSource
from atlasd.contracts.operations import Operation
from atlasd.contracts.review import Change, ConfigDiff, Objection
from atlasd.contracts.settings import NoSettings
from atlasd.contracts.subscribers import Subscriber
from atlasd.errors import AtlasError
from atlasd.events import CoreStarted, CoreStopped, Event, EventsLost, PluginFailed
from atlasd.pluginhost import PluginHost, PluginState
from atlasd.states import Health

ACTOR = Actor(uid=0, gid=0, pid=1, right="administer")
LIMIT = timedelta(minutes=1)

# Plugins under test put what they see into this list, by the name of the module they find it in.
HEARD: dict[str, list[Any]] = {}

HEAD = """
import asyncio, sys
from contextlib import asynccontextmanager
from atlasd import hookimpl
from atlasd.contracts.authorization import Decision
from atlasd.contracts.checks import CheckResult, CheckType, Health
from atlasd.contracts.collectors import CollectorType, Metric, Sample
from atlasd.contracts.components import Component
from atlasd.contracts.operations import Operation
from atlasd.contracts.settings import NoSettings, Settings
from atlasd.contracts.subscribers import Subscriber
from atlasd.errors import AtlasError
from atlasd.events import CoreStopped
ATLASD_API = 1
notes = []

class Needs(Settings):
    word: str

def opening(thing):
    @asynccontextmanager
    async def open_it(settings, context):
        notes.append("opened")
        thing.settings, thing.context = settings, context
        yield thing
        notes.append("closed")
    return open_it
"""


def notes_of(host: PluginHost, name: str) -> list[Any]:
    """What the plugin's own module has noted."""
    return host._roll.admitted[name].plugin.notes  # type: ignore[attr-defined,no-any-return]


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.001)


# --- the report


def test_the_report_names_all_that_were_found(desk: Any) -> None:
    desk.good("zebra")
    desk.write("bad.py", "ATLASD_API = 1\n1 / 0")
    host = desk.host()
    bad, zebra = host.report()
    assert (bad.name, bad.state, bad.offers) == ("bad", PluginState.REFUSED, ())
    assert bad.reason.endswith("ZeroDivisionError: division by zero")
    assert (zebra.name, zebra.state) == ("zebra", PluginState.ADMITTED)
    assert [(o.kind, o.name, o.summary) for o in zebra.offers] == [
        ("check type", "zebra", "always well")
    ]
    assert host.refusals() == (f"plugin bad was refused: {bad.reason}",)


def test_every_built_in_comes_in_by_the_door_and_is_admitted(desk: Any) -> None:
    host = desk.host(load=False)
    host.load()
    own = [report for report in host.report() if report.origin == "atlasd"]
    assert {report.name for report in own} >= {"toml", "http", "tcp", "exec"}
    assert {report.state for report in own} == {PluginState.ADMITTED}
    assert {offer.descriptor.name for offer in host.offers(CheckType)} >= {"http", "tcp", "exec"}
    assert host.find(ConfigSource, "toml").plugin == "toml"


def test_a_drop_in_does_not_take_the_name_of_a_built_in(desk: Any) -> None:
    desk.good("http")
    host = desk.host(load=False)
    host.load()
    assert host.find(CheckType, "http").descriptor.summary != "always well"
    (refused,) = [r for r in host.report() if r.state is PluginState.REFUSED]
    assert refused.origin == str(desk.drop_ins / "http.py")


def test_loading_is_booked(desk: Any) -> None:
    desk.good()
    desk.write("bad.py", "1 / 0")
    costs = desk.host().costs()
    assert costs["good", "registration"].calls == 1
    assert costs["bad", "registration"].calls == 1


# --- checks

CHECK = (
    HEAD
    + """
class Check:
    async def run(self, limit):
        notes.append(limit.total_seconds())
        {body}

@hookimpl
def register_health_checks():
    return [CheckType(name="shop", summary="x", settings=Settings, open={open})]
"""
)


def check_plugin(body: str, opened: str = "opening(Check())") -> str:
    return CHECK.format(body=body, open=opened)


async def run_check(host: PluginHost, times: int = 1) -> list[CheckResult]:
    async with host.check("shop", NoSettings(), name="web") as check:
        return [await check.run(LIMIT) for _ in range(times)]


async def test_a_check_is_opened_once_run_often_and_closed(desk: Any) -> None:
    desk.write("shop.py", check_plugin("return CheckResult(status=Health.PASS)"))
    host = desk.host()
    results = await run_check(host, 3)
    assert [result.status for result in results] == [Health.PASS] * 3
    assert notes_of(host, "shop") == ["opened", 60.0, 60.0, 60.0, "closed"]
    assert host.costs()["shop", "check"].calls == 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("sys.exit(3)", "tried to end the daemon (SystemExit)"),
        ("return 'pass'", "it gave a str, not a CheckResult"),
        ("raise asyncio.CancelledError", "it cancelled itself"),
        ("await self.context.in_thread(sys.exit, 4)", "tried to end the daemon (SystemExit)"),
        ("await self.context.secret('x')", "which nobody gives it here"),
    ],
)
async def test_a_check_that_fails_is_unknown_says_why_and_is_counted(
    desk: Any, body: str, words: str
) -> None:
    desk.write("shop.py", check_plugin(body))
    desk.good("fine")
    host = desk.host()
    (result,) = await run_check(host)
    assert result.status is Health.UNKNOWN
    assert result.output.startswith("check web (plugin shop): ")
    assert words in result.output
    reports = {report.name: report for report in host.report()}
    assert reports["shop"].state is PluginState.FAILING
    assert words in reports["shop"].reason
    assert reports["shop"].failures == host.costs()["shop", "check"].failures == 1
    assert reports["fine"].state is PluginState.ADMITTED
    (event,) = desk.published
    assert isinstance(event, PluginFailed)
    assert words in event.detail
    async with host.check("fine", NoSettings(), name="fine") as fine:
        assert (await fine.run(LIMIT)).status is Health.PASS


async def test_a_check_that_hangs_is_cancelled_a_second_after_its_limit(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atlasd.pluginhost.work.OVERTIME", timedelta(0))
    desk.write("shop.py", check_plugin("await asyncio.Event().wait()"))
    host = desk.host()
    async with host.check("shop", NoSettings(), name="web") as check:
        result = await check.run(timedelta(0))
    assert result.status is Health.UNKNOWN
    assert "it did not return within 0 s" in result.output
    assert notes_of(host, "shop")[-1] == "closed"


async def test_a_check_that_floods_is_cut_and_counted(desk: Any) -> None:
    desk.write(
        "shop.py",
        check_plugin("return CheckResult(status=Health.WARN, output='x' * 10_000_000)"),
    )
    host = desk.host()
    (result,) = await run_check(host)
    assert (result.status, len(result.output)) == (Health.WARN, 8_000)
    assert host.costs()["shop", "check"].failures == 1
    assert "has been cut" in host.report()[0].reason


async def test_a_check_that_fails_too_often_is_left_alone_for_a_while(desk: Any) -> None:
    desk.write("shop.py", check_plugin("1 / 0"))
    host = desk.host()
    async with host.check("shop", NoSettings(), name="web") as check:
        for _ in range(8):
            result = await check.run(LIMIT)
        assert "failed 5 times in a row and rests; next try in 30 s" in result.output
        assert notes_of(host, "shop").count(60.0) == 5
        desk.clock.wind(30)
        await check.run(LIMIT)
        assert notes_of(host, "shop").count(60.0) == 6


async def test_a_check_that_does_not_open_is_tried_again_at_the_next_run(desk: Any) -> None:
    source = check_plugin(
        "return CheckResult(status=Health.PASS)",
        opened="flaky",
    ).replace(
        "@hookimpl",
        "@asynccontextmanager\n"
        "async def flaky(settings, context):\n"
        "    notes.append('try')\n"
        "    if len(notes) == 1:\n"
        "        raise ConnectionError('not yet')\n"
        "    yield Check()\n\n"
        "@hookimpl",
    )
    desk.write("shop.py", source)
    first, second = await run_check(desk.host(), 2)
    assert "not yet" in first.output
    assert second.status is Health.PASS


async def test_closing_badly_is_counted_and_ends_nothing(desk: Any) -> None:
    source = check_plugin("return CheckResult(status=Health.PASS)").replace(
        'notes.append("closed")', "1 / 0"
    )
    desk.write("shop.py", source)
    host = desk.host()
    assert (await run_check(host))[0].status is Health.PASS
    assert "closing it failed: ZeroDivisionError" in host.report()[0].reason


async def test_a_check_of_an_unknown_type_is_the_callers_mistake(desk: Any) -> None:
    with pytest.raises(AtlasError, match=r"checks\.web\.type: no plugin supplies a check type"):
        await run_check(desk.host())


# --- authorize

AUTHORIZE = (
    HEAD
    + """
@hookimpl
def authorize({arguments}):
    {body}
"""
)


def authorizing(body: str, arguments: str = "actor, operation") -> str:
    return AUTHORIZE.format(body=body, arguments=arguments)


def test_the_first_decision_stands(desk: Any) -> None:
    desk.write("a.py", authorizing("return Decision(allowed=False, reason='closed on Mondays')"))
    desk.write("b.py", authorizing("return None", "operation"))
    desk.write("c.py", authorizing("return None if actor.uid else Decision(allowed=True)", "actor"))
    host = desk.host()
    assert host.authorize(ACTOR, "service.stop") == Decision(allowed=True)
    other = Actor(uid=5, gid=5, pid=1, right="read")
    assert host.authorize(other, "service.stop") == Decision(
        allowed=False, reason="closed on Mondays"
    )
    assert host.costs()["b", "authorize"].calls == 1


def test_without_an_opinion_there_is_none(desk: Any) -> None:
    desk.write("a.py", authorizing("return None"))
    assert desk.host().authorize(ACTOR, "service.stop") is None


@pytest.mark.parametrize("body", ["1 / 0", "return True", "raise SystemExit", "return 'yes'"])
def test_a_broken_lock_is_a_locked_one(desk: Any, body: str) -> None:
    desk.write("a.py", authorizing(body))
    host = desk.host()
    decision = host.authorize(ACTOR, "service.stop")
    assert decision is not None
    assert not decision.allowed
    assert "plugin a could not decide" in decision.reason
    assert host.report()[0].state is PluginState.FAILING
    assert host.costs()["a", "authorize"].failures == 1


def test_a_slow_decision_stands_and_is_counted(desk: Any) -> None:
    desk.write("a.py", authorizing("operation.wind(0.2)"))
    host = desk.host()
    assert host.authorize(ACTOR, desk.clock) is None
    assert "it took 0.2 s, and core's loop stood still" in host.report()[0].reason


# --- review_config

REVIEW = (
    HEAD
    + """
from atlasd.contracts.review import Objection

@hookimpl
def review_config({arguments}):
    {body}
"""
)
DIFF = ConfigDiff(
    environment="production", generation=3, changes=(Change(key="log.level", kind="changed"),)
)


def reviewing(body: str, arguments: str = "diff") -> str:
    return REVIEW.format(body=body, arguments=arguments)


def test_every_objection_is_gathered_with_whose_it_is(desk: Any) -> None:
    desk.write("a.py", reviewing("return Objection(reason='not  today', key='log.level')"))
    desk.write("b.py", reviewing("return None", ""))
    desk.write("c.py", reviewing("return Objection(reason=str(diff.generation))"))
    host = desk.host()
    assert sorted(host.review(DIFF), key=lambda found: found[0]) == [
        ("a", Objection(reason="not today", key="log.level")),
        ("c", Objection(reason="3")),
    ]
    assert host.costs()["b", "review"].calls == 1


@pytest.mark.parametrize(
    "body",
    ["1 / 0", "return True", "raise SystemExit", "return 'no'", "return Objection(reason=' ')"],
)
def test_a_review_that_could_not_look_objects(desk: Any, body: str) -> None:
    desk.write("a.py", reviewing(body))
    host = desk.host()
    ((plugin, objection),) = host.review(DIFF)
    assert plugin == "a"
    assert "could not look" in objection.reason
    assert host.report()[0].state is PluginState.FAILING
    assert host.costs()["a", "review"].failures == 1


def test_a_slow_review_stands_and_is_counted(desk: Any) -> None:
    desk.write("a.py", reviewing("diff.wind(0.7)"))
    host = desk.host()
    assert host.review(desk.clock) == ()
    assert "it took 0.7 s, and core's loop stood still" in host.report()[0].reason


# --- operations

OPERATION = (
    HEAD
    + """
class Ask(Settings):
    number: int

class Told(Settings):
    twice: int

async def handle(request, context):
    {body}

@hookimpl
def register_operations():
    return [Operation(name="shop.double", summary="x", path="double", request=Ask, answer=Told,
                      handle=handle, method="POST", right="operate")]
"""
)


async def perform(host: PluginHost) -> Any:
    (offer,) = host.offers(Operation)
    assert offer.plugin == "shop"
    return await host.perform(offer.descriptor, offer.descriptor.request(number=4))


async def test_an_operation_answers(desk: Any) -> None:
    desk.write("shop.py", OPERATION.format(body="return Told(twice=request.number * 2)"))
    assert (await perform(desk.host())).twice == 8


async def test_an_operation_may_refuse_in_its_own_words(desk: Any) -> None:
    body = "raise AtlasError('plugin.shop_closed', 'the shop is closed', hint='come back')"
    desk.write("shop.py", OPERATION.format(body=body))
    host = desk.host()
    with pytest.raises(AtlasError) as caught:
        await perform(host)
    assert (caught.value.code, caught.value.hint) == ("plugin.shop_closed", "come back")
    assert host.report()[0].state is PluginState.ADMITTED


@pytest.mark.parametrize("body", ["1 / 0", "return request", "return {'twice': 8}"])
async def test_an_operation_that_fails_is_told_as_such(desk: Any, body: str) -> None:
    desk.write("shop.py", OPERATION.format(body=body))
    host = desk.host()
    with pytest.raises(AtlasError) as caught:
        await perform(host)
    assert caught.value.code == "plugin.failed"
    assert caught.value.message.startswith("operation shop.double (plugin shop): ")
    assert host.costs()["shop", "operation"].failures == 1


# --- what runs by itself


class Running:
    """A host at work, until the test is over."""

    def __init__(self, host: PluginHost, bus: Bus | None, role: str, settings: Any) -> None:
        self.host = host
        self.task = asyncio.create_task(host.run(role, bus=bus, settings=settings))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert self.task.cancelled()


SUBSCRIBER = (
    HEAD
    + """
class Handler:
    async def handle(self, event):
        notes.append(event)
        {body}

@hookimpl
def register_subscribers():
    return [Subscriber(name="ear", summary="x", open=opening(Handler()), kinds={kinds})]
"""
)


def facts(host: PluginHost, name: str = "ear") -> list[Any]:
    return [note for note in notes_of(host, name) if isinstance(note, Event)]


async def test_a_subscriber_hears_its_kinds_in_order_until_it_is_closed(desk: Any) -> None:
    desk.write("ear.py", SUBSCRIBER.format(body="pass", kinds="('core-stopped',)"))
    host, bus = desk.host(), Bus(desk.clock)
    running = Running(host, bus, "core", {})
    await until(bus.subscriptions)
    bus.publish(CoreStopped(time=1.0))
    bus.publish(CoreStarted(time=2.0, pid=1, version="x"))
    bus.publish(CoreStopped(time=3.0))
    await until(lambda: len(facts(host)) == 2)
    await running.stop()
    assert [fact.time for fact in facts(host)] == [1.0, 3.0]
    assert notes_of(host, "ear")[-1] == "closed"
    assert bus.subscriptions() == ()


async def test_a_subscriber_that_raises_gets_the_next_fact_and_rests_after_some(desk: Any) -> None:
    desk.write("ear.py", SUBSCRIBER.format(body="1 / 0", kinds="None"))
    desk.write("other.py", SUBSCRIBER.format(body="pass", kinds="None").replace("ear", "other"))
    host, bus = desk.host(), Bus(desk.clock)
    running = Running(host, bus, "core", {})
    await until(lambda: len(bus.subscriptions()) == 2)
    for number in range(9):
        bus.publish(CoreStopped(time=float(number)))
    await until(lambda: len(facts(host, "other")) == 9)
    await until(lambda: host.costs()["ear", "subscriber"].failures == 5)
    assert len(facts(host)) == 5
    desk.clock.wind(30)
    bus.publish(CoreStopped(time=9.0))
    await until(lambda: len(facts(host)) == 6)
    assert facts(host)[-1] == EventsLost(
        time=desk.clock.wall(), count=4, detail="subscriber ear rested after failures"
    )
    await running.stop()


async def test_a_subscriber_that_fails_at_its_own_failures_does_not_go_round_in_circles(
    desk: Any,
) -> None:
    desk.write("ear.py", SUBSCRIBER.format(body="1 / 0", kinds="('plugin-failed',)"))
    bus = Bus(desk.clock)
    host = PluginHost(
        drop_ins=desk.drop_ins,
        state_dir=desk.root / "state",
        publish=bus.publish,
        clock=desk.clock,
    )
    host.load(())
    running = Running(host, bus, "core", {})
    await until(bus.subscriptions)
    bus.publish(PluginFailed(time=0.0, plugin="x"))
    await until(lambda: len(facts(host)) == 2)
    await asyncio.sleep(0.01)
    assert len(facts(host)) == 2
    await running.stop()


COLLECTOR = (
    HEAD
    + """
class Collector:
    async def collect(self):
        {body}

@hookimpl
def register_collectors():
    return [CollectorType(name="{name}", summary="x", open=opening(Collector()))]
"""
)
METRIC = (
    "return [Metric(name='shop_open', help='x', kind='gauge', samples=(Sample(value={value}),))]"
)


async def test_collectors_are_asked_together_and_bad_ones_left_out(desk: Any) -> None:
    desk.write("a.py", COLLECTOR.format(name="a", body=METRIC.format(value=1)))
    desk.write("b.py", COLLECTOR.format(name="b", body="1 / 0"))
    desk.write("c.py", COLLECTOR.format(name="c", body=METRIC.format(value=3)))
    desk.write(
        "d.py",
        COLLECTOR.format(name="d", body=METRIC.format(value=4).replace("shop_", "atlasd_")),
    )
    host = desk.host()
    assert await host.collect() == ()
    running = Running(host, None, "core", {})
    await until(lambda: len(host._collectors) == 4)
    (metric,) = await host.collect()
    assert metric.samples[0].value == 1
    states = {report.name: report.state for report in host.report()}
    assert states == {"a": "admitted", "b": "failing", "c": "admitted", "d": "failing"}
    await running.stop()
    assert notes_of(host, "a") == ["opened", "closed"]
    assert await host.collect() == ()


COMPONENT = (
    HEAD
    + """
class Part:
    async def run(self):
        notes.append(("run", getattr(self.settings, "word", "")))
        {body}

@hookimpl
def register_components():
    return [Component(name="part", summary="x", open=opening(Part()), role="{role}",
                      settings={settings})]
"""
)


def component(body: str, role: str = "core", settings: str = "NoSettings") -> str:
    return COMPONENT.format(body=body, role=role, settings=settings)


async def test_a_component_runs_in_its_role_with_its_settings_and_is_closed(desk: Any) -> None:
    desk.write("part.py", component("await asyncio.Event().wait()", "monitoring", "Needs"))
    host = desk.host()
    settings = {"part": host.plugin_settings()["part"](word="hello")}
    elsewhere = Running(host, None, "core", settings)
    running = Running(host, None, "monitoring", settings)
    await until(lambda: ("run", "hello") in notes_of(host, "part"))
    await elsewhere.stop()
    await running.stop()
    assert notes_of(host, "part") == ["opened", ("run", "hello"), "closed"]


async def test_what_needs_settings_and_has_none_is_idle(desk: Any) -> None:
    desk.write("part.py", component("1 / 0", "core", "Needs"))
    desk.write("ear.py", SUBSCRIBER.format(body="pass", kinds="None"))
    host, bus = desk.host(), Bus(desk.clock)
    running = Running(host, bus, "core", {})
    await until(bus.subscriptions)
    await running.stop()
    assert notes_of(host, "part") == []
    assert {report.state for report in host.report()} == {PluginState.ADMITTED}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between a component's runs, which end at once."""
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.sleep(0)

    from atlasd.pluginhost import work

    # A default is bound when the function is made: it is replaced in the function itself.
    defaults = work.run_component.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "pause", pause)
    monkeypatch.setitem(defaults, "chance", lambda: 0.5)
    return waited


async def test_a_component_that_fails_is_opened_again_after_growing_waits(
    desk: Any, pauses: list[float]
) -> None:
    body = "if len(notes) < 10: 1 / 0"
    desk.write("part.py", component(body))
    host = desk.host()
    running = Running(host, None, "core", {})
    await until(lambda: len(notes_of(host, "part")) == 12)
    assert pauses == [1.0, 2.0, 4.0]
    assert host.costs()["part", "component"].failures == 3
    assert host.report()[0].state is PluginState.ADMITTED  # it has done what it had to do
    await running.stop()
    assert notes_of(host, "part") == ["opened", ("run", ""), "closed"] * 4


async def test_a_component_that_ran_well_for_a_while_begins_with_the_shortest_wait(
    desk: Any, pauses: list[float]
) -> None:
    wind = "self.context.clock.wind(100 if len(notes) == 5 else 0)"
    body = f"{wind}\n        if len(notes) < 10: 1 / 0"
    desk.write("part.py", component(body))
    host = desk.host()
    running = Running(host, None, "core", {})
    await until(lambda: len(notes_of(host, "part")) == 12)
    assert pauses == [1.0, 1.0, 2.0]
    await running.stop()


def test_kinds_of_subscribers_are_offered_by_their_descriptor(desk: Any) -> None:
    desk.write("ear.py", SUBSCRIBER.format(body="pass", kinds="None"))
    (offer,) = desk.host().offers(Subscriber)
    assert (offer.plugin, offer.descriptor.name) == ("ear", "ear")
