"""Records that were swapped, copied, renamed or changed in the file itself are refused."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atlasd.contracts.secrets import SecretValue
from atlasd_plugins.secrets_fernet import records
from atlasd_plugins.secrets_fernet.store import FernetStore
from tests.plugins.secrets_fernet.stores import Home, failing, text_of


class Attacker:
    """Somebody who can write the store, knows its form, and has no key."""

    def __init__(self, path: Path) -> None:
        self._sql = sqlite3.connect(path, isolation_level=None)

    def row(self, name: str, number: int = 1) -> list[object]:
        found = self._sql.execute(
            "SELECT * FROM version WHERE name = ? AND number = ?", (name, number)
        ).fetchone()
        return list(found[:-1])

    def write(self, row: list[object]) -> None:
        """Write a row with a checksum that is right: it is no secret how it is made."""
        self._sql.execute("DELETE FROM version WHERE name = ? AND number = ?", (row[1], row[2]))
        self._sql.execute(
            "INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, records._checksum("version", row)),
        )

    def close(self) -> None:
        self._sql.close()


ENVIRONMENT, NAME, NUMBER, KEY, WRAPPED, TOKEN = range(6)


@pytest.fixture
async def attacker(home: Home, store: FernetStore) -> AsyncIterator["Attacker"]:
    await store.put("low", SecretValue("of low"))
    await store.put("high", SecretValue("of high, the first"))
    await store.put("high", SecretValue("of high, the second"))
    attacker = Attacker(home.file)
    yield attacker
    attacker.close()


async def test_tokens_of_two_names_cannot_be_swapped(
    store: FernetStore, attacker: Attacker
) -> None:
    low, high = attacker.row("low"), attacker.row("high", 2)
    low[TOKEN], high[TOKEN] = high[TOKEN], low[TOKEN]
    attacker.write(low)
    attacker.write(high)
    for name in ("low", "high"):
        with failing("secret.corrupt", f"secret {name!r}", "another record's"):
            await store.get(name)


async def test_a_whole_record_cannot_take_the_place_of_another(
    store: FernetStore, attacker: Attacker
) -> None:
    low, high = attacker.row("low"), attacker.row("high", 2)
    low[KEY:] = high[KEY:]
    attacker.write(low)
    with failing("secret.corrupt", "secret 'low'", "version 2 of 'high'"):
        await store.get("low")


async def test_an_old_version_cannot_take_the_place_of_the_new_one(
    store: FernetStore, attacker: Attacker
) -> None:
    row = attacker.row("high", 1)
    row[NUMBER] = 2
    attacker.write(row)
    with failing("secret.corrupt", "version 1 of 'high'"):
        await store.get("high")


async def test_a_record_cannot_be_taken_to_another_environment(
    home: Home, store: FernetStore, attacker: Attacker
) -> None:
    async with home.open(environment="staging") as staging:
        await staging.put("high", SecretValue("of staging"))
        row = attacker.row("high", 2)
        row[ENVIRONMENT], row[NUMBER] = "staging", 1
        attacker.write(row)
        with failing("secret.corrupt", "'staging'", "'production'"):
            await staging.get("high")


async def test_a_data_key_opens_only_its_own_record(store: FernetStore, attacker: Attacker) -> None:
    low, high = attacker.row("low"), attacker.row("high", 2)
    high[WRAPPED] = low[WRAPPED]
    attacker.write(high)
    with failing("secret.corrupt", "secret 'high'", "belongs to version 1 of 'low'"):
        await store.get("high")
    await store.keygen()
    with failing("secret.corrupt", "secret 'high'"):
        await store.rotate_keys()


@pytest.mark.parametrize("column", [WRAPPED, TOKEN])
@pytest.mark.parametrize("at", [0, 10, 30, -40, -1])
async def test_a_changed_byte_is_found(
    store: FernetStore, attacker: Attacker, column: int, at: int
) -> None:
    row = attacker.row("low")
    token = bytearray(row[column])  # type: ignore[call-overload]
    token[at] ^= 1
    row[column] = bytes(token)
    attacker.write(row)
    with failing("secret.corrupt", "secret 'low'", "changed"):
        await store.get("low")
    assert await text_of(store, "high") == "of high, the second"


async def test_a_record_under_a_made_up_key_needs_that_key(
    store: FernetStore, attacker: Attacker
) -> None:
    row = attacker.row("low")
    row[KEY] = "0" * 16
    attacker.write(row)
    with failing("secret.key", "0" * 16):
        await store.get("low")


async def test_a_sealed_value_is_no_record_and_a_record_no_sealed_value(
    home: Home, store: FernetStore, attacker: Attacker
) -> None:
    sealed = await store.seal(SecretValue("v"), binding="low")
    row = attacker.row("low")
    wrapped = row[WRAPPED]
    assert isinstance(wrapped, bytes)
    with failing("secret.corrupt", "sealed for another purpose"):
        await store.unseal(f"enc:v1:{row[KEY]}:{wrapped.decode()}", binding="low")
    row[WRAPPED] = sealed.split(":")[3].encode()
    attacker.write(row)
    with failing("secret.corrupt", "something else"):
        await store.get("low")


async def test_a_row_that_is_not_as_it_was_written_is_damaged(
    home: Home, store: FernetStore, attacker: Attacker
) -> None:
    attacker._sql.execute("UPDATE secret SET current = 1 WHERE name = 'high'")
    for call in (store.get("high"), store.describe("high"), store.list()):
        with failing("secret.corrupt", "'high'", "damaged"):
            await call
    with failing("secret.corrupt", "'high'"):
        await store.put("high", SecretValue("v"))
    assert await text_of(store, "low") == "of low"
    assert len(home.raw()) > 0
