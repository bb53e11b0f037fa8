import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atlasd.clock import HandClock
from atlasd.config import history as history_module
from atlasd.config.generations import GRACE, Candidate, Generations
from atlasd.config.history import Generation, History, beyond
from atlasd.config.load import Config
from atlasd.config.restoring import Restorer
from atlasd.config.snapshot import FileText, Snapshot
from atlasd.contracts.review import Change, ConfigDiff, Objection
from atlasd.errors import AtlasError
from atlasd.store import Store
from tests.unit.config.desk import Desk

FIRST = '[log]\nlevel = "info"\n'
SECOND = '[log]\nlevel = "debug"\n'


class Table:
    """A daemon's generations, its files, and what is asked of plugins."""

    def __init__(self, desk: Desk, store: Store) -> None:
        self.desk = desk
        self.store = store
        self.clock = HandClock()
        self.asked: list[ConfigDiff] = []
        self.objections: list[tuple[str, Objection]] = []
        self.pauses: list[float] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def review(self, diff: ConfigDiff) -> Sequence[tuple[str, Objection]]:
        self.asked.append(diff)
        return self.objections

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.meanwhile()

    async def begin(self) -> Generations:
        """What a daemon that starts now goes on from."""
        begun = await Generations.begin(
            self.desk.load(),
            load=self.load,
            history=History(self.store),
            review=self.review,
            parts=Path(self.desk.paths.config_parts),
            clock=self.clock,
        )
        begun._pause = self.pause
        return begun

    def load(self) -> Config:
        return self.desk.load()


@asynccontextmanager
async def opened(desk: Desk, path: Path) -> AsyncIterator[Table]:
    store = await asyncio.to_thread(Store.open, path, {"generations": history_module.SCHEMA})
    try:
        yield Table(desk, store)
    finally:
        await store.close()


@pytest.fixture
async def table(desk: Desk, tmp_path: Path) -> AsyncIterator[Table]:
    desk.write(FIRST)
    async with opened(desk, tmp_path / "a.db") as made:
        yield made


async def test_a_change_is_the_next_generation(table: Table) -> None:
    generations = await table.begin()
    assert generations.current.generation == 1
    table.desk.write(SECOND)
    candidate = await generations.candidate()
    assert (candidate.number, candidate.fresh) == (2, True)
    assert [(c.key, c.old, c.new) for c in candidate.changes] == [("log.level", "info", "debug")]
    assert generations.current.generation == 1  # nothing has happened yet
    await generations.accept(candidate, actor="uid:0")
    assert generations.current.log.level == "debug"
    kept = await generations.history.all()
    assert [(one.number, one.actor) for one in kept] == [(2, "uid:0"), (1, "start")]
    assert (await generations.history.get(1)).files.files[0].content == FIRST.encode()
    assert await generations.edited() == ()


async def test_numbers_go_on_across_restarts(table: Table) -> None:
    generations = await table.begin()
    table.desk.write(SECOND)
    await generations.accept(await generations.candidate(), actor="uid:0")
    assert (await table.begin()).current.generation == 2
    table.desk.write(FIRST)  # somebody edits while no daemon runs
    again = await table.begin()
    assert again.current.generation == 3
    last = await again.history.last()
    assert last is not None
    assert (last.number, last.actor) == (3, "start")
    table.desk.env = "staging"  # the same files, for another environment
    assert (await table.begin()).current.generation == 4


async def test_a_comment_makes_no_generation_and_comes_back_with_it(table: Table) -> None:
    generations = await table.begin()
    table.desk.write("# said\n" + FIRST)
    candidate = await generations.candidate()
    assert (candidate.number, candidate.fresh, candidate.changes) == (1, False, ())
    assert await generations.edited() != ()
    await generations.accept(candidate, actor="watch")
    assert await generations.edited() == ()
    assert (await generations.history.get(1)).files.files[0].content.startswith(b"# said")
    assert (await table.begin()).current.generation == 1


