"""The store as atlasd's engine of secrets sees it; what blocks runs in threads."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from atlasd.contracts.context import PluginContext
from atlasd.contracts.secrets import (
    CURRENT,
    KeyInfo,
    KeyProgress,
    SecretInfo,
    SecretValue,
    SecretVersion,
)
from atlasd.errors import AtlasError
from atlasd_plugins.secrets_fernet import answers, envelope, records
from atlasd_plugins.secrets_fernet.database import Database, NoStoreError, Outcome, Work
from atlasd_plugins.secrets_fernet.envelope import Place
from atlasd_plugins.secrets_fernet.keychain import Keychain, Places
from atlasd_plugins.secrets_fernet.lane import Lane
from atlasd_plugins.secrets_fernet.records import Records, Secret
from atlasd_plugins.secrets_fernet.ring import StoreRing

if TYPE_CHECKING:
    from atlasd_plugins.secrets_fernet import FernetSettings

T = TypeVar("T")

MOST_VALUE = 1024 * 1024
MOST_ACTOR = 200


class FernetStore:
    """The secrets of one environment: `SecretStore`, `KeyRing` and `Sealer`."""

    def __init__(self, settings: "FernetSettings", context: PluginContext) -> None:
        self._settings = settings
        self._context = context
        self._environment = context.environment
        path = context.state_dir / settings.path
        self._database = Database(path, lambda words: context.log.warning("%s", words))
        self._keychain = Keychain(
            Places(
                credential=settings.credential,
                file=context.config_dir / settings.key_file,
                variable=settings.key_variable,
                passphrase_variable=settings.passphrase_variable,
                salt=path.with_name(f"{path.name}.salt"),
            )
        )
        self._reads = Lane(self._read_turn)
        self._writes = Lane(self._write_turn)
        self._ring = StoreRing(
            database=self._database,
            keychain=self._keychain,
            write=self._writes.run,
            context=context,
        )

    async def close(self) -> None:
        """Finish what was asked, then close the file."""
        await self._reads.close()
        await self._writes.close()
        self._database.close()

    # --- SecretStore

    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        """One version, with its value."""
        answers.check_name(name)

        def work(connection: sqlite3.Connection) -> SecretVersion:
            found = self._existing(connection, name)
            number = answers.number(name, version) if version else found.at(stage)
            what = f"version {version!r}" if version else f"version at stage {stage!r}"
            if number is None:
                raise answers.not_found(f"secret {name!r} has no {what}")
            record = self._rows(connection).version(name, number)
            if record is None:
                self._check_whole(connection)
                raise answers.not_found(f"secret {name!r} has no {what}")
            value = SecretValue(envelope.decrypted(self._keychain.ring(), record))
            return answers.shown(found, record, value)

        return await self._read_with_key(name, work)

    async def describe(self, name: str) -> SecretInfo:
        """What is known of it, also when it is deleted."""
        answers.check_name(name)

        def work(connection: sqlite3.Connection) -> SecretInfo:
            found = self._remembered(connection, name)
            return answers.info(found, self._rows(connection).count(name))

        return await self._read(name, work)

    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        """Store a new version; it is on the disk when this returns."""
        answers.check_name(name)
        answers.check_stage(stage)
        if len(value) > MOST_VALUE:
            raise AtlasError(
                "secret.invalid",
                f"the value for {name!r} has {len(value)} bytes; a secret has at most "
                f"{MOST_VALUE // 1024} KiB",
                hint="put a file somewhere else, encrypted, and keep its key as the secret",
            )

        def work(connection: sqlite3.Connection) -> SecretVersion:
            rows = self._rows(connection)
            before = rows.secret(name) or Secret(environment=self._environment, name=name)
            if before.deleted is not None:
                raise AtlasError(
                    "secret.conflict",
                    f"secret {name!r} is deleted, and can be recovered until "
                    f"{answers.clock(before.recoverable_until)}",
                    hint=f"`atlasctl secret recover {name}`, or delete it for good",
                )
            ring = self._ring.for_writing(connection)
            now = self._now()
            record = envelope.encrypted(
                ring.primary,
                Place(environment=self._environment, name=name, number=before.last_version + 1),
                value.reveal(),
                at=now,
                by=actor[:MOST_ACTOR],
            )
            rows.add(record)
            after = replace(
                before.moved(stage, record.place.number),
                last_version=record.place.number,
                created=now if before.created is None else before.created,
                changed=now,
            )
            rows.save(after)
            rows.trim(after, self._settings.keep_versions)
            return answers.shown(after, record)

        return await self._writes.run(work)

    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        """All secrets whose name starts so, by name."""

        def work(connection: sqlite3.Connection) -> Sequence[SecretInfo]:
            found = list(self._rows(connection).secrets(prefix))
            self._database.whole(connection)
            return [
                answers.info(secret, count) for secret, count in found if not self._over(secret)
            ]

        try:
            await self._purge()
            return await self._reads.run(work)
        except NoStoreError:
            return []

    async def versions(self, name: str) -> Sequence[SecretVersion]:
        """All versions, the newest first."""
        answers.check_name(name)

        def work(connection: sqlite3.Connection) -> Sequence[SecretVersion]:
            found = self._existing(connection, name)
            return [
                answers.shown(found, record) for record in self._rows(connection).versions(name)
            ]

        return await self._read(name, work)

    async def stage(self, name: str, version: str, stage: str) -> None:
        """Move a stage to a version."""
        answers.check_name(name)
        answers.check_stage(stage)

        def work(connection: sqlite3.Connection) -> None:
            found = self._existing(connection, name)
            number = answers.number(name, version)
            rows = self._rows(connection)
            if rows.version(name, number) is None:
                self._check_whole(connection)
                raise answers.not_found(f"secret {name!r} has no version {version!r}")
            rows.save(replace(found.moved(stage, number), changed=self._now()))

        await self._change(name, work)

    async def delete(self, name: str, *, recovery: timedelta | None = None) -> SecretInfo:
        """Delete it, for good with a `recovery` of zero."""
        answers.check_name(name)
        window = self._settings.recovery if recovery is None else recovery
        if window < timedelta(0):
            raise AtlasError("secret.invalid", "the time for a recovery cannot be negative")

        def work(connection: sqlite3.Connection) -> SecretInfo:
            found = self._remembered(connection, name)
            rows = self._rows(connection)
            now = self._now()
            if not window:
                rows.forget(found)
                return SecretInfo(name=name, deleted=answers.time(now))
            if found.deleted is not None:
                raise AtlasError(
                    "secret.conflict",
                    f"secret {name!r} is deleted already, and can be recovered until "
                    f"{answers.clock(found.recoverable_until)}",
                    hint="with a recovery of 0s it is deleted for good",
                )
            after = replace(found, deleted=now, recoverable_until=now + window.total_seconds())
            rows.save(after)
            return answers.info(after, rows.count(name))

        info = await self._change(name, work)
        if not window:
            await self._context.in_thread(self._database.scrub)
        return info

    async def recover(self, name: str) -> SecretInfo:
        """Have a deleted secret back."""
        answers.check_name(name)

        def work(connection: sqlite3.Connection) -> SecretInfo:
            found = self._remembered(connection, name)
            if found.deleted is None:
                raise AtlasError("secret.conflict", f"secret {name!r} is not deleted")
            after = replace(found, deleted=None, recoverable_until=None)
            rows = self._rows(connection)
            rows.save(after)
            return answers.info(after, rows.count(name))

        return await self._change(name, work)

    # --- KeyRing

    async def keys(self) -> Sequence[KeyInfo]:
        """The keys of the ring, the primary one first; then keys that are needed and missing."""
        return await self._context.in_thread(self._ring.infos)

    async def keygen(self) -> KeyInfo:
        """Make a new key, put it first in the key file and keep the others."""
        return await self._ring.keygen()

    async def rotate_keys(
        self,
        progress: Callable[[KeyProgress], None] = lambda _: None,
        *,
        retire: bool = True,
    ) -> KeyProgress:
        """Re-wrap every record of every environment; then take needless keys out of the file."""
        return await self._ring.rotate(progress, retire=retire)

    # --- Sealer

    async def seal(self, value: SecretValue, *, binding: str) -> str:
        """A value for the configuration file, bound to its place and the environment."""

        def work(connection: sqlite3.Connection) -> str:
            ring = self._ring.for_writing(connection)
            text = envelope.sealed(
                ring.primary,
                value.reveal(),
                environment=self._environment,
                binding=binding,
                at=self._now(),
            )
            self._rows(connection).note_sealed(binding, ring.primary.id)
            return text

        return await self._writes.run(work)

    async def unseal(self, text: str, *, binding: str) -> SecretValue:
        """What was sealed for this place."""

        def work() -> SecretValue:
            return SecretValue(
                envelope.unsealed(
                    self._keychain.ring(), text, environment=self._environment, binding=binding
                )
            )

        return await self._context.in_thread(work)

    # --- turns in threads

    async def _read_turn(self, works: Sequence[Work]) -> Sequence[Outcome]:
        return await self._context.in_thread(self._database.read, works)

    async def _write_turn(self, works: Sequence[Work]) -> Sequence[Outcome]:
        def purge(connection: sqlite3.Connection) -> bool:
            gone = records.overdue(connection, self._now())
            for secret in gone:
                Records(connection, secret.environment).forget(secret)
            return bool(gone)

        outcomes = await self._context.in_thread(self._database.write, [purge, *works])
        purged, fault = outcomes[0]
        if purged and fault is None:
            await self._scrub_quietly()
        return outcomes[1:]

    async def _scrub_quietly(self) -> None:
        try:
            await self._context.in_thread(self._database.scrub)
        except AtlasError as error:
            self._context.log.warning("%s", error.message)

    async def _read(self, name: str, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._reads.run(work)
        except NoStoreError:
            raise answers.not_found(
                f"there is no secret {name!r}: there is no store {self._database.path} yet",
                hint="`atlasctl secret set` makes it; if there was one, see whether its disk is "
                "there",
            ) from None

    async def _read_with_key(self, name: str, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._read(name, work)
        except AtlasError as error:
            if "key" not in error.details:
                raise
        # Between the look at the store and the look at the ring, the keys may have been rotated.
        return await self._read(name, work)

    async def _change(self, name: str, work: Callable[[sqlite3.Connection], T]) -> T:
        # A store is made by what is put, not by what is looked for in it.
        await self._read(name, lambda _: None)
        return await self._writes.run(work)

    async def _purge(self) -> None:
        """Have what is overdue deleted, if a look shows that anything is."""

        def due(connection: sqlite3.Connection) -> bool:
            return bool(records.overdue(connection, self._now()))

        if await self._reads.run(due):
            try:
                await self._writes.run(lambda _: None)
            except AtlasError as error:
                self._context.log.warning("what is overdue was not deleted: %s", error.message)

    # --- rows

    def _rows(self, connection: sqlite3.Connection) -> Records:
        return Records(connection, self._environment)

    def _remembered(self, connection: sqlite3.Connection, name: str) -> Secret:
        """A secret that is there or can be recovered."""
        found = self._rows(connection).secret(name)
        if found is None or found.created is None or self._over(found):
            self._check_whole(connection)
            raise answers.not_found(
                f"there is no secret {name!r} in environment {self._environment!r}"
            )
        return found

    def _existing(self, connection: sqlite3.Connection, name: str) -> Secret:
        """A secret that is there."""
        found = self._remembered(connection, name)
        if found.deleted is not None:
            raise answers.not_found(
                f"secret {name!r} was deleted on {answers.clock(found.deleted)}",
                hint=f"it can be had back until {answers.clock(found.recoverable_until)}: "
                f"`atlasctl secret recover {name}`",
            )
        return found

    def _over(self, secret: Secret) -> bool:
        return secret.recoverable_until is not None and secret.recoverable_until <= self._now()

    def _check_whole(self, connection: sqlite3.Connection) -> None:
        self._database.whole(connection, lambda: records.look_at_all(connection))

    def _now(self) -> float:
        return float(self._context.clock.wall())
