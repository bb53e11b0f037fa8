"""Schedules in the SQLite queue, beside what the suite of queue stores asks of every store."""

import sqlite3
from contextlib import closing
from pathlib import Path

from atlasd_plugins.queue_sqlite import connect, sql


def test_a_queue_from_before_schedules_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    number, schema = sql.STEPS[0]
    with closing(sqlite3.connect(path)) as old:
        old.executescript(f"{schema}; PRAGMA user_version = {number};")
        old.execute("INSERT INTO slots VALUES ('nightly', 1000, 7), ('nightly', 2000, 8)")
        old.commit()
    with closing(connect(path)) as connection:
        assert connection.execute("SELECT schedule, slot FROM schedules").fetchall() == [
            ("nightly", 2000)
        ]
        assert connection.execute("PRAGMA user_version").fetchone() == (sql.VERSION,)