async def test_a_broken_file_is_no_candidate_and_nothing_changes(table: Table) -> None:
    generations = await table.begin()
    table.desk.write("[log]\nlevel = 3\n")
    with pytest.raises(AtlasError, match=r"log\.level: expected"):
        await generations.candidate()
    assert generations.current.log.level == "info"
    assert len(await generations.history.all()) == 1


@pytest.mark.parametrize("automatic", [False, True])
@pytest.mark.parametrize("during", ["", None])
async def test_a_file_that_is_being_renamed_is_waited_for(
    table: Table, during: str | None, automatic: bool
) -> None:
    generations = await table.begin()
    path = table.desk.write("")
    if during is None:
        path.unlink()
    table.meanwhile = lambda: table.desk.write(SECOND)
    candidate = await generations.candidate(automatic=automatic)
    assert table.pauses == [GRACE]
    assert candidate.config.log.level == "debug"


async def test_a_file_that_stays_empty_is_taken_only_if_somebody_asks(table: Table) -> None:
    generations = await table.begin()
    table.desk.write("\n")
    with pytest.raises(AtlasError, match="the file is empty, and was not in generation 1"):
        await generations.candidate(automatic=True)
    assert (await generations.candidate()).changes[0].kind == "removed"


async def test_a_missing_main_file_is_an_error(table: Table) -> None:
    generations = await table.begin()
    table.desk.write("").unlink()
    with pytest.raises(AtlasError) as error:
        await generations.candidate(automatic=True)
    assert error.value.code == "config.missing"


