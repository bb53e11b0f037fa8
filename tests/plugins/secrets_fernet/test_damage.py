"""A store that the disk has damaged: never a wrong value, always a clear error, nothing lost."""

import asyncio
import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlasd.clock import HandClock
from atlasd.contracts.secrets import SecretValue
from atlasd.errors import AtlasError
from atlasd.testing import PlainContext
from atlasd_plugins.secrets_fernet import FernetSettings
from atlasd_plugins.secrets_fernet.store import FernetStore
from tests.plugins.secrets_fernet.stores import Home, failing, outcome, text_of

FLIPS = int(os.environ.get("ATLASD_TEST_FLIPS", "150"))
"""Flipped bits that are tried; a soak asks for more."""

VALUES = {f"n/{number}": str(number) * (number * 97 % 900 + 1) for number in range(24)}


async def fill(home: Home) -> None:
    async with home.open() as store:
        await store.keygen()
        for name, value in VALUES.items():
            await store.put(name, SecretValue(f"old {value}"))
            await store.put(name, SecretValue(value))
        await store.put("n/0", SecretValue("being tried"), stage="pending")
        await store.put("deleted", SecretValue("deleted"))
        await store.delete("deleted")
        await store.seal(SecretValue("v"), binding="a.b")


@pytest.fixture
async def filled(home: Home) -> Home:
    """A store with secrets in it that nobody has open."""
    await fill(home)
    assert list(home.state.iterdir()) == [home.file]
    return home


def places(size: int, generator: random.Random) -> Iterator[tuple[int, int]]:
    """Bytes and bits: some of the header, which decides on much, and some of everywhere."""
    for at in (*range(0, 100, 3), *(generator.randrange(size) for _ in range(FLIPS))):
        yield at, generator.randrange(8)


