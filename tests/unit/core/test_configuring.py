from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from atlasd.clock import HandClock
from atlasd.contracts.review import Change
from atlasd.core import journal, wanted
from atlasd.core.configuring import ConfigOperations
from atlasd.core.engine import Core
from atlasd.core.reconcile import Reconciler, Wish
from atlasd.core.wanted import Intents
from atlasd.errors import AtlasError
from atlasd.events import ConfigurationLoaded, ConfigurationRefused
from atlasd.states import Health
from atlasd.store import Store
from tests.unit.core.test_reconcile import FakeServices, spec, wish

CHANGE = Change(key="log.level", kind="changed", old="info", new="debug")


@dataclass(frozen=True)
class Candidate:
    config: Wish
    number: int
    changes: tuple[Change, ...] = (CHANGE,)
    fresh: bool = True


class FakeGenerations:
    """Generations whose files hold what the test says."""

    def __init__(self, first: Wish) -> None:
        self.current = first
        self.disk: Wish | AtlasError = first
        self.number = 1
        self.said: tuple[str, ...] = ()
        self.accepted: list[str] = []
        self.failures: list[Sequence[str]] = []
        self.full: AtlasError | None = None
        self.automatic: list[bool] = []

    async def candidate(self, *, automatic: bool = False) -> Candidate:
        self.automatic.append(automatic)
        if isinstance(self.disk, AtlasError):
            raise self.disk
        fresh = self.disk != self.current
        return Candidate(self.disk, self.number + fresh, (CHANGE,) if fresh else (), fresh)

    async def edited(self) -> tuple[str, ...]:
        return ("a.toml",) if self.disk != self.current else ()

    def objections(self, candidate: Candidate) -> tuple[str, ...]:
        return self.said

    async def accept(self, candidate: Candidate, *, actor: str) -> None:
        if self.full is not None:
            raise self.full
        self.current, self.number = candidate.config, candidate.number
        self.accepted.append(actor)

    async def settled(self, failures: Sequence[str]) -> None:
        self.failures.append(failures)


class Failing(FakeServices):
    """Services that say what they would do, and then are gone."""

    async def call(self, op: str, *, timeout: float = 10.0, **fields: Any) -> dict[str, Any]:
        answer = await super().call(op, timeout=timeout, **fields)
        if not fields["dry_run"]:
            raise AtlasError("services.unreachable", "the services role has gone")
        return answer


@dataclass
class Restored:
    undone: bool = False

    async def undo(self) -> None:
        self.undone = True


@dataclass
class Table:
    core: Core
    services: FakeServices
    generations: FakeGenerations
    operations: ConfigOperations[Wish]
    taken: list[Wish] = field(default_factory=list)
    restored: Restored = field(default_factory=Restored)
    broken: Exception | None = None

    @property
    def reloads(self) -> Mapping[str, float]:
        counter = self.core.metrics.reloads
        return {
            result: counter.labels(result)._value.get()
            for result in ("loaded", "partial", "refused")
        }

    def heard(self) -> list[object]:
        return list(self.core.journal._recent)


FIRST = wish(spec("web"), spec("db"))


@pytest.fixture
async def table(tmp_path: Path) -> AsyncIterator[Table]:
    store = Store.open(tmp_path / "a.db", {"wanted": wanted.SCHEMA, "journal": journal.SCHEMA})
    core = await Core.open(
        store=store,
        services_socket=str(tmp_path / "none.sock"),
        wish=FIRST,
        version="1",
        say=lambda _text: None,
        clock=HandClock(),
    )
    made = Table(core, FakeServices(), FakeGenerations(FIRST), None)  # type: ignore[arg-type]
    use(made, made.services)

    async def take(config: Wish) -> None:
        if made.broken is not None:
            raise made.broken
        made.taken.append(config)

    async def restore(number: int | None, _force: bool) -> tuple[int, Restored]:
        return number or 1, made.restored

    made.operations = ConfigOperations(
        core,
        made.generations,
        wish_of=lambda config: config,
        consumers={"log": take, "plugins": take},
        restore=restore,
    )
    await core.reconciler.converge("core")
    try:
        yield made
    finally:
        await store.close()


def use(table: Table, services: FakeServices) -> None:
    """Have these services be asked, with what the others had."""
    services.specs, services.running = table.services.specs, table.services.running
    table.services = services
    intents: Intents = table.core.intents
    table.core.reconciler = Reconciler(services, intents, FIRST, report=lambda _text: None)


