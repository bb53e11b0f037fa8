"""Making keys and rotating them: nothing is lost, and an old key opens nothing that is left."""

import asyncio
import random
import sqlite3
from datetime import timedelta

import pytest

from atlasd.contracts.secrets import KeyProgress, SecretValue
from atlasd_plugins.secrets_fernet.keys import Key
from atlasd_plugins.secrets_fernet.store import FernetStore
from tests.plugins.secrets_fernet.stores import Home, failing, text_of
from tests.plugins.secrets_fernet.test_sources import key_file


async def test_an_old_key_opens_nothing_that_is_left(home: Home) -> None:
    # This many rows of these sizes come and go until some have moved between pages, and SQLite
    # has left copies of them: without a rebuilt file the old key opens one of those.
    generator = random.Random(0)
    async with home.open(keep_versions=2) as store, home.open(environment="staging") as staging:
        await store.keygen()
        (old,) = home.in_ring()
        for _ in range(600):
            name = f"n/{generator.randrange(40)}"
            size = generator.choice([0, 10, 300, 600, 900, 2500])
            await store.put(name, SecretValue("v" * size))
            if generator.random() < 0.1:
                await store.delete(name, recovery=timedelta(0))
        await staging.put("n/1", SecretValue("of staging"))
        await staging.delete("n/1")
        records = (await store.keys())[0].records
        assert home.openable(old) >= records
        made = await store.keygen()
        seen: list[KeyProgress] = []
        end = await store.rotate_keys(seen.append)
        assert (end.done, end.total, end.retired) == (records, records, (old.id,))
        assert [at.done for at in seen] == sorted({at.done for at in seen})
        assert [key.id for key in home.in_ring()] == [made.id]
        assert home.openable(old) == 0
        assert home.openable(home.in_ring()[0]) == records
        await staging.recover("n/1")
        assert await text_of(staging, "n/1") == "of staging"


async def test_everything_stays_readable_and_writable_in_between(
    home: Home, store: FernetStore
) -> None:
    await asyncio.gather(*[store.put(f"n/{i}", SecretValue(str(i))) for i in range(1200)])
    await store.keygen()
    rotation = asyncio.ensure_future(store.rotate_keys())
    reads = puts = 0
    async with home.open() as other:
        while not rotation.done():
            assert await text_of(other, f"n/{reads % 1200}") == str(reads % 1200)
            await other.put(f"m/{puts}", SecretValue("v"))
            reads, puts = reads + 1, puts + 1
        assert len((await rotation).retired) == 1
        for number in range(puts):
            assert await text_of(store, f"m/{number}") == "v"
    assert home.in_ring()[0].id == (await store.get("n/7")).key


async def test_who_has_an_old_ring_in_hand_takes_the_new_one(
    home: Home, store: FernetStore
) -> None:
    async with home.open() as other:
        await other.put("db", SecretValue("v"))
        await store.keygen()
        await store.rotate_keys()
        assert (await other.put("db", SecretValue("w"))).key == home.in_ring()[0].id
        assert await text_of(other, "db") == "w"
        assert await text_of(store, "db", version="1") == "v"


async def test_without_retiring_the_old_keys_stay(home: Home, store: FernetStore) -> None:
    await store.put("db", SecretValue("v"))
    await store.keygen()
    end = await store.rotate_keys(retire=False)
    assert (end.done, end.total, end.retired) == (1, 1, ())
    assert [key.records for key in await store.keys()] == [1, 0]
    old = home.in_ring()[1]
    end = await store.rotate_keys()
    assert (end.done, end.total, end.retired) == (0, 0, (old.id,))
    end = await store.rotate_keys()
    assert (end.done, end.retired) == (0, ())


async def test_a_key_that_sealed_a_value_in_a_file_is_kept(home: Home, store: FernetStore) -> None:
    text = await store.seal(SecretValue("v"), binding="services.web.env.TOKEN")
    old = home.in_ring()[0]
    await store.keygen()
    assert (await store.rotate_keys()).retired == ()
    keys = await store.keys()
    assert [key.records for key in keys] == [0, 1]
    assert "services.web.env.TOKEN (production)" in keys[1].warning
    assert await store.unseal(text, binding="services.web.env.TOKEN") == SecretValue("v")
    anew = await store.seal(SecretValue("v"), binding="services.web.env.TOKEN")
    assert (await store.rotate_keys()).retired == (old.id,)
    assert await store.unseal(anew, binding="services.web.env.TOKEN") == SecretValue("v")
    with failing("secret.key", old.id, "services.web.env.TOKEN"):
        await store.unseal(text, binding="services.web.env.TOKEN")


async def test_a_damaged_record_stops_no_other_and_keeps_its_key(
    home: Home, store: FernetStore
) -> None:
    for name in ("a", "b", "c"):
        await store.put(name, SecretValue(name))
    connection = sqlite3.connect(home.file)
    connection.execute("UPDATE version SET token = zeroblob(120) WHERE name = 'b'")
    connection.commit()
    connection.close()
    await store.keygen()
    with failing("secret.corrupt", "2 records", "1 could not", "secret 'b'"):
        await store.rotate_keys()
    assert len(home.in_ring()) == 2
    assert await text_of(store, "a") == "a"
    with failing("secret.corrupt", "secret 'b'"):
        await store.get("b")
    await store.delete("b", recovery=None)


async def test_a_ring_of_another_store_encrypts_nothing(home: Home, store: FernetStore) -> None:
    await store.put("db", SecretValue("v"))
    (right,) = home.in_ring()
    wrong = Key(b"w" * 32)
    key_file(home.ring, wrong)
    for call in (
        store.put("other", SecretValue("v")),
        store.seal(SecretValue("v"), binding="a"),
        store.keygen(),
        store.rotate_keys(),
    ):
        with failing("secret.key", wrong.id, right.id):
            await call
    with failing("secret.key", right.id):
        await store.get("db")
    keys = {key.id: key for key in await store.keys()}
    assert keys[right.id].source == "missing"
    assert keys[right.id].records == 1
    home.ring.unlink()
    with failing("secret.key", "no key", right.id):
        await store.keygen()
    assert not home.ring.exists()
    key_file(home.ring, right)
    assert await text_of(store, "db") == "v"


async def test_two_rotations_at_once_are_as_good_as_one(home: Home, store: FernetStore) -> None:
    await asyncio.gather(*[store.put(f"n/{i}", SecretValue("v")) for i in range(50)])
    async with home.open() as other:
        await asyncio.gather(store.keygen(), other.keygen())
        ends = await asyncio.gather(store.rotate_keys(), other.rotate_keys())
    assert sum(len(end.retired) for end in ends) == 2
    assert [key.records for key in await store.keys()] == [50]


async def test_who_reads_for_long_keeps_old_keys_in_force(
    home: Home, store: FernetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("db", SecretValue("v"))
    await store.keygen()
    monkeypatch.setattr("atlasd_plugins.secrets_fernet.database.BUSY", 0.05)
    reader = sqlite3.connect(home.file)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM version").fetchall()
    async with home.open() as impatient:
        with failing("secret.unavailable", "reading"):
            await impatient.rotate_keys()
    assert len(home.in_ring()) == 2
    reader.close()
    assert len((await store.rotate_keys()).retired) == 1
