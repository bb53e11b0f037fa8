import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from atlasd.errors import AtlasError
from atlasd.store import Store

FIRST = "CREATE TABLE notes (text TEXT NOT NULL) STRICT"
SECOND = "ALTER TABLE notes ADD COLUMN colour TEXT"


def insert(text: str | None) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        return connection.execute("INSERT INTO notes (text) VALUES (?)", (text,)).rowcount

    return work


def texts(connection: sqlite3.Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "a.db", {"notes": [FIRST]})
    yield opened
    await opened.close()


async def test_it_is_durable_before_the_answer_comes(store: Store) -> None:
    await store.run(insert("kept"))
    other = sqlite3.connect(store.path)
    assert texts(other) == ["kept"]
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


async def test_the_file_is_its_owners_alone(store: Store) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


async def test_work_that_raises_undoes_only_itself_and_others_share_its_commit(
    store: Store,
) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes (text) VALUES ('half')")
        raise ValueError("no")

    results = await asyncio.gather(
        store.run(insert("a")),
        store.run(fail),
        store.run(insert("b")),
        return_exceptions=True,
    )
    assert isinstance(results[1], ValueError)
    assert await store.run(texts) == ["a", "b"]
    assert store.commits <= 4


async def test_what_the_database_refuses_is_explained(store: Store) -> None:
    with pytest.raises(AtlasError) as caught:
        await store.run(insert(None))
    assert caught.value.code == "store.unusable"
    assert str(store.path) in caught.value.message
    await store.run(insert("and it goes on"))


async def test_migrations_are_applied_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = Store.open(path, {"notes": [FIRST]})
    await store.run(insert("old"))
    await store.close()
    store = Store.open(path, {"notes": [FIRST, SECOND]})
    columns = await store.run(
        lambda connection: [row[1] for row in connection.execute("PRAGMA table_info(notes)")]
    )
    assert columns == ["text", "colour"]
    assert await store.run(texts) == ["old"]
    await store.close()


async def test_components_have_numbers_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await Store.open(path, {"notes": [FIRST, SECOND]}).close()
    other = "CREATE TABLE other (id INTEGER) STRICT"
    store = Store.open(path, {"notes": [FIRST, SECOND], "other": [other]})
    assert await store.run(lambda c: c.execute("SELECT count(*) FROM other").fetchone()) == (0,)
    await store.close()


def test_half_a_migration_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    broken = "CREATE TABLE half (id INTEGER) STRICT; CREATE TABLE half (id INTEGER) STRICT"
    with pytest.raises(AtlasError):
        Store.open(path, {"notes": [FIRST, broken]})
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT version FROM schema_version").fetchall() == [(1,)]
    names = [name for (name,) in raw.execute("SELECT name FROM sqlite_master")]
    assert "half" not in names
    raw.close()


async def test_a_newer_atlasds_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await Store.open(path, {"notes": [FIRST, SECOND]}).close()
    with pytest.raises(AtlasError) as caught:
        Store.open(path, {"notes": [FIRST]})
    assert caught.value.code == "store.unusable"
    assert "version 2" in caught.value.message
    assert "newer" in caught.value.hint


@pytest.mark.parametrize("content", [b"this is no database" * 100, None])
def test_a_file_that_is_none_is_explained(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ("a.db" if content else "missing/a.db")
    if content:
        path.write_bytes(content)
    with pytest.raises(AtlasError) as caught:
        Store.open(path, {})
    assert caught.value.code == "store.unusable"


async def test_a_writer_that_hangs_is_reported_and_not_waited_for(store: Store) -> None:
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(AtlasError) as caught:
            await store.run(insert("later"), timeout=0.05)
        assert "no answer" in caught.value.message
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "a.db", {"notes": [FIRST]})
    await store.close()
    await store.close()
    with pytest.raises(AtlasError, match="closed"):
        await store.run(texts)