async def test_a_flipped_bit_never_makes_another_value(filled: Home, tmp_path: Path) -> None:
    whole = filled.file.read_bytes()
    seed = random.SystemRandom().randrange(2**32)
    found: Counter[str] = Counter()
    for at, bit in places(len(whole), random.Random(seed)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << bit
        for rest in filled.state.iterdir():
            rest.unlink()
        filled.file.write_bytes(damaged)
        filled.file.chmod(0o600)
        where = f"byte {at}, bit {bit}, seed {seed}"
        context = PlainContext(filled.state, clock=HandClock(), config_dir=filled.etc)
        store = FernetStore(FernetSettings(), context)
        names = random.Random(at).sample(sorted(VALUES), 6)
        for name in names:
            answer = await outcome(store.get(name))
            found[answer if answer.startswith("secret.") else "value"] += 1
            assert answer in {VALUES[name], "secret.corrupt", "secret.unavailable"}, where
            assert answer != "secret.unavailable" or at < 100, where
        answer = await outcome(store.get("n/0", stage="pending"))
        assert answer in {"being tried", "secret.corrupt", "secret.unavailable"}, where
        answer = await outcome(store.get("nothing"))
        assert answer in {"secret.not_found", "secret.corrupt", "secret.unavailable"}, where
        answer = await outcome(store.get("deleted"))
        assert answer in {"secret.not_found", "secret.corrupt", "secret.unavailable"}, where
        try:
            listed = [info.name for info in await store.list()]
            assert listed == sorted([*VALUES, "deleted"]), where
        except AtlasError as error:
            found[error.code] += 1
        await store.close()
        context.close()
        assert filled.file.read_bytes() == damaged, where
    assert found["value"] > 0
    assert found["secret.corrupt"] > 0
    assert found.keys() <= {"value", "secret.corrupt", "secret.unavailable"}


@pytest.mark.parametrize("part", ["none", "header", "half a page", "a page", "half", "all but one"])
async def test_a_store_that_was_cut_is_said_to_be_and_not_made_anew(
    filled: Home, part: str
) -> None:
    whole = filled.file.read_bytes()
    size = {
        "none": 0,
        "header": 100,
        "half a page": 2048,
        "a page": 4096,
        "half": len(whole) // 8192 * 4096,
        "all but one": len(whole) - 1,
    }[part]
    filled.file.write_bytes(whole[:size])
    async with filled.open() as store:
        answers = [await outcome(store.get(name)) for name in VALUES]
        # The last byte may be one that no row uses.
        assert "secret.corrupt" in answers or part == "all but one"
        for answer, value in zip(answers, VALUES.values(), strict=True):
            assert answer in {value, "secret.corrupt"}
        if size <= 4096:
            for call in (store.put("db", SecretValue("v")), store.list(), store.keygen()):
                with failing("secret.corrupt", str(filled.file)):
                    await call
            assert filled.file.read_bytes() == whole[:size]
    filled.file.write_bytes(whole)
    async with filled.open() as store:
        assert await text_of(store, "n/7") == VALUES["n/7"]


async def test_something_else_in_its_place_is_left_alone(home: Home) -> None:
    home.file.write_bytes(b"somebody's letter\n" * 300)
    home.file.chmod(0o600)
    async with home.open() as store:
        for call in (store.get("db"), store.put("db", SecretValue("v")), store.keygen()):
            with failing("secret.corrupt", str(home.file)):
                await call
    assert home.file.read_bytes() == b"somebody's letter\n" * 300
    assert not home.ring.exists()


async def test_another_sqlite_file_is_no_store(home: Home) -> None:
    connection = sqlite3.connect(home.file)
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    home.file.chmod(0o600)
    before = home.file.read_bytes()
    async with home.open() as store:
        with failing("secret.corrupt", "not a store of secrets"):
            await store.put("db", SecretValue("v"))
    assert home.file.read_bytes() == before


async def test_a_store_of_a_later_atlasd_is_left_alone(filled: Home) -> None:
    connection = sqlite3.connect(filled.file)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    async with filled.open() as store:
        with failing("secret.corrupt", "form 2", "knows 1"):
            await store.get("n/1")


async def test_a_store_that_is_restored_under_a_running_daemon_is_read_again(
    filled: Home, tmp_path: Path
) -> None:
    backup = shutil.copy(filled.file, tmp_path / "backup")
    async with filled.open() as store:
        await store.put("n/1", SecretValue("after the backup"))
        for path in filled.state.iterdir():
            path.unlink()
        with failing("secret.not_found", "no store"):
            await store.get("n/1")
        shutil.copy(backup, filled.file)
        filled.file.chmod(0o600)
        assert await text_of(store, "n/1") == VALUES["n/1"]
        await store.put("n/1", SecretValue("anew"))
    async with filled.open() as store:
        assert await text_of(store, "n/1") == "anew"


async def test_a_store_that_others_may_read_is_closed_to_them(
    filled: Home, caplog: pytest.LogCaptureFixture
) -> None:
    filled.file.chmod(0o644)
    async with filled.open() as store:
        assert await text_of(store, "n/1") == VALUES["n/1"]
    assert filled.file.stat().st_mode & 0o777 == 0o600
    assert [record.message for record in caplog.records if str(filled.file) in record.message]


async def test_a_store_that_others_may_write_is_refused(filled: Home) -> None:
    filled.file.chmod(0o666)
    async with filled.open() as store:
        with failing("secret.denied", "0666"):
            await store.get("n/1")
    assert filled.file.stat().st_mode & 0o777 == 0o666


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
async def test_a_store_of_somebody_else_is_refused(filled: Home) -> None:
    os.chown(filled.file, 12345, -1)
    async with filled.open() as store:
        with failing("secret.denied", "user 12345"):
            await store.get("n/1")


async def test_a_link_is_no_store(filled: Home, tmp_path: Path) -> None:
    filled.file.rename(tmp_path / "elsewhere")
    filled.file.symlink_to(tmp_path / "elsewhere")
    async with filled.open() as store:
        with failing("secret.denied", "not a regular file"):
            await store.get("n/1")


async def test_a_store_that_is_locked_for_long_is_unavailable(
    filled: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atlasd_plugins.secrets_fernet.database.BUSY", 0.05)
    other = sqlite3.connect(filled.file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with filled.open() as store:
        assert await text_of(store, "n/1") == VALUES["n/1"]
        with failing("secret.unavailable", "locked"):
            await store.put("n/1", SecretValue("v"))
        other.execute("ROLLBACK")
        other.close()
        await store.put("n/1", SecretValue("v"))
        assert await text_of(store, "n/1") == "v"


async def test_what_is_put_is_on_the_disk_before_it_is_answered(home: Home) -> None:
    async with home.open() as store:
        await store.keygen()
        await store.put("db", SecretValue("v"))
        (opened, *_) = store._database._idle
        assert opened.connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert opened.connection.execute("PRAGMA secure_delete").fetchone() == (1,)
        assert opened.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        await asyncio.sleep(0)
