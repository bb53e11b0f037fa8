"""One transaction of the SQLite queue: what its requests see and write together."""

import json
import sqlite3

from atlasd.contracts.queue import Rules
from atlasd_plugins.queue_sqlite import sql
from atlasd_plugins.queue_sqlite.board import Board
from atlasd_plugins.queue_sqlite.enqueuing import Enqueuing


class Round:
    """One transaction under way: begun with its first write, so that looking costs no commit."""

    def __init__(
        self, connection: sqlite3.Connection, board: Board, rules: Rules, now: int, mono: float
    ) -> None:
        """`now` is the wall clock and `mono` the monotonic one, both in milliseconds."""
        self.connection = connection
        self.board = board
        self.rules = rules
        self.now = now
        self.mono = mono
        self.begun = False
        self.finished: list[int] = []
        self.finished_unique: list[int] = []
        """Those of them that may have a unique key."""
        self.results: list[tuple[int, str]] = []
        self.enqueuing = Enqueuing(self)
        self.breakers: dict[str, list[tuple[bool, int, int]]] = {}

    def write(self) -> sqlite3.Connection:
        """The connection, in a transaction."""
        if not self.begun:
            self.connection.execute("BEGIN IMMEDIATE")
            self.begun = True
        return self.connection

    def flush(self) -> None:
        """Write what was gathered for one statement each."""
        self.enqueuing.flush()
        if self.finished:
            self.write().execute(sql.FINISH, (self.now, json.dumps(self.finished)))
            self.finished = []
        if self.finished_unique:
            ids = json.dumps(self.finished_unique)
            self.write().execute(sql.FINISH_UNIQUE, (self.now, ids))
            self.finished_unique = []
        if self.results:
            self.write().executemany(sql.NOTE_RESULT, self.results)
            self.results = []

    def looked(self) -> sqlite3.Connection:
        """The connection, with all of this round in it."""
        self.flush()
        return self.connection
