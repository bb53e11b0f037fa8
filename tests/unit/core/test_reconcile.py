import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.core.reconcile import Reconciler, Reloaded, Wish, mix, notes_between
from atlasd.core.wanted import SCHEMA, Intents
from atlasd.errors import AtlasError
from atlasd.services import delivery
from atlasd.services.plan import Present, plan
from atlasd.services.protocol import ActionBody
from atlasd.services.spec import (
    Delivery,
    Edge,
    HostPolicy,
    KnownSecret,
    ServiceSpec,
    spec_from_wire,
)
from atlasd.states import Lifecycle, Wanted
from atlasd.store import Store


def spec(name: str, *command: str, **values: Any) -> ServiceSpec:
    return ServiceSpec(name=name, command=command or ("sleep", "1"), **values)


def wish(*specs: ServiceSpec, **values: Any) -> Wish:
    return Wish(specs={one.name: one for one in specs}, **values)


@dataclass
class FakeServices:
    """Plans by the services role's own rules, and does at once what is planned."""

    specs: dict[str, ServiceSpec] = field(default_factory=dict)
    running: dict[tuple[str, int], str] = field(default_factory=dict)
    """Instance → digest of the specification that its process was started with."""
    delivered: dict[str, str] = field(default_factory=dict)
    """Service → digest of what its instances were handed."""
    connected: bool = True
    refusal: AtlasError | None = None
    applied: int = 0

    async def call(self, op: str, *, timeout: float = 10.0, **fields: Any) -> dict[str, Any]:
        assert op == "apply"
        if not self.connected:
            raise AtlasError("services.unreachable", "gone")
        if self.refusal is not None:
            raise self.refusal
        new = {s.name: s for s in map(spec_from_wire, fields["services"])}
        wanted = {name: Wanted(value) for name, value in fields["wanted"].items()}
        present: dict[str, list[Present]] = {}
        for (name, index), digest in self.running.items():
            has = self.delivered.get(name, "")
            one = Present(index=index, state=Lifecycle.RUNNING, digest=digest, delivered=has)
            present.setdefault(name, []).append(one)
        actions = plan(old=self.specs, new=new, wanted=wanted, present=present)
        if not fields["dry_run"]:
            self.applied += 1
            self.specs = new
            for action in actions:
                key = (action.service, action.instance)
                if action.action == "stop":
                    self.running.pop(key, None)
                elif action.action in ("start", "restart"):
                    self.running[key] = new[action.service].digest()
                if action.action in ("start", "restart", "deliver"):
                    handed = new[action.service].deliveries
                    self.delivered[action.service] = delivery.digest(handed)
        return {"actions": [action.to_wire() for action in actions]}


class Desk:
    """A reconciler, the services it talks to, and the configuration on disk."""

    def __init__(self, services: FakeServices, intents: Intents, first: Wish) -> None:
        self.services = services
        self.intents = intents
        self.disk: Wish | AtlasError = first
        self.reports: list[str] = []
        self.reconciler = Reconciler(services, intents, first, report=self.reports.append)

    def load(self) -> Wish:
        if isinstance(self.disk, AtlasError):
            raise self.disk
        return self.disk

    async def plan(self) -> tuple[Wish, tuple[ActionBody, ...]]:
        wish = self.load()
        return wish, await self.reconciler.plan(wish)

    async def apply(self, actor: str) -> tuple[Wish, tuple[ActionBody, ...]]:
        wish = self.load()
        return wish, (await self.reconciler.apply(wish, actor)).actions

    async def reload(self, actor: str) -> Reloaded:
        return await self.reconciler.reload(self.load(), actor)


@pytest.fixture
async def intents(tmp_path: Path) -> AsyncIterator[Intents]:
    store = Store.open(tmp_path / "a.db", {"wanted": SCHEMA})
    yield await Intents.load(store)
    await store.close()


def steps(actions: Any) -> list[tuple[str, int, str]]:
    return [(a["service"], a["instance"], a["action"]) for a in actions]


def moves(actions: Any) -> list[tuple[str, int, str]]:
    """The steps that start or end a process."""
    return [step for step in steps(actions) if step[2] != "update"]


TWENTY = [spec(f"s{n:02}") for n in range(20)]


