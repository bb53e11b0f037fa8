"""The record of an unplanned exit: what died, of what, with which last words, how often."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence

from atlasd.clock import isoformat
from atlasd.services.restart import Exit
from atlasd.services.signals import signal_name

KEEP_BYTES = 2 * 1024 * 1024
"""A service's file of records is begun anew at this size; the one before it is kept."""
COUNTS_BYTES = 256 * 1024
"""Of the end of each file, from which the counts are taken up again: fifty services that crash at
once after a boot must not keep the loop busy with what happened long ago."""
LAST_LINES = 20

_VARYING = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}|\d+")


def fingerprint(service: str, cause: str, exit_: Exit, last_output: Sequence[str]) -> str:
    """The same text for crashes of the same kind.

    Made of the service, the cause, the code or signal and the last three lines of error output,
    with numbers, addresses and identifiers taken out, as they differ between equal crashes.
    """
    lines = [_VARYING.sub("#", line.strip()) for line in last_output if line.strip()][-3:]
    text = "\n".join([service, cause, str(exit_.code), str(exit_.signal), *lines])
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=6).hexdigest()


class CrashFile:
    """Crash records of one service: a file of JSON lines in the state directory."""

    def __init__(self, directory: str, service: str) -> None:
        self.path = os.path.join(directory, f"{service}.jsonl")
        self._counts: dict[str, int] | None = None

    def counts(self) -> dict[str, int]:
        """Fingerprint → crashes recorded, read once from what is on disk."""
        if self._counts is None:
            self._counts = {}
            for path in (self.path + ".1", self.path):
                for record in read(path, last=COUNTS_BYTES):
                    key = str(record.get("fingerprint"))
                    count = record.get("count")
                    self._counts[key] = count if isinstance(count, int) else 1
        return self._counts

    def add(self, record: Mapping[str, object]) -> dict[str, object]:
        """Write the record with its count; the record as written. Raises `OSError`."""
        counts = self.counts()
        key = str(record["fingerprint"])
        counts[key] = counts.get(key, 0) + 1
        if len(counts) > 1000:
            counts.pop(next(iter(counts)))
        full = {**record, "count": counts[key]}
        line = json.dumps(full, separators=(",", ":")).encode() + b"\n"
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            os.write(fd, line)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        if size > KEEP_BYTES:
            os.replace(self.path, self.path + ".1")
        return full


def read(path: str, *, last: int | None = None) -> list[dict[str, object]]:
    """The records in a file, oldest first, or those in its last bytes; torn lines are left out."""
    found = []
    try:
        with open(path, "rb") as file:
            if last is not None:
                file.seek(max(0, os.fstat(file.fileno()).st_size - last))
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    found.append(record)
    except OSError:
        pass
    return found


def make(
    *,
    wall: float,
    service: str,
    index: int,
    pid: int | None,
    cause: str,
    detail: str,
    exit_: Exit,
    uptime: float | None,
    memory_bytes: int | None,
    cpu_seconds: float | None,
    failures: int,
    in_window: int,
    last_output: Sequence[str],
    next_step: str,
) -> dict[str, object]:
    """A crash record without its count; see `CrashFile.add`."""
    return {
        "time": isoformat(wall),
        "service": service,
        "instance": index,
        "pid": pid,
        "cause": cause,
        "detail": detail,
        "exit_code": exit_.code,
        "signal": None if exit_.signal is None else signal_name(exit_.signal),
        "oom": exit_.oom,
        "core_dumped": exit_.core_dumped,
        "uptime_seconds": None if uptime is None else round(uptime, 3),
        "memory_bytes": memory_bytes if memory_bytes is not None else exit_.max_rss,
        "cpu_seconds": cpu_seconds if cpu_seconds is not None else exit_.cpu_seconds,
        "failures": failures,
        "restarts_in_window": in_window,
        "fingerprint": fingerprint(service, cause, exit_, last_output),
        "last_output": list(last_output)[-LAST_LINES:],
        "next": next_step,
    }
