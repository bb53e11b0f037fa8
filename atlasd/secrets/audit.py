"""The audit log: who did what to which secret, in records that are chained and never hold a value.

Each record carries the code (HMAC-SHA256) of the one before it and its own, by a key that lies in
another folder; the code of the last one is written to a file of its own, the anchor. So a record
that was changed, taken out, put elsewhere or cut from the end is found.
"""

import fcntl
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atlasd.clock import Clock, isoformat
from atlasd.errors import AtlasError
from atlasd.secrets.keyfile import sync_folder

GENESIS = "0" * 64
"""What stands for the record before the first."""
LONGEST = 400
"""Characters of a reason."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that was done to a secret, or was refused."""

    action: str
    """read, get, set, delete, recover, rollback, rotate-…, keygen, rotate-keys, export, refresh"""
    name: str = ""
    backend: str = ""
    version: str = ""
    environment: str = ""
    actor: str = ""
    """`uid:0`, `core`, `schedule`."""
    pid: int | None = None
    """Of the process that asked over the control socket, as the kernel says."""
    consumer: str = ""
    """What the value was for: `configuration`, a service, a plugin."""
    outcome: str = "done"
    """done, stale (a value from before was given), or the code of the error"""
    reason: str = ""
    """Never a value."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What `verify` found."""

    records: int
    last: str
    """Time of the last record; empty without one."""
    problems: tuple[str, ...] = ()
    """A sentence for each place where the log is not what was written."""


@dataclass(frozen=True, kw_only=True)
class _Anchor:
    seq: int = 0
    mac: str = GENESIS


class _Check:
    """What is expected of the next record, while all are gone through."""

    def __init__(self, anchor: _Anchor) -> None:
        self.problems: list[str] = []
        self.expected = 1
        self.anchored = anchor == _Anchor()
        """Whether the record that the anchor names was met."""
        self._anchor = anchor
        self._previous: str | None = GENESIS

    def broken(self, sentence: str) -> None:
        """A record that is not what was written stands in place of one that was."""
        self.problems.append(sentence)
        self.expected += 1
        self._previous = None

    def genuine(self, line: int, body: Mapping[str, Any]) -> None:
        """A record that was written so; whether it stands where it did is the question."""
        seq = body["seq"]
        if seq > self.expected:
            gone = (
                f"record {self.expected} is"
                if seq - 1 == self.expected
                else (f"records {self.expected} to {seq - 1} are")
            )
            self.problems.append(f"line {line}: {gone} missing before record {seq}")
        elif seq < self.expected:
            self.problems.append(f"line {line}: record {seq} stands in the wrong place")
        elif self._previous not in (None, body["prev"]):
            self.problems.append(f"line {line}: record {seq} does not follow the one before it")
        self.expected = max(self.expected, seq + 1)
        self._previous = body["mac"]
        self.anchored = self.anchored or (seq, body["mac"]) == (self._anchor.seq, self._anchor.mac)