async def test_asking_twice_does_nothing_twice(intents: Intents) -> None:
    desk = Desk(FakeServices(), intents, wish(*TWENTY))
    assert len(await desk.reconciler.converge("core")) == 20
    assert await desk.reconciler.converge("core") == ()


async def test_one_changed_service_of_twenty_is_one_action(intents: Intents) -> None:
    desk = Desk(FakeServices(), intents, wish(*TWENTY))
    await desk.reconciler.converge("core")
    desk.disk = wish(*TWENTY[:7], spec("s07", "sleep", "2"), *TWENTY[8:])
    _, planned = await desk.plan()
    assert steps(planned) == [("s07", 0, "restart")]
    assert "command" in planned[0]["detail"]
    _, done = await desk.apply("uid:0")
    assert steps(done) == [("s07", 0, "restart")]
    _, again = await desk.plan()
    assert again == ()


async def test_a_plan_changes_nothing(intents: Intents) -> None:
    desk = Desk(FakeServices(), intents, wish(spec("web")))
    desk.disk = wish(spec("web"), spec("new"))
    await desk.plan()
    assert desk.services.applied == 0
    assert desk.reconciler.wish.specs.keys() == {"web"}


@pytest.mark.parametrize("what", ["apply", "reload", "plan"])
async def test_a_bad_file_changes_nothing(intents: Intents, what: str) -> None:
    desk = Desk(FakeServices(), intents, wish(spec("web")))
    await desk.reconciler.converge("core")
    before = dict(desk.services.running)
    desk.disk = AtlasError("config.invalid", "atlasd.toml:3:1: no")
    work = desk.plan() if what == "plan" else getattr(desk, what)("uid:0")
    with pytest.raises(AtlasError, match=r"atlasd\.toml:3:1"):
        await work
    assert desk.services.running == before
    assert desk.reconciler.resolved().specs.keys() == {"web"}


@pytest.mark.parametrize("what", ["apply", "reload"])
async def test_what_services_refuses_changes_nothing(intents: Intents, what: str) -> None:
    desk = Desk(FakeServices(), intents, wish(spec("web")))
    await desk.reconciler.converge("core")
    desk.disk = wish(spec("web"), spec("new"))
    desk.services.refusal = AtlasError("config.invalid", "web → new → web is a circle")
    with pytest.raises(AtlasError, match="circle"):
        await getattr(desk, what)("uid:0")
    assert desk.reconciler.wish.specs.keys() == {"web"}
    desk.services.refusal = None
    assert await desk.reconciler.converge("core") == ()


async def test_a_reload_takes_over_what_touches_no_process_and_leaves_the_rest(
    intents: Intents,
) -> None:
    desk = Desk(FakeServices(), intents, wish(spec("web"), spec("db"), spec("old")))
    await desk.reconciler.converge("core")
    desk.disk = wish(
        spec("web", critical=True),
        spec("db", "sleep", "2"),
        spec("new"),
        spec("late", edges=(Edge(service="new"),)),
    )
    done = await desk.reload("uid:0")
    assert steps(done.applied) == [("web", 0, "update")]
    assert steps(done.pending) == [
        ("db", 0, "restart"),
        ("late", 0, "start"),
        ("new", 0, "start"),
        ("old", 0, "stop"),
    ]
    assert desk.services.running.keys() == {("web", 0), ("db", 0), ("old", 0)}
    # A services role that comes back empty-handed is given what is in force, not what waits.
    assert await desk.reconciler.converge("core") == ()
    _, applied = await desk.apply("uid:0")
    assert steps(applied) == steps(done.pending)


def handed(content: str, *command: str, more: bool = False) -> ServiceSpec:
    """A service that is handed a secret, and perhaps another one."""
    deliveries = [Delivery(name="DB", content=content)]
    if more:
        deliveries.append(Delivery(name="NEW", content=content))
    secrets = (KnownSecret(name="db", value=content),)
    return spec("web", *command, deliveries=tuple(deliveries), secrets=secrets)


async def test_a_reload_hands_over_what_has_changed_by_itself(intents: Intents) -> None:
    desk = Desk(FakeServices(), intents, wish(handed("MQ==")))
    await desk.reconciler.converge("core")
    desk.disk = wish(handed("Mg=="))
    done = await desk.reload("uid:0")
    assert steps(done.applied) == [("web", 0, "deliver")]
    assert done.applied[0]["reason"] == "delivery"
    assert done.pending == ()
    assert steps((await desk.reload("uid:0")).applied) == []