LIVE = replace(spec("web"), restart_with=("db",))
RESTART = spec("web", "sleep", "2")


async def test_what_needs_no_restart_takes_over_and_every_part_follows(table: Table) -> None:
    table.generations.disk = wish(LIVE, spec("db"))
    body = await table.operations.config_reload(actor="uid:0")
    assert (body["generation"], body["dry_run"]) == (2, False)
    assert [a["action"] for a in body["applied"]] == ["update"]
    assert body["pending"] == ()
    assert [c["key"] for c in body["changes"]] == ["log.level"]
    assert table.generations.accepted == ["uid:0"]
    assert table.taken == [table.generations.disk] * 2
    board = table.core.configuration
    assert (board.generation, board.rejected, board.failures) == (2, "", ())
    assert board.verdict().status is Health.PASS
    assert table.reloads == {"loaded": 1, "partial": 0, "refused": 0}
    (event,) = [e for e in table.heard() if isinstance(e, ConfigurationLoaded)]
    assert (event.generation, event.actor) == (2, "uid:0")


async def test_a_restart_waits_for_apply(table: Table) -> None:
    table.generations.disk = wish(RESTART, spec("db"))
    before = dict(table.services.running)
    body = await table.operations.config_reload(actor="uid:0")
    assert [(a["service"], a["action"]) for a in body["pending"]] == [("web", "restart")]
    assert table.services.running == before
    done = await table.operations.apply(actor="uid:0")
    assert [(a["service"], a["action"]) for a in done["actions"]] == [("web", "restart")]
    assert table.services.running != before
    assert table.generations.number == 2  # it was one change


async def test_a_dry_run_and_a_plan_change_nothing(table: Table) -> None:
    table.generations.disk = wish(LIVE, RESTART, spec("new"))
    table.generations.disk = wish(RESTART, spec("new"))
    body = await table.operations.config_reload(actor="uid:0", dry_run=True)
    assert (body["generation"], body["dry_run"]) == (2, True)
    plan = await table.operations.plan(actor="uid:0")
    assert [a["action"] for a in plan["actions"]] == ["stop", "start", "restart"]
    assert "log.level is changed (live)" in plan["notes"]
    assert table.generations.accepted == []
    assert table.core.reconciler.wish == FIRST
    assert table.heard() == []


@pytest.mark.parametrize("what", ["config_reload", "apply"])
async def test_an_objection_stops_it_and_nothing_has_changed(table: Table, what: str) -> None:
    table.generations.disk = wish(LIVE)
    table.generations.said = ("plugin freeze objects: it is Friday",)
    with pytest.raises(AtlasError, match="it is Friday") as error:
        await getattr(table.operations, what)(actor="uid:0")
    assert error.value.code == "config.refused"
    assert error.value.details == {"objections": ["plugin freeze objects: it is Friday"]}
    assert table.generations.accepted == []
    assert table.core.reconciler.wish == FIRST
    assert table.services.applied == 1  # that of the start
    plan = await table.operations.plan(actor="uid:0")
    assert "plugin freeze objects: it is Friday" in plan["notes"]


@pytest.mark.parametrize("what", ["config_reload", "apply"])
async def test_broken_files_leave_everything_and_are_told_until_they_are_mended(
    table: Table, what: str
) -> None:
    table.generations.disk = AtlasError("config.invalid", "a.toml:1:1: no\na.toml:2:1: nor that")
    with pytest.raises(AtlasError):
        await getattr(table.operations, what)(actor="watch")
    verdict = table.core.configuration.verdict()
    assert verdict.status is Health.WARN
    assert "a.toml:1:1: no (and 1 more)" in verdict.output
    assert table.reloads["refused"] == 1
    (event,) = [e for e in table.heard() if isinstance(e, ConfigurationRefused)]
    assert event.detail.startswith("a.toml:1:1")
    assert table.core.numbers()["atlasd_config_rejected"] == 1.0
    # A look at them is no try.
    with pytest.raises(AtlasError):
        await table.operations.plan(actor="uid:0")
    with pytest.raises(AtlasError):
        await table.operations.config_reload(actor="uid:0", dry_run=True)
    assert table.reloads["refused"] == 1
    table.generations.disk = FIRST
    await table.operations.files_changed()
    assert table.core.configuration.verdict().status is Health.PASS
    assert table.core.numbers()["atlasd_config_rejected"] == 0.0


