"""A secret backend in memory: it keeps every promise, and fails as it is told."""

import asyncio
import base64
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from atlasd.clock import HandClock, utc
from atlasd.contracts.context import PluginContext
from atlasd.contracts.secrets import (
    CURRENT,
    PENDING,
    PREVIOUS,
    STAGES,
    Capability,
    KeyInfo,
    KeyProgress,
    SecretBackend,
    SecretInfo,
    SecretValue,
    SecretVersion,
)
from atlasd.contracts.settings import NoSettings
from atlasd.errors import AtlasError

EVERYTHING = frozenset(Capability)
RECOVERY = timedelta(days=7)
"""How long a deleted secret can be had back, if nobody says otherwise."""
MOST_NAME = 512
MOST_VALUE = 2**20


@dataclass(kw_only=True)
class _Version:
    id: str
    value: SecretValue
    created: datetime
    created_by: str
    key: str
    enabled: bool = True


@dataclass(kw_only=True)
class _Kept:
    """One secret of one environment."""

    versions: dict[str, _Version] = field(default_factory=dict)
    """By id, the oldest first."""
    stages: dict[str, str] = field(default_factory=dict)
    """The id of the version that each stage is on."""
    deleted: datetime | None = None
    recoverable_until: datetime | None = None

    def stages_of(self, version: str) -> tuple[str, ...]:
        return tuple(stage for stage in STAGES if self.stages.get(stage) == version)

    def move(self, stage: str, version: str) -> None:
        before = self.stages.get(stage)
        self.stages[stage] = version
        if stage == CURRENT:
            if before not in {None, version}:
                self.stages[PREVIOUS] = before or ""
            if self.stages.get(PENDING) == version:
                del self.stages[PENDING]  # what is in force is not pending any longer


@dataclass(kw_only=True)
class _Fault:
    code: str
    name: str | None
    times: int | None
    retry_after: float | None


