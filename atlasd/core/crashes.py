"""Crash records as the services role leaves them in the state directory, read for `why`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atlasd.events import Event, InstanceCrashed

READ_MOST = 4 * 1024 * 1024
"""Bytes of a service's records that are read: the newest."""


def read(directory: str, service: str) -> list[dict[str, Any]]:
    """A service's crash records, oldest first; torn lines are passed over.

    Raises `OSError` when there is a file that cannot be read.
    """
    found: list[dict[str, Any]] = []
    for suffix in (".1", ""):
        try:
            with Path(directory, f"{service}.jsonl{suffix}").open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - READ_MOST))
                lines = file.read(READ_MOST).split(b"\n")
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and record.get("service") == service:
                found.append(record)
    return found


def from_journal(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The same records from facts: for a core that may not read the services role's files."""
    return [dict(event.data) for event in events if isinstance(event, InstanceCrashed)]