class Audit:
    """The log of one host; several roles may write to it. Its methods block."""

    def __init__(self, log: Path, anchor: Path, key: Callable[[], bytes], clock: Clock) -> None:
        """`key` gives the key when it is first needed. Nothing is opened yet.

        `anchor` should lie where whoever can write the log cannot.
        """
        self._folder = log.parent
        self._log = log
        self._anchor = anchor
        self._load_key = key
        self._key: bytes | None = None
        self._clock = clock

    @property
    def path(self) -> Path:
        """The file of the records."""
        return self._log

    def append(self, entries: Sequence[Entry]) -> None:
        """Write records, durably, in their order.

        Raises `AtlasError("audit.broken")` when they cannot be written, or when the log does not
        end as the anchor says: then it is left as it is, for whoever looks into it.
        """
        if not entries:
            return
        try:
            with self._locked() as file:
                anchor = self._anchored()
                end = self._end(file, anchor)
                seq, previous = end.seq, end.mac
                lines = []
                for entry in entries:
                    seq += 1
                    body = self._body(seq, entry, previous)
                    previous = self._mac(body)
                    lines.append(_line({**body, "mac": previous}))
                os.write(file, b"".join(lines))
                os.fsync(file)
                self._set_anchor(_Anchor(seq=seq, mac=previous))
        except OSError as error:
            raise AtlasError(
                "audit.broken",
                f"{self._log}: the audit log cannot be written: {error.strerror}",
                hint="free the disk, or mend the folder's owner and mode",
            ) from error

    def read(
        self, *, limit: int | None = None, name: str = "", action: str = ""
    ) -> list[dict[str, Any]]:
        """Records, the oldest first; the last `limit` of those about a secret, of an action."""
        found = []
        for raw in self._lines():
            try:
                body = json.loads(raw)
            except ValueError:
                continue  # `verify` tells of it
            if not isinstance(body, dict):
                continue
            if name in ("", body.get("name")) and action in ("", body.get("action")):
                found.append(body)
        return found if limit is None else found[len(found) - min(limit, len(found)) :]

    def verify(self) -> Verified:
        """Hold every record against its code, its neighbours and the anchor."""
        anchor = self._anchored()
        check = _Check(anchor)
        count = 0
        last = ""
        for number, raw in enumerate(self._lines(), start=1):
            body = _record(raw)
            if body is None:
                if check.anchored and not raw.endswith(b"\n"):
                    break  # a crash while it was written: nobody was told that it is there
                check.broken(f"line {number} is no record: it was changed or cut")
                continue
            count += 1
            last = str(body["time"])
            if not hmac.compare_digest(body["mac"], self._mac(body)):
                check.broken(f"line {number}: record {body['seq']} was changed")
            else:
                check.genuine(number, body)
        if anchor == _Anchor() and count:
            check.problems.append(f"{self._anchor} is missing: a cut at the end would not be seen")
        elif not check.anchored and anchor.seq >= check.expected:
            check.problems.append(
                f"the end is missing: {anchor.seq} records were written, the last ones are gone"
            )
        elif not check.anchored and not check.problems:
            check.problems.append(f"{self._anchor} is of another log")
        return Verified(records=count, last=last, problems=tuple(check.problems))

    # --- the chain

    def _body(self, seq: int, entry: Entry, previous: str) -> dict[str, Any]:
        fields = asdict(entry)
        fields["reason"] = " ".join(entry.reason.split())[:LONGEST]
        return {"seq": seq, "time": isoformat(self._clock.wall()), **fields, "prev": previous}

    def _mac(self, body: Mapping[str, Any]) -> str:
        if self._key is None:
            self._key = self._load_key()
        plain = {name: value for name, value in body.items() if name != "mac"}
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def _end(self, file: int, anchor: _Anchor) -> _Anchor:
        """The last whole record of the file, which may be later than the anchor after a crash."""
        size = os.fstat(file).st_size
        if size == 0:
            if anchor.seq:
                raise self._cut(anchor)
            return anchor
        tail = _tail(file, size)
        if not tail.endswith(b"\n"):
            # A record that a crash cut short: it was never confirmed to anybody.
            keep = tail.rfind(b"\n") + 1
            os.ftruncate(file, size - (len(tail) - keep))
            os.fsync(file)
            tail = tail[:keep]
            if not tail and anchor.seq == 0:
                return anchor
        body = _record((tail.splitlines(keepends=True) or [b""])[-1])
        if body is None:
            raise self._cut(anchor)
        found = _Anchor(seq=body["seq"], mac=body["mac"])
        genuine = hmac.compare_digest(found.mac, self._mac(body))
        if not genuine or found.seq < anchor.seq or (found.seq == anchor.seq and found != anchor):
            raise self._cut(anchor)
        return found

    def _cut(self, anchor: _Anchor) -> AtlasError:
        return AtlasError(
            "audit.broken",
            f"{self._log} does not end with record {anchor.seq}, the last one that was written: "
            "somebody cut or changed it",
            hint="`atlasctl secret audit verify` says where; keep the files, then move them away: "
            "a new log begins",
        )

    # --- files

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = not self._log.exists()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self._log, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if new:
                sync_folder(self._folder)
            yield file
        finally:
            os.close(file)

    def _lines(self) -> Iterator[bytes]:
        try:
            with self._log.open("rb") as file:
                yield from file
        except FileNotFoundError:
            return

    def _anchored(self) -> _Anchor:
        try:
            body = json.loads(self._anchor.read_bytes())
            return _Anchor(seq=int(body["seq"]), mac=str(body["mac"]))
        except FileNotFoundError:
            return _Anchor()
        except (ValueError, KeyError, TypeError):
            raise AtlasError(
                "audit.broken",
                f"{self._anchor}: it is not what was written there",
                hint="keep it, then move it and the log away: a new log begins",
            ) from None

    def _set_anchor(self, anchor: _Anchor) -> None:
        self._anchor.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._anchor.with_name(f".{self._anchor.name}.new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, _line(asdict(anchor)))
            os.fsync(file)
        finally:
            os.close(file)
        fresh.rename(self._anchor)
        sync_folder(self._anchor.parent)


def _record(raw: bytes) -> dict[str, Any] | None:
    """A line's record; None for a line that is none."""
    try:
        body = json.loads(raw)
    except ValueError:
        return None
    kinds = {"seq": int, "mac": str, "prev": str, "time": str}
    if not isinstance(body, dict) or not raw.endswith(b"\n"):
        return None
    return body if all(isinstance(body.get(key), kind) for key, kind in kinds.items()) else None


def _line(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode() + b"\n"


def _tail(file: int, size: int) -> bytes:
    """The end of the file, with the last whole line in it."""
    length = 4096
    while True:
        start = max(0, size - length)
        tail = os.pread(file, size - start, start)
        if start == 0 or tail.rstrip(b"\n").count(b"\n") >= 2:
            return tail
        length *= 4