class MemoryBackend:
    """Secrets of any number of environments, for tests of what uses a backend.

        memory = MemoryBackend()
        memory.plant("db", "first")
        memory.fail("secret.throttled", retry_after=30, times=2)

    `descriptor` is what a plugin would register. What was put stays when a store is closed and
    opened again. All that is asked of it is counted, by operation, in `calls`.
    """

    def __init__(
        self,
        *,
        clock: HandClock | None = None,
        name: str = "memory",
        capabilities: frozenset[Capability] = EVERYTHING,
    ) -> None:
        self.clock = clock or HandClock()
        self.calls: Counter[str] = Counter()
        """How often each operation was called, failures included: `get`, `put`, `list`, …"""
        self.asked: list[tuple[str, str]] = []
        """Each call with the name that it was about, in order."""
        self.delay = timedelta(0)
        """How far `wind` has to wind the clock until a call goes on."""
        self.descriptor = SecretBackend(
            name=name,
            summary="secrets in memory, for tests",
            open=self._open,
            capabilities=capabilities,
            settings=NoSettings,
        )
        self.kept: dict[str, dict[str, _Kept]] = {}
        self.keys: list[str] = ["key1"]
        """Ids of the keys in the ring, the primary one first."""
        self._ring: dict[str, bytes] = {"key1": _new_key()}
        self._made = 0
        self._faults: list[_Fault] = []
        self._waiting: list[tuple[float, asyncio.Event]] = []

    # --- what a test does to it

    def plant(self, name: str, value: str | bytes, *, environment: str = "production") -> str:
        """Put a new current version, without a call that is counted; its id."""
        kept = self.kept.setdefault(environment, {}).setdefault(name, _Kept())
        return self.add(kept, SecretValue(value), CURRENT, "").id

    def fail(
        self,
        code: str,
        *,
        name: str | None = None,
        times: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Let calls fail with a code, until `works` is called or it happened `times` times.

        With a `name`, only those that are about it; `retry_after` is in seconds.
        """
        self._faults.append(_Fault(code=code, name=name, times=times, retry_after=retry_after))

    def works(self) -> None:
        """End all that `fail` has begun."""
        self._faults.clear()

    def disable(self, name: str, version: str = "", *, environment: str = "production") -> None:
        """Let a version, or all of a secret, be there and not be used."""
        for each in self.kept[environment][name].versions.values():
            each.enabled = each.enabled and version not in {"", each.id}

    def enable(self, name: str, *, environment: str = "production") -> None:
        """Let all versions of a secret be used again."""
        for each in self.kept[environment][name].versions.values():
            each.enabled = True

    def forget(self, name: str, *, environment: str = "production") -> None:
        """Let a secret never have been, as when somebody deletes it in the backend itself."""
        del self.kept[environment][name]

    async def wind(self, seconds: float) -> None:
        """Wind the clock, and let the calls go on whose delay has passed."""
        self.clock.wind(seconds)
        now = self.clock.monotonic()
        for due, event in self._waiting:
            if due <= now:
                event.set()
        await asyncio.sleep(0)

    @property
    def waiting(self) -> int:
        """Calls whose delay has not passed."""
        return len(self._waiting)

    # --- what a store does with it

    @asynccontextmanager
    async def _open(
        self, settings: NoSettings, context: PluginContext
    ) -> AsyncIterator["MemoryStore"]:
        self.calls["open"] += 1
        yield MemoryStore(self, context.environment)

    async def enter(self, operation: str, name: str, environment: str) -> dict[str, _Kept]:
        """Count a call, let it wait or fail as a test has said; the secrets it may look at."""
        self.calls[operation] += 1
        self.asked.append((operation, name))
        if self.delay:
            entry = (self.clock.monotonic() + self.delay.total_seconds(), asyncio.Event())
            self._waiting.append(entry)
            try:
                await entry[1].wait()
            finally:
                self._waiting.remove(entry)
        for fault in self._faults:
            if fault.name in {None, name} and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                details: Mapping[str, object] = (
                    {} if fault.retry_after is None else {"retry_after": fault.retry_after}
                )
                raise AtlasError(
                    fault.code, f"secret {name!r}: the test wants {fault.code}", details=details
                )
        kept = self.kept.setdefault(environment, {})
        now = utc(self.clock.wall())
        for gone in [n for n, k in kept.items() if _is_over(k, now)]:
            del kept[gone]
        return kept

    def add(self, kept: _Kept, value: SecretValue, stage: str, actor: str) -> _Version:
        """Add a version to a secret, and put a stage on it."""
        self._made += 1
        version = _Version(
            id=f"v{self._made}",
            value=value,
            created=utc(self.clock.wall()),
            created_by=actor,
            key=self.keys[0],
        )
        kept.versions[version.id] = version
        kept.move(stage, version.id)
        return version

    def new_key(self) -> str:
        """A new primary key."""
        self.keys.insert(0, f"key{len(self._ring) + 1}")
        self._ring[self.keys[0]] = _new_key()
        return self.keys[0]

    def records(self, key: str) -> int:
        """How many versions a key protects."""
        return sum(version.key == key for version in self.versions())

    def versions(self) -> list[_Version]:
        """All versions of all secrets of all environments."""
        return [
            version
            for secrets in self.kept.values()
            for kept in secrets.values()
            for version in kept.versions.values()
        ]

    def key(self, key: str) -> bytes | None:
        """A key that is in the ring."""
        return self._ring[key] if key in self.keys else None


class MemoryStore:
    """A `SecretStore`, with a `KeyRing` and a `Sealer`, of one environment."""

    def __init__(self, backend: MemoryBackend, environment: str) -> None:
        self._backend = backend
        self._environment = environment

    async def _enter(
        self, operation: str, name: str = "", *, needs: Capability | None = None
    ) -> dict[str, _Kept]:
        if needs is not None and needs not in self._backend.descriptor.capabilities:
            raise AtlasError(
                "secret.unsupported",
                f"the backend {self._backend.descriptor.name!r} cannot {needs}",
            )
        return await self._backend.enter(operation, name, self._environment)

    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        """One version, with its value."""
        kept = _found(await self._enter("get", name), name)
        wanted = version or kept.stages.get(stage, "")
        found = kept.versions.get(wanted)
        if found is None:
            what = f"version {version!r}" if version else f"version at stage {stage!r}"
            raise AtlasError("secret.not_found", f"secret {name!r} has no {what}")
        if not found.enabled:
            raise AtlasError("secret.disabled", f"secret {name!r} is disabled")
        return _shown(name, kept, found, value=found.value)

    async def describe(self, name: str) -> SecretInfo:
        """What is known of it."""
        kept = (await self._enter("describe", name)).get(name)
        if kept is None:
            raise _unknown(name)
        return _info(name, kept)

    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        """A new version with the stage on it."""
        secrets = await self._enter("put", name, needs=Capability.PUT)
        _check_stage(stage)
        if not name or not name.isprintable() or len(name) > MOST_NAME:
            raise AtlasError("secret.invalid", f"a secret cannot be named {name!r}")
        if len(value) > MOST_VALUE:
            raise AtlasError("secret.invalid", f"the value of {name!r} is larger than 1 MiB")
        kept = secrets.setdefault(name, _Kept())
        if kept.deleted:
            raise AtlasError(
                "secret.conflict", f"secret {name!r} is deleted", hint="recover it first"
            )
        return _shown(name, kept, self._backend.add(kept, value, stage, actor))

    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        """All secrets whose name starts so."""
        secrets = await self._enter("list", prefix, needs=Capability.LIST)
        return [_info(name, secrets[name]) for name in sorted(secrets) if name.startswith(prefix)]

    async def versions(self, name: str) -> Sequence[SecretVersion]:
        """All versions, the newest first."""
        kept = _found(await self._enter("versions", name, needs=Capability.VERSIONS), name)
        return [_shown(name, kept, version) for version in reversed(kept.versions.values())]

    async def stage(self, name: str, version: str, stage: str) -> None:
        """Move a stage to a version."""
        secrets = await self._enter("stage", name, needs=Capability.STAGE)
        _check_stage(stage)
        kept = _found(secrets, name)
        if version not in kept.versions:
            raise AtlasError("secret.not_found", f"secret {name!r} has no version {version!r}")
        kept.move(stage, version)

    async def delete(self, name: str, *, recovery: timedelta | None = None) -> SecretInfo:
        """Delete it, for good with a recovery of zero."""
        secrets = await self._enter("delete", name, needs=Capability.DELETE)
        kept = secrets.get(name)
        if kept is None:
            raise _unknown(name)
        if Capability.RECOVER not in self._backend.descriptor.capabilities:
            if recovery:
                raise AtlasError(
                    "secret.unsupported",
                    f"the backend {self._backend.descriptor.name!r} cannot recover",
                )
            recovery = timedelta(0)
        recovery = RECOVERY if recovery is None else recovery
        if recovery < timedelta(0):
            raise AtlasError("secret.invalid", "the time for a recovery cannot be negative")
        now = utc(self._backend.clock.wall())
        if not recovery:
            del secrets[name]
            return SecretInfo(name=name, deleted=now)
        if kept.deleted:
            raise AtlasError("secret.conflict", f"secret {name!r} is deleted already")
        kept.deleted = now
        kept.recoverable_until = now + recovery
        return _info(name, kept)

    async def recover(self, name: str) -> SecretInfo:
        """Have a deleted secret back."""
        kept = (await self._enter("recover", name, needs=Capability.RECOVER)).get(name)
        if kept is None:
            raise _unknown(name)
        if kept.deleted is None:
            raise AtlasError("secret.conflict", f"secret {name!r} is not deleted")
        kept.deleted = kept.recoverable_until = None
        return _info(name, kept)

    async def keys(self) -> Sequence[KeyInfo]:
        """The keys, the primary one first."""
        await self._enter("keys", needs=Capability.KEYS)
        return [self._key_info(key) for key in self._backend.keys]

    async def keygen(self) -> KeyInfo:
        """A new primary key."""
        await self._enter("keygen", needs=Capability.KEYS)
        return self._key_info(self._backend.new_key())

    def _key_info(self, key: str) -> KeyInfo:
        return KeyInfo(
            id=key,
            primary=key == self._backend.keys[0],
            source="memory",
            records=self._backend.records(key),
        )

    async def rotate_keys(
        self,
        progress: Callable[[KeyProgress], None] = lambda _: None,
        *,
        retire: bool = True,
    ) -> KeyProgress:
        """Let the primary key protect everything."""
        await self._enter("rotate_keys", needs=Capability.KEYS)
        backend = self._backend
        versions = backend.versions()
        for done, version in enumerate(versions, 1):
            version.key = backend.keys[0]
            progress(KeyProgress(done=done, total=len(versions)))
        retired = tuple(backend.keys[1:]) if retire else ()
        backend.keys = [key for key in backend.keys if key not in retired]
        return KeyProgress(done=len(versions), total=len(versions), retired=retired)

    async def seal(self, value: SecretValue, *, binding: str) -> str:
        """An encrypted value that is bound to its place."""
        from cryptography.fernet import Fernet

        await self._enter("seal", needs=Capability.SEAL)
        raw = base64.b64encode(value.reveal()).decode()
        key = self._backend.keys[0]
        body = json.dumps([binding, self._environment, raw]).encode()
        token = Fernet(self._backend.key(key) or b"").encrypt(body).decode()
        return f"enc:v1:{key}:{token}"

    async def unseal(self, text: str, *, binding: str) -> SecretValue:
        """What was sealed for this place."""
        from cryptography.fernet import Fernet, InvalidToken

        await self._enter("unseal", needs=Capability.SEAL)
        corrupt = AtlasError("secret.corrupt", f"the sealed value of {binding} is not as it was")
        parts = text.split(":")
        if len(parts) != 4 or parts[:2] != ["enc", "v1"]:
            raise corrupt
        key = self._backend.key(parts[2])
        if key is None:
            raise AtlasError("secret.key", f"{binding}: the key {parts[2]!r} is not in the ring")
        try:
            place, environment, raw = json.loads(Fernet(key).decrypt(parts[3].encode()))
        except InvalidToken:
            raise corrupt from None
        if (place, environment) != (binding, self._environment):
            raise corrupt
        return SecretValue(base64.b64decode(raw))


def _new_key() -> bytes:
    return base64.urlsafe_b64encode(os.urandom(32))


def _is_over(kept: _Kept, now: datetime) -> bool:
    return kept.recoverable_until is not None and kept.recoverable_until <= now


def _unknown(name: str) -> AtlasError:
    return AtlasError("secret.not_found", f"there is no secret {name!r}")


def _found(secrets: Mapping[str, _Kept], name: str) -> _Kept:
    kept = secrets.get(name)
    if kept is None:
        raise _unknown(name)
    if kept.deleted:
        raise AtlasError(
            "secret.not_found", f"secret {name!r} is deleted", hint="it can be recovered"
        )
    return kept


def _check_stage(stage: str) -> None:
    if stage not in STAGES:
        raise AtlasError(
            "secret.invalid", f"{stage!r} is not a stage", hint="stages: " + ", ".join(STAGES)
        )


def _shown(
    name: str, kept: _Kept, version: _Version, *, value: SecretValue | None = None
) -> SecretVersion:
    return SecretVersion(
        name=name,
        version=version.id,
        stages=kept.stages_of(version.id),
        created=version.created,
        created_by=version.created_by,
        enabled=version.enabled,
        key=version.key,
        value=value,
    )


def _info(name: str, kept: _Kept) -> SecretInfo:
    created = [version.created for version in kept.versions.values()]
    return SecretInfo(
        name=name,
        current=kept.stages.get(CURRENT, ""),
        created=min(created),
        changed=max(created),
        versions=len(kept.versions),
        deleted=kept.deleted,
        recoverable_until=kept.recoverable_until,
    )