async def test_what_is_kept_is_what_was_read(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    generations = await table.begin()
    table.desk.write(SECOND)
    real, texts = table.load, iter(['[log]\nlevel = "error"\n'])

    def racing() -> Config:
        found = real()
        # An editor writes between the reading and the snapshot.
        for text in texts:
            table.desk.write(text)
        return found

    monkeypatch.setattr(generations, "_load", racing)
    candidate = await generations.candidate()
    assert candidate.config.log.level == "error"
    assert candidate.files.files[0].content == b'[log]\nlevel = "error"\n'


async def test_a_mistake_that_was_gone_by_the_time_is_not_told(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    generations = await table.begin()
    table.desk.write("[log\n")
    real, texts = table.load, iter([SECOND])

    def racing() -> Config:
        try:
            return real()
        finally:
            for text in texts:
                table.desk.write(text)

    monkeypatch.setattr(generations, "_load", racing)
    assert (await generations.candidate()).config.log.level == "debug"


async def test_every_objection_is_told_with_whose_it_is(table: Table) -> None:
    generations = await table.begin()
    table.desk.write(SECOND)
    table.objections = [
        ("freeze", Objection(reason="it is Friday")),
        ("quiet", Objection(reason="debug is loud", key="log.level")),
    ]
    candidate = await generations.candidate()
    assert generations.objections(candidate) == (
        "plugin freeze objects: it is Friday",
        "plugin quiet objects to log.level: debug is loud",
    )
    (diff,) = table.asked
    assert (diff.generation, diff.environment) == (1, "production")
    assert diff.settings == {"log": {"level": "debug"}}
    await generations.accept(candidate, actor="uid:0")
    # What means the same is nobody's business.
    assert generations.objections(await generations.candidate()) == ()
    assert len(table.asked) == 1


async def test_a_part_that_could_not_follow_is_kept_with_the_generation(table: Table) -> None:
    generations = await table.begin()
    await generations.settled(["log: no space", "plugins: RuntimeError"])
    (one,) = await generations.history.all()
    assert (one.state, one.detail) == ("partial", "log: no space; plugins: RuntimeError")
    await generations.settled([])
    (one,) = await generations.history.all()
    assert (one.state, one.detail) == ("accepted", "")


def generation(number: int, size: int = 10) -> Generation:
    files = Snapshot(files=(FileText(path="/etc/a", content=b"x" * size),))
    return Generation(
        number=number,
        time=float(number),
        actor="uid:0",
        environment="production",
        digest=files.digest,
        changes=(Change(key="a", kind="changed", old=1, new=[2], effect="live", where="f:1:2"),),
        files=files,
    )


async def test_a_generation_is_read_as_it_was_kept(table: Table) -> None:
    history = History(table.store)
    assert await history.last() is None
    await history.add(generation(3))
    assert await history.last() == generation(3)
    assert await history.get(3) == generation(3)
    with pytest.raises(AtlasError, match="there is no generation 4"):
        await history.get(4)


async def test_a_bounded_number_is_kept(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "KEEP", 3)
    history = History(table.store)
    for number in range(1, 8):
        await history.add(generation(number))
    assert [one.number for one in await history.all()] == [7, 6, 5]


def test_the_latest_stays_whatever_it_has() -> None:
    assert beyond([], keep=3, keep_bytes=100) == []
    assert beyond([(9, 1000)], keep=3, keep_bytes=100) == []
    assert beyond([(9, 50), (8, 40), (7, 20), (6, 1)], keep=9, keep_bytes=100) == [7, 6]
    assert beyond([(9, 1), (8, 1), (7, 1), (6, 1)], keep=2, keep_bytes=100) == [7, 6]


# --- having an earlier one back


async def taken(generations: Generations) -> Candidate:
    candidate = await generations.candidate()
    await generations.accept(candidate, actor="uid:0")
    return candidate


def restorer(table: Table, generations: Generations) -> Restorer:
    return Restorer(table.desk.paths, generations.history, generations.present)


async def test_the_files_of_the_generation_before_come_back(table: Table) -> None:
    generations = await table.begin()
    table.desk.write(SECOND)
    table.desk.write("[host]\nlog_budget = 2097152\n", "conf.d/new.toml")
    await taken(generations)
    number, restored = await restorer(table, generations).restore(None, force=False)
    assert number == 1
    assert (table.desk.etc / "atlasd.toml").read_text() == FIRST
    assert not (table.desk.etc / "conf.d" / "new.toml").exists()
    assert (table.desk.etc / "conf.d" / "new.toml.bak").exists()
    assert (table.desk.etc / "atlasd.toml.bak").read_text() == SECOND
    await restored.undo()
    assert (table.desk.etc / "atlasd.toml").read_text() == SECOND
    assert (table.desk.etc / "conf.d" / "new.toml").exists()
    assert await generations.edited() == ()


@pytest.mark.parametrize("name", ["atlasd.toml", "conf.d/other.toml"])
async def test_edits_are_not_written_over_unless_they_may_be(table: Table, name: str) -> None:
    generations = await table.begin()
    table.desk.write(SECOND)
    await taken(generations)
    table.desk.write("[log\n", name)
    with pytest.raises(AtlasError, match=f"{name} was changed since generation 2") as error:
        await restorer(table, generations).restore(1, force=False)
    assert error.value.code == "config.conflict"
    assert "rollback 1 --force" in error.value.hint
    await restorer(table, generations).restore(1, force=True)
    assert table.load().log.level == "info"


async def test_the_files_of_another_environment_stay(table: Table) -> None:
    table.desk.env = "staging"
    table.desk.write("", "environments/staging.toml")
    generations = await table.begin()
    table.desk.env = "production"
    other = table.desk.write("# live\n", "environments/production.toml")
    generations = await table.begin()
    await restorer(table, generations).restore(1, force=False)
    assert other.exists()


async def test_a_generation_that_is_not_there_changes_nothing(table: Table) -> None:
    generations = await table.begin()
    for number, said in ((None, "no generation before 1"), (7, "no generation 7")):
        with pytest.raises(AtlasError, match=said) as error:
            await restorer(table, generations).restore(number, force=True)
        assert error.value.code == "config.unknown"
    assert (table.desk.etc / "atlasd.toml").read_text() == FIRST
