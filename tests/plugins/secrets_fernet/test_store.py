"""The fernet store as its users see it: versions, stages, deletion, environments, errors."""

import asyncio
import sqlite3
import stat
from datetime import UTC, datetime, timedelta

import pytest

from atlasd.clock import HandClock
from atlasd.contracts.secrets import KeyRing, Sealer, SecretValue
from atlasd_plugins.secrets_fernet.store import MOST_VALUE, FernetStore
from tests.plugins.secrets_fernet.stores import Home, failing, text_of


async def test_what_was_put_is_got(store: FernetStore) -> None:
    put = await store.put("prod/db", SecretValue(b"\x00\xff\n"), actor="uid:0")
    got = await store.get("prod/db")
    assert got.value == SecretValue(b"\x00\xff\n")
    assert put.value is None
    assert (got.version, got.stages, got.created_by) == ("1", ("current",), "uid:0")
    assert got.created == datetime.fromtimestamp(1_800_000_000, tz=UTC)
    assert got.key == (await store.keys())[0].id


async def test_it_is_what_its_contracts_ask_for(store: FernetStore) -> None:
    assert isinstance(store, KeyRing)
    assert isinstance(store, Sealer)


async def test_nothing_on_the_disk_shows_a_value(home: Home, store: FernetStore) -> None:
    await store.put("db", SecretValue("correct horse battery"))
    assert b"correct horse" not in home.raw()
    assert stat.S_IMODE(home.file.stat().st_mode) == 0o600


async def test_a_new_version_takes_the_stage_of_the_old_one(store: FernetStore) -> None:
    for value in ("one", "two", "three"):
        await store.put("db", SecretValue(value))
    assert await text_of(store, "db") == "three"
    assert await text_of(store, "db", stage="previous") == "two"
    assert await text_of(store, "db", version="1") == "one"
    assert [(v.version, v.stages) for v in await store.versions("db")] == [
        ("3", ("current",)),
        ("2", ("previous",)),
        ("1", ()),
    ]


async def test_a_pending_version_is_promoted_and_rolled_back(store: FernetStore) -> None:
    await store.put("db", SecretValue("old"))
    await store.put("db", SecretValue("new"), stage="pending")
    assert await text_of(store, "db") == "old"
    await store.stage("db", "2", "current")
    assert await text_of(store, "db") == "new"
    assert await text_of(store, "db", stage="previous") == "old"
    with failing("secret.not_found", "'pending'"):
        await store.get("db", stage="pending")
    await store.stage("db", "1", "current")
    assert await text_of(store, "db") == "old"
    assert await text_of(store, "db", stage="previous") == "new"


async def test_history_is_bounded_and_never_loses_a_stage(home: Home, store: FernetStore) -> None:
    async with home.open(keep_versions=2) as small:
        await small.put("db", SecretValue("v1"))
        await small.put("db", SecretValue("v2"), stage="pending")
        for number in range(3, 8):
            await small.put("db", SecretValue(f"v{number}"))
        kept = [(v.version, v.stages) for v in await small.versions("db")]
        assert kept == [("7", ("current",)), ("6", ("previous",)), ("2", ("pending",))]


async def test_deleted_is_gone_until_it_is_recovered(home: Home, store: FernetStore) -> None:
    await store.put("db", SecretValue("one"))
    await store.put("db", SecretValue("two"))
    info = await store.delete("db")
    assert info.recoverable_until is not None
    assert info.deleted is not None
    assert info.recoverable_until - info.deleted == timedelta(days=7)
    for call in (store.get("db"), store.versions("db"), store.stage("db", "1", "current")):
        with failing("secret.not_found", "'db'", "deleted"):
            await call
    with failing("secret.conflict", "is deleted", "until 2027-01-22 08:00:00 UTC"):
        await store.put("db", SecretValue("three"))
    with failing("secret.conflict", "deleted already"):
        await store.delete("db")
    assert [i.deleted for i in await store.list()] == [info.deleted]
    await store.recover("db")
    assert await text_of(store, "db") == "two"
    assert await text_of(store, "db", stage="previous") == "one"
    with failing("secret.conflict", "not deleted"):
        await store.recover("db")


async def test_what_is_overdue_is_gone_for_good_and_its_numbers_too(
    home: Home, store: FernetStore
) -> None:
    await store.put("db", SecretValue("one"))
    await store.put("db", SecretValue("two"))
    tokens = tokens_of(home)
    await store.delete("db", recovery=timedelta(hours=1))
    assert isinstance(home.clock, HandClock)
    home.clock.wind(3599)
    assert [info.name for info in await store.list()] == ["db"]
    home.clock.wind(1)
    with failing("secret.not_found"):
        await store.recover("db")
    with failing("secret.not_found"):
        await store.describe("db")
    assert await store.list() == []
    assert not any(token in home.raw() for token in tokens)
    # What a cache holds as version 2 must not become another value.
    assert (await store.put("db", SecretValue("anew"))).version == "3"


