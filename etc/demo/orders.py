"""The demo shop's goods and orders, in one SQLite file that all its programs share."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

GOODS = {"teapot": 24, "lantern": 39, "atlas": 58}
"""Name and price in whole euros."""


class Order(NamedTuple):
    """One thing, bought by somebody; `packed` once the packer has seen to it."""

    number: int
    thing: str
    packed: bool


def database() -> Path:
    """Where the orders are kept: SHOP_DATABASE, else beside the programs."""
    return Path(os.environ.get("SHOP_DATABASE") or Path(__file__).parent / "shop.sqlite")


def prepare() -> int:
    """Create the database if it isn't there; gives the number of orders in it."""
    database().parent.mkdir(parents=True, exist_ok=True)
    with closing(_connect()) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders ("
            " number INTEGER PRIMARY KEY, thing TEXT NOT NULL, packed INTEGER NOT NULL DEFAULT 0)"
        )
        return int(connection.execute("SELECT count(*) FROM orders").fetchone()[0])


def place(thing: str) -> Order:
    """Write an order down. Raises `KeyError` for a thing that the shop doesn't sell."""
    if thing not in GOODS:
        raise KeyError(thing)
    with closing(_connect()) as connection, connection:
        row = connection.execute("INSERT INTO orders (thing) VALUES (?)", (thing,))
        return Order(row.lastrowid or 0, thing, packed=False)


def pack() -> Order | None:
    """Mark the oldest open order as packed and give it, or None if all are packed."""
    with closing(_connect()) as connection, connection:
        row = connection.execute(
            "UPDATE orders SET packed = 1 WHERE number ="
            " (SELECT min(number) FROM orders WHERE NOT packed) RETURNING number, thing"
        ).fetchone()
        return Order(row[0], row[1], packed=True) if row else None


def recent(count: int = 10) -> list[Order]:
    """The newest orders, newest first."""
    with closing(_connect()) as connection:
        rows = connection.execute(
            "SELECT number, thing, packed FROM orders ORDER BY number DESC LIMIT ?", (count,)
        )
        return [Order(number, thing, bool(packed)) for number, thing, packed in rows]


def _connect() -> sqlite3.Connection:
    # Two instances and a busy customer write to one file: wait for each other, don't fail.
    return sqlite3.connect(database(), timeout=10)
