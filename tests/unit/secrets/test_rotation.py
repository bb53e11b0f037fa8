"""Rotation: whatever step it is killed or fails at, one value works and the rest is made good."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.contracts.secrets import Capability, SecretValue
from atlasd.errors import AtlasError
from atlasd.events import SecretRotated
from atlasd.secrets.engine import Engine
from atlasd.secrets.rotation import IDLE, STEPS, Rotation, RotationEngine
from atlasd.secrets.rotations import SCHEMA, StoredRotations
from atlasd.secrets.steps import Commands, Plan
from atlasd.store import Store
from atlasd.testing.memory_backend import MemoryBackend
from tests.unit.secrets.house import House, until
from tests.unit.secrets.kept import Kept, KilledError

KEY = ("memory", "db")
DAY = 86400.0


@dataclass(kw_only=True)
class Database:
    """A system that takes passwords, and steps that it is rotated by."""

    accepted: set[str] = field(default_factory=lambda: {"first"})
    calls: list[str] = field(default_factory=list)
    fail_at: str = ""
    die_before: str = ""
    die_after: str = ""
    made: int = 0

    def reached(self, step: str) -> None:
        self.calls.append(step)
        if self.die_before == step:
            self.die_before = ""
            raise KilledError
        if self.fail_at == step:
            raise AtlasError("secret.rotation", f"the test lets {step} fail")

    def done(self, step: str) -> None:
        if self.die_after == step:
            self.die_after = ""
            raise KilledError

    async def create(self, name: str, current: SecretValue | None) -> SecretValue:
        self.reached("create")
        self.made += 1
        self.done("create")
        return SecretValue(f"made {self.made}")

    async def set(self, name: str, pending: SecretValue, current: SecretValue | None) -> None:
        self.reached("set")
        self.accepted.add(pending.text())
        self.done("set")

    async def test(self, name: str, pending: SecretValue) -> None:
        self.reached("test")
        assert pending.text() in self.accepted
        self.done("test")

    async def retire(self, name: str, previous: SecretValue) -> None:
        self.reached("retire")
        self.accepted.discard(previous.text())
        self.done("retire")


@dataclass(kw_only=True)
class Workshop:
    """One host over the lives of several daemons."""

    house: House
    database: Database = field(default_factory=Database)
    kept: Kept = field(default_factory=Kept)
    plan: Plan = field(default_factory=Plan)
    promoted: list[tuple[str, str]] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)

    async def daemon(self) -> RotationEngine:
        """A daemon that has just begun."""
        engine = self.house.engine()
        self.engines.append(engine)
        rotations = RotationEngine(
            engine,
            self.kept,
            open_steps=self.steps,
            clock=self.house.clock,
            publish=self.house.events.append,
            promoted=lambda backend, name: self.promoted.append((backend, name)),
        )
        await rotations.configure(self.house.policy, {KEY: self.plan})
        return rotations

    @asynccontextmanager
    async def steps(self, name: str, plan: Plan) -> AsyncIterator[Database]:
        yield self.database

    async def current(self) -> str:
        return await self.house.get(self.house.engine())


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """A database whose password is `first`."""
    house = House(folder=tmp_path)
    house.memory.descriptor = replace(house.memory.descriptor, local=True)
    house.memory.plant("db", "first")
    return Workshop(house=house)


async def rotate(rotations: RotationEngine, *, force: bool = False) -> list[str]:
    return [done.step async for done in rotations.rotate(*KEY, actor="uid:0", force=force)]


async def test_all_steps_and_the_overlap(shop: Workshop) -> None:
    rotations = await shop.daemon()
    assert await rotate(rotations) == ["create", "set", "test", "promote"]
    assert await shop.current() == "made 1"
    assert shop.promoted == [KEY]
    assert shop.database.accepted == {"first", "made 1"}
    shop.house.clock.wind(3599)
    await rotations.work_due()
    assert shop.database.accepted == {"first", "made 1"}
    shop.house.clock.wind(1)
    await rotations.work_due()
    assert shop.database.accepted == {"made 1"}
    row = rotations.standing(*KEY)
    assert row is not None
    assert (row.step, row.error) == (IDLE, "")
    told = [(e.step, e.actor) for e in shop.house.events if isinstance(e, SecretRotated)]
    assert told == [(step, "uid:0") for step in STEPS]
    assert [(e.action, e.outcome) for e in shop.house.entries if e.action != "read"] == [
        (f"rotate-{step}", "done") for step in STEPS
    ]
    assert rotations.outcomes == {"done": 1, "failed": 0}


@pytest.mark.parametrize("step", ["create", "set", "test"])
async def test_a_step_that_fails_leaves_the_current_value(shop: Workshop, step: str) -> None:
    shop.database.fail_at = step
    rotations = await shop.daemon()
    with pytest.raises(AtlasError) as caught:
        await rotate(rotations)
    error = caught.value
    assert error.code == "secret.rotation"
    assert f"the step {step} of the rotation of 'db' failed: the test lets" in error.message
    assert error.message.endswith("the current value stays in force")
    assert await shop.current() == "first"
    assert shop.promoted == []
    # Nothing goes on by itself; a new rotation begins from the beginning.
    shop.house.clock.wind(DAY)
    await rotations.work_due()
    assert await shop.current() == "first"
    shop.database.fail_at = ""
    assert await rotate(rotations) == ["create", "set", "test", "promote"]
    assert (await shop.current()).startswith("made")


async def test_a_promotion_that_the_backend_refuses_for_now_is_made_later(shop: Workshop) -> None:
    rotations = await shop.daemon()
    row = Rotation(
        environment="production", backend="memory", name="db", step="promote",
        pending=shop.house.memory.plant("db", "second"),
    )  # fmt: skip
    shop.house.memory.kept["production"]["db"].stages = {"current": "v1", "pending": row.pending}
    shop.kept.rows[KEY] = row
    rotations = await shop.daemon()
    shop.house.memory.fail("secret.unavailable")
    await rotations.work_due()
    shop.house.memory.works()
    assert await shop.current() == "first"
    await rotations.work_due()
    assert await shop.current() == "first"  # not before the time of the next attempt
    shop.house.clock.wind(60)
    await rotations.work_due()
    assert await shop.current() == "second"


async def test_retiring_is_tried_until_it_works(shop: Workshop) -> None:
    rotations = await shop.daemon()
    await rotate(rotations)
    shop.house.clock.wind(3600)
    shop.database.fail_at = "retire"
    await rotations.work_due()
    row = rotations.standing(*KEY)
    assert row is not None
    assert row.error == "retire: the test lets retire fail"
    shop.database.fail_at = ""
    await rotations.work_due()
    assert "first" in shop.database.accepted
    shop.house.clock.wind(61)
    await rotations.work_due()
    assert shop.database.accepted == {"made 1"}


async def test_during_the_overlap_only_force_rotates_again(shop: Workshop) -> None:
    rotations = await shop.daemon()
    await rotate(rotations)
    with pytest.raises(AtlasError) as caught:
        await rotate(rotations)
    assert caught.value.code == "secret.conflict"
    assert "still works for 3600 s" in caught.value.message
    assert await rotate(rotations, force=True) == ["retire", "create", "set", "test", "promote"]
    assert shop.database.accepted == {"made 1", "made 2"}


async def test_whoever_goes_back_keeps_the_old_value(shop: Workshop) -> None:
    rotations = await shop.daemon()
    await rotate(rotations)
    shop.house.memory.kept["production"]["db"].move("current", "v1")
    shop.house.clock.wind(3600)
    await rotations.work_due()
    assert await shop.current() == "first"
    assert "first" in shop.database.accepted
    assert shop.kept.rows[KEY].step == IDLE


async def test_the_next_look_comes_when_something_is_due(shop: Workshop) -> None:
    shop.plan = Plan(overlap=12.0)
    rotations = await shop.daemon()
    assert await rotations.work_due() == 30.0
    await rotate(rotations)
    assert await rotations.work_due() == pytest.approx(12.0)
    shop.house.clock.wind(12)
    assert await rotations.work_due() == 30.0
    assert "retire" in shop.database.calls


async def test_what_nothing_is_said_of_is_not_rotated(shop: Workshop) -> None:
    rotations = await shop.daemon()
    await rotations.configure(shop.house.policy, {})
    with pytest.raises(AtlasError) as caught:
        await rotate(rotations)
    assert caught.value.code == "secret.rotation"
    assert "[secrets.rotate.db]" in caught.value.hint
    assert shop.database.calls == []


async def test_a_database_that_refuses_ends_no_schedule(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.plan = Plan(every=DAY)
    rotations = await shop.daemon()
    refusals = 0

    async def refuse(rotation: Rotation) -> None:
        nonlocal refusals
        refusals += 1
        raise AtlasError("store.unusable", "the disk is full")

    monkeypatch.setattr(shop.kept, "save", refuse)
    running = asyncio.create_task(rotations.run())
    await until(lambda: refusals == 1)
    monkeypatch.undo()
    await rotations.configure(shop.house.policy, {KEY: shop.plan})
    await until(lambda: KEY in shop.kept.rows)
    running.cancel()


async def test_two_rotations_at_once_are_refused(shop: Workshop) -> None:
    rotations = await shop.daemon()
    first = rotations.rotate(*KEY, actor="a")
    assert (await anext(first)).step == "create"
    with pytest.raises(AtlasError) as caught:
        await rotate(rotations)
    assert caught.value.code == "secret.conflict"
    assert "is being rotated" in caught.value.message
    assert [done.step async for done in first] == ["set", "test", "promote"]


async def finish(shop: Workshop) -> None:
    """The next daemon, until nothing is due."""
    rotations = await shop.daemon()
    for _ in range(3):
        await rotations.work_due()
        shop.house.clock.wind(3600)


def sound(shop: Workshop, current: str) -> None:
    """One value is in force, the database takes it, and no other one."""
    assert current in shop.database.accepted
    assert shop.database.accepted == {current}
    assert shop.kept.rows[KEY].step == IDLE
    assert shop.house.memory.calls["put"] >= 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_killed_within_a_step_it_is_gone_on_with(
    shop: Workshop, step: str, when: str
) -> None:
    setattr(shop.database, f"die_{when}", step)
    rotations = await shop.daemon()
    try:
        await rotate(rotations)
        shop.house.clock.wind(3600)
        await rotations.work_due()
    except KilledError:
        pass
    assert await shop.current() in shop.database.accepted
    await finish(shop)
    current = await shop.current()
    assert current != "first"
    sound(shop, current)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("number", range(1, 8))
async def test_killed_at_any_writing_it_is_gone_on_with(
    shop: Workshop, number: int, before: bool
) -> None:
    shop.kept.die_at, shop.kept.die_before = number, before
    rotations = await shop.daemon()
    try:
        await rotate(rotations)
        shop.house.clock.wind(3600)
        await rotations.work_due()
    except KilledError:
        pass
    else:
        pytest.fail("it was not killed")
    assert await shop.current() in shop.database.accepted
    begun = KEY in shop.kept.rows
    await finish(shop)
    current = await shop.current()
    if begun:
        assert current != "first"
        sound(shop, current)
    else:
        assert current == "first"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=4))
async def test_killed_again_and_again_it_ends_well(
    tmp_path_factory: pytest.TempPathFactory, deaths: list[tuple[int, bool]]
) -> None:
    house = House(folder=tmp_path_factory.mktemp("house"))
    house.memory.descriptor = replace(house.memory.descriptor, local=True)
    house.memory.plant("db", "first")
    shop = Workshop(house=house)
    first = True
    for number, before in deaths:
        shop.kept.die_at, shop.kept.die_before = shop.kept.saves + number, before
        try:
            rotations = await shop.daemon()
            if first:
                first = False
                await rotate(rotations)
            for _ in range(3):
                await rotations.work_due()
                house.clock.wind(3600)
        except KilledError:
            pass
        assert await shop.current() in shop.database.accepted
    shop.kept.die_at = -1
    await finish(shop)
    assert shop.database.accepted == {await shop.current()}


async def test_a_secret_that_is_not_there_yet_is_made(shop: Workshop) -> None:
    shop.house.memory.forget("db")
    shop.database.accepted.clear()
    rotations = await shop.daemon()
    assert await rotate(rotations) == ["create", "set", "test", "promote"]
    shop.house.clock.wind(3600)
    await rotations.work_due()
    assert shop.database.accepted == {"made 1"}
    assert "retire" not in shop.database.calls


async def test_a_schedule_rotates_when_it_is_due(shop: Workshop) -> None:
    shop.plan = Plan(every=30 * DAY)
    rotations = await shop.daemon()
    await rotations.work_due()
    shop.house.clock.wind(30 * DAY - 60)
    rotations = await shop.daemon()  # a restart does not begin the time anew
    await rotations.work_due()
    assert shop.database.calls == []
    shop.house.clock.wind(60)
    await rotations.work_due()
    assert await shop.current() == "made 1"
    shop.house.clock.wind(DAY)
    await rotations.work_due()
    assert shop.database.made == 1
    shop.house.clock.wind(29 * DAY)
    await rotations.work_due()
    assert shop.database.made == 2
    actors = {e.actor for e in shop.house.events if isinstance(e, SecretRotated)}
    assert actors == {"schedule"}


async def test_a_schedule_that_fails_tries_again_later_and_not_at_once(shop: Workshop) -> None:
    shop.plan = Plan(every=DAY)
    shop.database.fail_at = "test"
    rotations = await shop.daemon()
    await rotations.work_due()
    shop.house.clock.wind(DAY)
    for _ in range(5):
        await rotations.work_due()
    assert shop.database.calls.count("test") == 1
    shop.house.clock.wind(60)
    await rotations.work_due()
    assert shop.database.calls.count("test") == 2


async def test_a_backend_that_cannot_keep_two_versions_is_refused(tmp_path: Path) -> None:
    memory = MemoryBackend(capabilities=frozenset({Capability.PUT}))
    shop = Workshop(house=House(folder=tmp_path, memory=memory))
    rotations = await shop.daemon()
    with pytest.raises(AtlasError) as caught:
        await rotate(rotations)
    assert caught.value.code == "secret.unsupported"
    assert shop.kept.rows == {}


async def test_rotations_outlive_the_daemon_in_its_database(tmp_path: Path) -> None:
    rotation = Rotation(
        environment="production", backend="fernet", name="prod/db", step="test", before="",
        pending="2", previous="1", retire_at=5.5, actor="uid:0", error="x", failures=3,
        next_try=7.0, since=1.0,
    )  # fmt: skip
    for expected in ([], [rotation], [replace(rotation, step="promote", before=None)]):
        store = Store.open(tmp_path / "atlasd.db", {"rotations": SCHEMA})
        rotations = StoredRotations(store)
        assert await rotations.load() == expected
        await rotations.save(
            rotation if not expected else replace(rotation, step="promote", before=None)
        )
        await store.close()


# --- the steps as commands


def commands(**given: object) -> Commands:
    return Commands(plan=Plan(**given), environment="production")  # type: ignore[arg-type]


async def test_without_a_command_a_value_is_random() -> None:
    values = {(await commands(length=24).create("db", None)).text() for _ in range(5)}
    assert len(values) == 5
    assert all(len(value) == 24 and value.isalnum() for value in values)
    await commands().set("db", SecretValue("x"), None)
    await commands().test("db", SecretValue("x"))
    await commands().retire("db", SecretValue("x"))


async def test_an_object_is_not_replaced_by_random_characters() -> None:
    with pytest.raises(AtlasError) as caught:
        await commands().create("db", SecretValue(json.dumps({"password": "hunter2"})))
    assert caught.value.code == "secret.rotation"
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
    assert (await commands().create("db", SecretValue("{no object"))).text().isalnum()


async def test_commands_read_values_from_their_input(tmp_path: Path) -> None:
    script = 'cat > "$0" && echo "$ATLASD_SECRET $ATLASD_STEP $ATLASD_ENVIRONMENT" >> "$0"'
    words = ("sh", "-c", script, str(tmp_path / "told"))
    steps = commands(set=words, test=words, retire=words)
    await steps.set("prod/db", SecretValue("new value"), SecretValue("old"))
    assert (tmp_path / "told").read_text() == "new valueprod/db set production\n"
    await steps.test("prod/db", SecretValue("new value"))
    assert (tmp_path / "told").read_text() == "new valueprod/db test production\n"
    await steps.retire("prod/db", SecretValue("old"))
    assert (tmp_path / "told").read_text() == "oldprod/db retire production\n"


async def test_a_command_makes_the_value(tmp_path: Path) -> None:
    steps = commands(create=("sh", "-c", "printf 'two\\nlines\\n\\n'"))
    assert await steps.create("db", None) == SecretValue("two\nlines\n")
    with pytest.raises(AtlasError, match="printed nothing"):
        await commands(create=("true",)).create("db", None)


async def test_what_a_failing_command_says_is_told_without_the_value() -> None:
    steps = commands(test=("sh", "-c", "read v; echo noise >&2; echo no, $v is wrong >&2; exit 3"))
    with pytest.raises(AtlasError) as caught:
        await steps.test("db", SecretValue("hunter2-hunter2\n"))
    assert caught.value.message.endswith("ended with exit code 3: no, [secret] is wrong")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("/no/such/program",), "cannot be run: No such file or directory"),
        (("sh", "-c", "kill -9 $$"), "ended by signal 9"),
        (("sh", "-c", "head -c 70000 /dev/zero"), "printed more than 65536 bytes"),
    ],
)
async def test_a_command_that_cannot_do_it_is_explained(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(AtlasError, match=says) as caught:
        await commands(create=words).create("db", None)
    assert caught.value.code == "secret.rotation"


async def test_a_command_that_hangs_is_ended_with_all_it_has_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 300 & echo $! > {pids}; sleep 300"
    with pytest.raises(AtlasError, match="did not end within 2 s"):
        await commands(test=("sh", "-c", script), timeout=2).test("db", SecretValue("x"))
    state = Path(f"/proc/{pids.read_text().strip()}/stat")
    await until(lambda: not state.exists() or state.read_text().split(") ")[1][0] == "Z")


async def test_a_command_does_not_see_the_daemons_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ATLASD_SECRETS_KEY", "the-key-of-all-secrets")
    made = await commands(create=("env",)).create("db", None)
    assert "the-key" not in made.text()
    assert "ATLASD_SECRET=db" in made.text()