async def test_deleting_for_good_leaves_nothing_of_it(home: Home, store: FernetStore) -> None:
    await store.put("kept", SecretValue("x" * 3000))
    await store.put("db", SecretValue("y" * 3000))
    tokens = tokens_of(home)
    await store.delete("db", recovery=timedelta(0))
    raw = home.raw()
    assert sum(token in raw for token in tokens) == 1
    assert await text_of(store, "kept") == "x" * 3000


def tokens_of(home: Home) -> list[bytes]:
    connection = sqlite3.connect(home.file)
    rows = connection.execute("SELECT token FROM version").fetchall()
    connection.close()
    return [token[:60] for (token,) in rows]


async def test_lists_are_by_prefix_and_by_name(store: FernetStore) -> None:
    for name in ("b", "a/2", "a/10", "a-x"):
        await store.put(name, SecretValue("v"))
    assert [info.name for info in await store.list()] == ["a-x", "a/10", "a/2", "b"]
    assert [info.name for info in await store.list("a/")] == ["a/10", "a/2"]
    assert await store.list("zz") == []
    (info,) = await store.list("b")
    assert (info.current, info.versions) == ("1", 1)
    assert info == await store.describe("b")


async def test_environments_are_apart(home: Home, store: FernetStore) -> None:
    await store.put("db", SecretValue("of production"))
    async with home.open(environment="staging") as staging:
        with failing("secret.not_found", "'staging'"):
            await staging.get("db")
        await staging.put("db", SecretValue("of staging"))
        assert [info.name for info in await staging.list()] == ["db"]
        await staging.delete("db", recovery=timedelta(0))
    assert await text_of(store, "db") == "of production"


@pytest.mark.parametrize("name", ["", "a b", "/a", "a/", "a//b", "../a", "a/./b", "ä", "a\n"])
async def test_a_name_that_cannot_be(store: FernetStore, name: str) -> None:
    for call in (store.get(name), store.put(name, SecretValue("v")), store.describe(name)):
        with failing("secret.invalid", "cannot be called"):
            await call


async def test_what_else_cannot_be(store: FernetStore) -> None:
    with failing("secret.invalid", "n" * 80):
        await store.put("n" * 513, SecretValue("v"))
    with failing("secret.invalid", "1024 KiB"):
        await store.put("db", SecretValue(b"x" * (MOST_VALUE + 1)))
    with failing("secret.invalid", "'newest'"):
        await store.put("db", SecretValue("v"), stage="newest")
    await store.put("db", SecretValue(b"x" * MOST_VALUE))
    with failing("secret.invalid", "'newest'"):
        await store.stage("db", "1", "newest")
    with failing("secret.invalid", "negative"):
        await store.delete("db", recovery=timedelta(seconds=-1))
    for version in ("2", "0", "01", "+1", "one", "9" * 40):
        with failing("secret.not_found", f"'{version}'"):
            await store.get("db", version=version)


async def test_an_empty_value_is_a_value(store: FernetStore) -> None:
    await store.put("db", SecretValue(""))
    assert (await store.get("db")).value == SecretValue("")


async def test_before_anything_was_put_nothing_is_made(home: Home) -> None:
    async with home.open() as fresh:
        assert await fresh.list() == []
        assert await fresh.keys() == []
        for call in (fresh.get("db"), fresh.describe("db"), fresh.recover("db")):
            with failing("secret.not_found", "no store"):
                await call
        with failing("secret.not_found"):
            await fresh.delete("db")
    assert list(home.state.iterdir()) == []
    assert list(home.etc.iterdir()) == []


async def test_many_at_once_are_all_served(store: FernetStore) -> None:
    await asyncio.gather(*[store.put(f"n/{i}", SecretValue(str(i))) for i in range(300)])
    values = await asyncio.gather(*[text_of(store, f"n/{i}") for i in range(300)])
    assert values == [str(i) for i in range(300)]


async def test_one_that_fails_costs_only_itself(store: FernetStore) -> None:
    answers = await asyncio.gather(
        *[store.put("db", SecretValue("v")) for _ in range(3)],
        store.stage("db", "99", "current"),
        store.put("db", SecretValue("last")),
        return_exceptions=True,
    )
    assert [getattr(answer, "code", "") for answer in answers] == [
        "",
        "",
        "",
        "secret.not_found",
        "",
    ]
    assert (await store.describe("db")).versions == 4


async def test_a_caller_that_gives_up_spoils_nothing(store: FernetStore) -> None:
    puts = [asyncio.ensure_future(store.put(f"n/{i}", SecretValue("v"))) for i in range(20)]
    await asyncio.sleep(0)
    for put in puts[::2]:
        put.cancel()
    await asyncio.wait(puts)
    for number in range(1, 20, 2):
        assert await text_of(store, f"n/{number}") == "v"


async def test_two_openers_see_each_other(home: Home, store: FernetStore) -> None:
    async with home.open() as other:
        await store.put("db", SecretValue("one"))
        assert await text_of(other, "db") == "one"
        await other.put("db", SecretValue("two"))
        assert await text_of(store, "db") == "two"
        await asyncio.gather(
            *[opener.put("db", SecretValue("v")) for _ in range(20) for opener in (store, other)]
        )
        assert (await store.get("db")).version == "42"