async def test_what_waits_for_an_apply_has_its_secrets_renewed_all_the_same(
    intents: Intents,
) -> None:
    desk = Desk(FakeServices(), intents, wish(handed("MQ==")))
    await desk.reconciler.converge("core")
    desk.disk = wish(handed("Mg==", "sleep", "2", more=True))
    told = await desk.reconciler.reload(desk.load(), "uid:0", dry_run=True)
    done = await desk.reload("uid:0")
    for one in (told, done):
        assert steps(one.applied) == [("web", 0, "deliver")]
        assert steps(one.pending) == [("web", 0, "restart")]
    now = desk.services.specs["web"]
    assert now.command == ("sleep", "1")
    assert [(d.name, d.content) for d in now.deliveries] == [("DB", "Mg==")]
    # What it wrote before may still be on its way out: the old value is not to show either.
    assert {s.value for s in now.secrets} == {"MQ==", "Mg=="}
    _, applied = await desk.apply("uid:0")
    assert steps(applied) == [("web", 0, "restart")]


async def test_without_the_services_role_a_reload_is_refused(intents: Intents) -> None:
    desk = Desk(FakeServices(connected=False), intents, wish(spec("web")))
    with pytest.raises(AtlasError) as caught:
        await desk.reload("uid:0")
    assert caught.value.code == "services.unreachable"


async def test_the_operators_stop_and_scale_are_handed_over(intents: Intents) -> None:
    desk = Desk(FakeServices(), intents, wish(spec("web"), spec("api")))
    await desk.reconciler.converge("core")
    await intents.ask("web", Wanted.DOWN, actor="", now=0.0)
    await intents.scale("api", 3, configured=1, actor="", now=0.0)
    assert moves(await desk.reconciler.converge("core")) == [
        ("api", 1, "start"),
        ("api", 2, "start"),
        ("web", 0, "stop"),
    ]
    desk.disk = wish(spec("web"), spec("api", instances=2))
    _, done = await desk.apply("uid:0")
    assert moves(done) == [("api", 2, "stop")]
    assert intents.all()["web"].wanted is Wanted.DOWN
    assert intents.all().get("api") is None


async def test_what_could_not_be_done_is_done_when_services_is_back(
    intents: Intents, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = FakeServices(connected=False)
    desk = Desk(services, intents, wish(spec("web")))
    task = asyncio.create_task(desk.reconciler.run())
    while not desk.reconciler.ticks:  # noqa: ASYNC110  another task counts them
        await asyncio.sleep(0)
    assert services.applied == 0
    services.connected = True
    desk.reconciler.due()
    while not services.applied:  # noqa: ASYNC110  another task counts them
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert services.running.keys() == {("web", 0)}
    assert not desk.reconciler.is_due


names = st.sampled_from("abcdef")
graphs = st.dictionaries(names, st.tuples(st.integers(0, 2), st.sets(names, max_size=2)))


def build(drawn: dict[str, tuple[int, set[str]]]) -> dict[str, ServiceSpec]:
    """Specifications whose edges lead to services that exist, to earlier ones only: no circles."""
    return {
        name: spec(
            name,
            "sleep",
            str(version),
            edges=tuple(Edge(service=o) for o in sorted(others) if o in drawn and o < name),
        )
        for name, (version, others) in drawn.items()
    }


@given(graphs, graphs, st.sets(names))
def test_a_mix_is_complete_in_itself(
    drawn_old: dict[str, Any], drawn_new: dict[str, Any], waiting: set[str]
) -> None:
    old, new = build(drawn_old), build(drawn_new)
    mixed = mix(old, new, waiting)
    for name, one in mixed.items():
        assert one in (old.get(name), new.get(name))
        if name in waiting:
            assert one == old[name]
    for name in old.keys() & waiting:
        assert mixed[name] == old[name]
    # A service that was taken over new finds everything that it depends on.
    for name, one in mixed.items():
        if one == new.get(name) and one != old.get(name):
            assert all(edge.service in mixed for edge in one.edges)


def test_notes_name_what_else_changes() -> None:
    before = wish(spec("web"))
    assert notes_between(before, before) == ()
    after = replace(before, host=HostPolicy(restart_rate=1.0))
    assert notes_between(before, after) == ("the host's policy changes",)