async def test_a_part_that_fails_makes_it_partial_and_the_others_follow(table: Table) -> None:
    table.generations.disk = wish(LIVE, spec("db"))
    table.broken = AtlasError("store.unusable", "no space")
    with pytest.raises(AtlasError, match="generation 2 is in force, but not everywhere") as error:
        await table.operations.config_reload(actor="uid:0")
    assert error.value.code == "config.partial"
    assert "rollback" in error.value.hint
    assert error.value.details == {
        "generation": 2,
        "failures": ["log: no space", "plugins: no space"],
    }
    assert table.generations.failures == [["log: no space", "plugins: no space"]]
    assert table.services.specs["web"].restart_with == ("db",)
    verdict = table.core.configuration.verdict()
    assert verdict.status is Health.WARN
    assert "in part only: log: no space" in verdict.output
    assert table.reloads == {"loaded": 0, "partial": 1, "refused": 0}
    table.broken = None
    await table.operations.config_reload(actor="uid:0")
    assert table.core.configuration.verdict().status is Health.PASS
    assert table.generations.failures[-1] == []


async def test_an_unexpected_fault_of_a_part_says_only_its_kind(table: Table) -> None:
    table.generations.disk = wish(LIVE, spec("db"))
    table.broken = RuntimeError("hunter22")
    with pytest.raises(AtlasError, match="log: RuntimeError; plugins: RuntimeError") as error:
        await table.operations.config_reload(actor="uid:0")
    assert "hunter22" not in str(error.value)


@pytest.mark.parametrize("what", ["config_reload", "apply"])
async def test_services_that_go_after_they_agreed_leave_it_partial(table: Table, what: str) -> None:
    use(table, Failing())
    table.generations.disk = wish(LIVE, spec("db"))
    with pytest.raises(AtlasError, match="services: the services role has gone") as error:
        await getattr(table.operations, what)(actor="uid:0")
    assert error.value.code == "config.partial"
    assert table.generations.accepted == ["uid:0"]
    assert table.core.reconciler.is_due  # it is tried again
    assert table.core.reconciler.wish == table.generations.disk


@pytest.mark.parametrize("what", ["config_reload", "apply"])
async def test_services_that_do_not_agree_keep_everything_as_it_was(
    table: Table, what: str
) -> None:
    table.generations.disk = wish(LIVE, spec("db"))
    table.services.refusal = AtlasError("config.invalid", "web → db → web is a circle")
    with pytest.raises(AtlasError, match="circle"):
        await getattr(table.operations, what)(actor="uid:0")
    assert table.generations.accepted == []
    assert table.core.reconciler.wish == FIRST
    assert "circle" in table.core.configuration.rejected


@pytest.mark.parametrize("what", ["config_reload", "apply"])
async def test_what_cannot_be_kept_does_not_take_over(table: Table, what: str) -> None:
    table.generations.disk = wish(LIVE, spec("db"))
    table.generations.full = AtlasError("store.unusable", "the disk is full")
    with pytest.raises(AtlasError, match="the disk is full"):
        await getattr(table.operations, what)(actor="uid:0")
    assert table.core.reconciler.wish == FIRST
    assert table.services.applied == 1
    # It is the disk that is at fault, not the files.
    assert table.core.configuration.rejected == ""


async def test_files_that_changed_are_read_as_nobody_has_asked(table: Table) -> None:
    await table.operations.files_changed()  # nothing differs
    assert table.generations.automatic == []
    table.generations.disk = wish(LIVE, spec("db"))
    await table.operations.files_changed()
    assert table.generations.automatic == [True]
    assert table.generations.accepted == ["watch"]


async def test_a_rollback_takes_over_as_the_next_generation(table: Table) -> None:
    table.generations.disk = wish(LIVE, spec("db"))
    body = await table.operations.rollback(generation=1, force=False, actor="uid:0")
    assert (body["restored"], body["generation"]) == (1, 2)
    assert not table.restored.undone


async def test_a_generation_that_is_not_valid_any_longer_is_put_back(table: Table) -> None:
    table.generations.disk = AtlasError("config.invalid", "no such user")
    with pytest.raises(AtlasError, match="no such user"):
        await table.operations.rollback(generation=1, force=False, actor="uid:0")
    assert table.restored.undone


async def test_a_rollback_that_is_in_force_in_part_stays(table: Table) -> None:
    table.generations.disk = wish(LIVE, spec("db"))
    table.broken = AtlasError("store.unusable", "no space")
    with pytest.raises(AtlasError) as error:
        await table.operations.rollback(generation=None, force=False, actor="uid:0")
    assert error.value.code == "config.partial"
    assert not table.restored.undone
