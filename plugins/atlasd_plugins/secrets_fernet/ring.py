"""The ring and the store together: making keys, wrapping everything anew, dropping old keys."""

import os
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from atlasd.contracts.context import PluginContext
from atlasd.contracts.secrets import KeyInfo, KeyProgress
from atlasd.errors import AtlasError
from atlasd_plugins.secrets_fernet import envelope, records
from atlasd_plugins.secrets_fernet.database import Database, NoStoreError
from atlasd_plugins.secrets_fernet.envelope import Record
from atlasd_plugins.secrets_fernet.keychain import Keychain, warning_of
from atlasd_plugins.secrets_fernet.keys import Key, Ring
from atlasd_plugins.secrets_fernet.records import Need

PAGE = 500
"""Records that are wrapped anew in one transaction; a put waits for some tens of milliseconds."""

Write = Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class _Page:
    """What one transaction of a rotation has done."""

    done: int
    last: int | None
    """Row id to go on after; None at the end."""
    faults: tuple[AtlasError, ...]


class StoreRing:
    """The key ring of one store.

    All that changes the ring, and all that encrypts with it, happens inside a write transaction
    of the store: SQLite's lock is the ring's lock too, for every process.
    """

    def __init__(
        self,
        *,
        database: Database,
        keychain: Keychain,
        write: Write,
        context: PluginContext,
    ) -> None:
        self._database = database
        self._keychain = keychain
        self._write = write
        self._context = context

    def for_writing(self, connection: sqlite3.Connection) -> Ring:
        """The ring, to encrypt with its first key.

        Raises `secret.key` when there is none, or when it fits nothing that is stored: it is
        then another store's, and what it encrypts would be lost with it.
        """
        ring = self._keychain.ring()
        self._check_fits(connection, ring)
        return ring

    def infos(self) -> list[KeyInfo]:
        """The keys of the ring, then those that are needed and missing. Blocks."""
        ring = self._keychain.ring_or_none()
        [(needed, fault)] = self._database.read([records.needed_keys])
        if isinstance(fault, NoStoreError):
            needed = {}
        elif fault is not None:
            raise fault
        keys = ring.keys if ring is not None else ()
        found = [_info(key, needed.pop(key.id, Need()), primary=key is keys[0]) for key in keys]
        missing = [
            KeyInfo(
                id=key_id,
                primary=False,
                source="missing",
                warning="it is needed and in no source: put it back from its copy",
                records=need.records + len(need.sealed),
            )
            for key_id, need in sorted(needed.items())
        ]
        return found + missing

    async def keygen(self) -> KeyInfo:
        """A new first key in the key file."""

        def work(connection: sqlite3.Connection) -> KeyInfo:
            ring = self._keychain.ring_or_none()
            if ring is not None:
                self._check_fits(connection, ring)
            elif records.has_versions(connection):
                raise self._foreign(connection, "there is no key")
            key = Key(os.urandom(32), source=f"file {self._keychain.file}")
            made = datetime.fromtimestamp(self._context.clock.wall(), tz=UTC)
            self._keychain.add(key, made.isoformat(timespec="seconds").replace("+00:00", "Z"))
            return _info(key, Need(), primary=True)

        info: KeyInfo = await self._write(work)
        return info

    async def rotate(self, progress: Callable[[KeyProgress], None], *, retire: bool) -> KeyProgress:
        """Wrap every data key with the first key; then drop the keys that nothing needs."""
        total: int = await self._write(self._count)
        done, last = 0, 0
        faults: list[AtlasError] = []
        progress(KeyProgress(done=0, total=total))
        while True:
            page: _Page = await self._write(partial(self._page, after=last))
            done += page.done
            faults += page.faults
            if page.done:
                progress(KeyProgress(done=done, total=max(total, done + len(faults))))
            if page.last is None:
                break
            last = page.last
        if faults:
            raise _not_all(done, faults)
        retired: tuple[str, ...] = ()
        if retire and (done or await self._context.in_thread(self._has_others)):
            # First nothing may be left that the old keys open, not even in a page's slack.
            await self._context.in_thread(self._database.scrub)
            retired = await self._write(self._retire)
        return KeyProgress(done=done, total=max(total, done), retired=retired)

    def _count(self, connection: sqlite3.Connection) -> int:
        return records.count_not_under(connection, self.for_writing(connection).primary.id)

    def _page(self, connection: sqlite3.Connection, *, after: int) -> _Page:
        ring = self.for_writing(connection)
        rows = records.page_not_under(connection, ring.primary.id, after=after, most=PAGE)
        changed: list[tuple[int, Record]] = []
        faults = []
        for number, found in rows:
            try:
                if isinstance(found, AtlasError):
                    raise found
                changed.append((number, envelope.rewrapped(ring, found)))
            except AtlasError as error:
                faults.append(error)
        records.rewrap(connection, changed)
        return _Page(done=len(changed), last=rows[-1][0] if rows else None, faults=tuple(faults))

    def _has_others(self) -> bool:
        return len(self._keychain.ring().keys) > 1

    def _retire(self, connection: sqlite3.Connection) -> tuple[str, ...]:
        ring = self._keychain.ring()
        needed = records.needed_keys(connection)
        return self._keychain.drop([i for i in ring.ids[1:] if i not in needed])

    def _check_fits(self, connection: sqlite3.Connection, ring: Ring) -> None:
        if records.has_versions(connection) and not records.has_versions_under(
            connection, ring.ids
        ):
            raise self._foreign(connection, f"the ring has only {', '.join(ring.ids)}")

    def _foreign(self, connection: sqlite3.Connection, have: str) -> AtlasError:
        needed = ", ".join(sorted(records.needed_keys(connection)))
        return AtlasError(
            "secret.key",
            f"{have}, and what is stored in {self._database.path} needs {needed}",
            hint=f"put the ring that belongs to the store back to {self._keychain.file}; if it is "
            "lost, so is what is stored: move the store away to begin anew",
        )


def _info(key: Key, need: Need, *, primary: bool) -> KeyInfo:
    warnings = [warning_of(key)]
    if need.sealed and not primary:
        more = f" and {len(need.sealed) - 3} more" if len(need.sealed) > 3 else ""
        warnings.append(
            f"it stays for what was sealed with it: {', '.join(need.sealed[:3])}{more}; "
            "`atlasctl config encrypt` seals a value anew"
        )
    elif not primary and not need.records and not key.source.startswith("file "):
        warnings.append("nothing needs it any more: take it out where it comes from")
    return KeyInfo(
        id=key.id,
        primary=primary,
        source=key.source,
        warning="; ".join(word for word in warnings if word),
        records=need.records + len(need.sealed),
    )


def _not_all(done: int, faults: list[AtlasError]) -> AtlasError:
    corrupt = [fault for fault in faults if fault.code == "secret.corrupt"]
    first = (corrupt or faults)[0]
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return AtlasError(
        first.code,
        f"{done} records were wrapped anew, {len(faults)} could not be, and no key was taken out: "
        f"{first.message}{more}",
        hint=first.hint,
        details={"done": done, "failed": len(faults)},
    )
