"""Procrastinate: 2 processes, 8 jobs at once each."""

import os

import procrastinate
from mark import mark

_DSN = os.environ.get("BENCH_POSTGRES", "")
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=_DSN))


@app.task(queue="bench", name="noop")
def noop(text: str) -> None:
    """Count itself."""
    mark(text)


_producer = procrastinate.App(
    connector=procrastinate.SyncPsycopgConnector(conninfo=_DSN, max_size=64)
)
_open = False


def _opened() -> procrastinate.App:
    global _open  # noqa: PLW0603
    if not _open:
        _open = True
        _producer.open()
    return _producer


def one(text: str) -> None:
    """Enqueue one."""
    _opened().configure_task("noop", queue="bench").defer(text=text)


def bulk(texts: list[str]) -> None:
    """Enqueue many."""
    task = _opened().configure_task("noop", queue="bench")
    for at in range(0, len(texts), 1000):
        task.batch_defer(*({"text": text} for text in texts[at : at + 1000]))


if __name__ == "__main__":
    _opened().schema_manager.apply_schema()
