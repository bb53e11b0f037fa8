"""What is done when somebody asks about secrets, or changes one: plain values in and out."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar, cast

from atlasd.contracts.config import KeyPath
from atlasd.contracts.secrets import (
    CURRENT,
    PREVIOUS,
    STAGES,
    Capability,
    KeyInfo,
    KeyProgress,
    KeyRing,
    Reference,
    Resolved,
    SecretInfo,
    SecretsPolicy,
    SecretStore,
    SecretValue,
    SecretVersion,
)
from atlasd.errors import AtlasError
from atlasd.secrets import bulk
from atlasd.secrets.audit import Audit, Entry
from atlasd.secrets.engine import Engine
from atlasd.secrets.fields import pick
from atlasd.secrets.impact import Consumer, reached
from atlasd.secrets.rotation import IDLE, RotationEngine

Body = dict[str, Any]
T = TypeVar("T")

REWRAP_LIMIT = timedelta(hours=6)
"""What a re-wrapping of all records may take."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """What the configuration in force has to do with secrets."""

    policy: SecretsPolicy
    uses: Mapping[KeyPath, Sequence[Reference]] = field(default_factory=dict)
    """The secrets of which each setting is made."""
    consumers: Sequence[Consumer] = ()
    rotated: Collection[tuple[str, str]] = ()
    """Backend and name of those whose rotation is configured."""


class Address(Protocol):
    """Takes `[backend/]name[@selector][#field]` apart."""

    def __call__(self, text: str, backends: Collection[str], /) -> Reference:
        """Raises `ValueError`, with a sentence, for what is none."""


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who asks, as the kernel says."""

    actor: str
    pid: int | None = None


class SecretOperations:
    """Operations on secrets. It belongs to the engine's loop.

    Each method takes who asks and the fields of its request in `atlasd.control.models`, gives the
    body of its answer, and raises `AtlasError` for what is expected to go wrong.
    """

    def __init__(
        self,
        engine: Engine,
        audit: Audit,
        use: Callable[[], Use],
        *,
        address: Address,
        parse_env: bulk.ParseEnv,
        in_thread: Callable[..., Awaitable[Any]],
        rotations: RotationEngine | None = None,
        changed: Callable[[str], object] = lambda _name: None,
    ) -> None:
        """`rotations` is None where nothing runs; `changed` hears of a secret that we changed."""
        self._engine = engine
        self._audit = audit
        self._use = use
        self._address = address
        self._parse_env = parse_env
        self._in_thread = in_thread
        self._rotations = rotations
        self._changed = changed

    # --- looking

    async def list(self, asker: Asker, *, prefix: str = "", backend: str = "") -> Body:
        """`secret.list`."""
        del asker
        use = self._use()
        backend = self._demand(use, backend, Capability.LIST)
        found: Sequence[SecretInfo] = await self._call(
            use, backend, lambda store: store.list(prefix), (list, tuple)
        )
        used = {
            (one.backend or use.policy.backend, one.name)
            for references in use.uses.values()
            for one in references
        }
        return {
            "backend": backend,
            "environment": use.policy.environment,
            "secrets": [{**_info(one), "used": (backend, one.name) in used} for one in found],
        }

    async def versions(self, asker: Asker, *, name: str) -> Body:
        """`secret.versions`."""
        del asker
        use = self._use()
        backend, plain = self._named(use, name)
        self._demand(use, backend, Capability.VERSIONS)
        found: Sequence[SecretVersion] = await self._call(
            use, backend, lambda store: store.versions(plain), (list, tuple)
        )
        row = self._rotations.standing(backend, plain) if self._rotations else None
        return {
            "backend": backend,
            "name": plain,
            "versions": [_version(one) for one in found],
            "rotation": row.step if row is not None and row.step != IDLE else "",
            "rotation_error": row.error if row is not None else "",
        }

    async def impact(self, asker: Asker, *, name: str) -> Body:
        """`secret.impact`."""
        del asker
        use = self._use()
        backend, plain = self._named(use, name)
        found = reached(
            backend,
            plain,
            default_backend=use.policy.backend,
            uses=use.uses,
            consumers=use.consumers,
        )
        return {
            "backend": backend,
            "name": plain,
            "reached": [
                {
                    "kind": one.kind,
                    "name": one.name,
                    "keys": [_dotted(key) for key in one.keys],
                    "effect": one.effect,
                }
                for one in found
            ],
        }

    async def check(self, asker: Asker) -> Body:
        """`secret.check`: every secret that the configuration refers to, and the keys."""
        use = self._use()
        uses: dict[Reference, list[KeyPath]] = {}
        for path, references in use.uses.items():
            for one in references:
                uses.setdefault(one, []).append(path)
        answers = await self._engine.resolve(
            use.policy, tuple(uses), consumer="check", actor=asker.actor
        )
        rows = []
        for wanted, answer in answers.items():
            one = cast("Reference", wanted)
            good = isinstance(answer, Resolved)
            rows.append(
                {
                    "reference": str(one),
                    "backend": one.backend or use.policy.backend,
                    "version": answer.version if isinstance(answer, Resolved) else "",
                    "fetched": answer.fetched if isinstance(answer, Resolved) else None,
                    "state": _state(answer),
                    "error": "" if good else str(answer),
                    "hint": answer.hint if isinstance(answer, AtlasError) else "",
                    "keys": [_dotted(key) for key in uses[one]],
                }
            )
        return {
            "environment": use.policy.environment,
            "backend": use.policy.backend,
            "secrets": rows,
            "keys": await self._ring_or_fault(use),
        }

    async def _ring_or_fault(self, use: Use) -> Sequence[Body]:
        rows = []
        for backend in self._engine.backends.able(use.policy, Capability.KEYS):
            try:
                keys: Sequence[KeyInfo] = await self._call(
                    use, backend, lambda store: _ring(store).keys(), (list, tuple)
                )
            except AtlasError as error:
                rows.append(_no_key(backend, error))
            else:
                rows += [_key(backend, one) for one in keys]
        return rows

    # --- values

    async def reveal(
        self, asker: Asker, *, name: str, version: str = "", stage: str = "", purpose: str = "get"
    ) -> Body:
        """`secret.reveal`: past the cache, for a person; written before it is given."""
        use = self._use()
        reference = self._reference(use, name)
        if not version and not stage:
            selector = reference.selector or CURRENT
            version, stage = ("", selector) if selector in STAGES else (selector, "")
        backend = reference.backend or use.policy.backend
        choice = {"version": version} if version else {"stage": stage}
        async with self._entered(use, asker, purpose, backend, reference.name, reads=True) as entry:
            found: SecretVersion = await self._call(
                use, backend, lambda store: store.get(reference.name, **choice), SecretVersion
            )
            entry.version = found.version
        value = found.value
        assert value is not None
        if reference.field:
            value = pick(value, reference.field, reference.name)
        return {**_version(found), "name": reference.name, "backend": backend, **_written(value)}

    async def set(
        self,
        asker: Asker,
        *,
        name: str,
        value: str | None = None,
        base64: str | None = None,
        stage: str = CURRENT,
    ) -> Body:
        """`secret.set`; `value` is text, `base64` anything."""
        use = self._use()
        backend, plain = self._named(use, name)
        given = _read(value, base64)
        self._demand(use, backend, Capability.PUT)
        async with self._entered(use, asker, "set", backend, plain) as entry:
            made: SecretVersion = await self._call(
                use,
                backend,
                lambda store: store.put(plain, given, stage=stage, actor=asker.actor),
                SecretVersion,
            )
            entry.version = made.version
        self._touched(use, backend, plain)
        return {**_version(made), "name": plain, "backend": backend}

    async def rollback(self, asker: Asker, *, name: str, version: str = "") -> Body:
        """`secret.rollback`: the version before, or another one, is current again."""
        use = self._use()
        backend, plain = self._named(use, name)
        self._demand(use, backend, Capability.STAGE)
        async with self._entered(use, asker, "rollback", backend, plain) as entry:
            chosen = version
            if not chosen:
                before: SecretVersion = await self._call(
                    use, backend, lambda store: store.get(plain, stage=PREVIOUS), SecretVersion
                )
                chosen = before.version
            entry.version = chosen
            await self._call(
                use, backend, lambda store: store.stage(plain, chosen, CURRENT), type(None)
            )
        self._touched(use, backend, plain)
        return {"backend": backend, "name": plain, "version": chosen}

    async def delete(
        self, asker: Asker, *, name: str, recovery: float | None = None, force: bool = False
    ) -> Body:
        """`secret.delete`; one that is in use only with `force`."""
        use = self._use()
        backend, plain = self._named(use, name)
        self._demand(use, backend, Capability.DELETE)
        users = (await self.impact(asker, name=name))["reached"]
        if users and not force:
            names = ", ".join(f"{one['kind']} {one['name']}" for one in users[:5])
            raise AtlasError(
                "secret.conflict",
                f"the secret {plain!r} is in use: {names}",
                hint="take the references to it out of the configuration, or delete it with "
                "--force: the next reload and the next start are refused then",
            )
        window = None if recovery is None else timedelta(seconds=recovery)
        async with self._entered(use, asker, "delete", backend, plain):
            info: SecretInfo = await self._call(
                use, backend, lambda store: store.delete(plain, recovery=window), SecretInfo
            )
        self._touched(use, backend, plain)
        return {"backend": backend, **_info(info)}

    async def recover(self, asker: Asker, *, name: str) -> Body:
        """`secret.recover`."""
        use = self._use()
        backend, plain = self._named(use, name)
        self._demand(use, backend, Capability.RECOVER)
        async with self._entered(use, asker, "recover", backend, plain):
            info: SecretInfo = await self._call(
                use, backend, lambda store: store.recover(plain), SecretInfo
            )
        self._touched(use, backend, plain)
        return {"backend": backend, **_info(info)}

    async def refresh(self, asker: Asker, *, name: str, reason: str = "") -> Body:
        """`secret.refresh`: fetched anew, though not more often than its cool-down allows."""
        use = self._use()
        reference = self._reference(use, name)
        backend = reference.backend or use.policy.backend
        async with self._entered(use, asker, "refresh", backend, reference.name) as entry:
            entry.reason = reason
            found = await self._engine.refresh(use.policy, reference)
            entry.version = found.version
        return {
            "backend": backend,
            "name": reference.name,
            "fetched": found.fetched,
            "changed": found.changed,
            "version": found.version,
            "wait_seconds": found.wait,
        }

    # --- many at once

    async def import_(
        self,
        asker: Asker,
        *,
        text: str,
        format: str = "env",
        prefix: str = "",
        overwrite: bool = False,
        backend: str = "",
    ) -> Body:
        """`secret.import`: nothing is put before all of it was looked at."""
        use = self._use()
        backend = self._demand(use, backend, Capability.PUT)
        values = bulk.read(text, format, self._parse_env)
        names = {name: self._named(use, f"{backend}/{prefix}{name}")[1] for name in values}
        rows: list[Body] = []
        todo: list[tuple[str, SecretValue]] = []
        for name, plain in sorted(names.items()):
            value = SecretValue(values[name])
            known = await self._present(use, backend, plain)
            if known is not None and (known == value or not overwrite):
                done = "unchanged" if known == value else "kept"
                rows.append({"name": plain, "done": done})
            else:
                rows.append({"name": plain, "done": "put" if known is None else "replaced"})
                todo.append((plain, value))
        for plain, value in todo:
            encoded = base64.b64encode(value.reveal()).decode()
            await self.set(asker, name=f"{backend}/{plain}", base64=encoded)
        return {"backend": backend, "secrets": rows}

    async def _present(self, use: Use, backend: str, name: str) -> SecretValue | None:
        try:
            found: SecretVersion = await self._call(
                use, backend, lambda store: store.get(name), SecretVersion
            )
        except AtlasError as error:
            if error.code != "secret.not_found":
                raise
            return None
        return found.value

    async def export(
        self,
        asker: Asker,
        *,
        format: str = "json",
        prefix: str = "",
        backend: str = "",
    ) -> Body:
        """`secret.export`: every one of them is written to the audit log."""
        use = self._use()
        backend = self._demand(use, backend, Capability.LIST)
        found: Sequence[SecretInfo] = await self._call(
            use, backend, lambda store: store.list(prefix), (list, tuple)
        )
        values: dict[str, str] = {}
        for one in found:
            if one.deleted is not None:
                continue
            got = await self.reveal(asker, name=f"{backend}/{one.name}", purpose="export")
            if got["value"] is None:
                raise AtlasError(
                    "secret.invalid",
                    f"the secret {one.name!r} is not text",
                    hint="get it alone: `atlasctl secret get --reveal --file PATH`",
                )
            values[one.name.removeprefix(prefix)] = got["value"]
        return {"backend": backend, "count": len(values), "text": bulk.write(values, format)}

    # --- keys

    async def keys(self, asker: Asker, *, backend: str = "") -> Body:
        """`secret.keys`."""
        del asker
        use = self._use()
        backend = self._demand(use, backend, Capability.KEYS)
        keys: Sequence[KeyInfo] = await self._call(
            use, backend, lambda store: _ring(store).keys(), (list, tuple)
        )
        return {"keys": [_key(backend, one) for one in keys]}

    async def keygen(self, asker: Asker, *, backend: str = "") -> Body:
        """`secret.keygen`."""
        use = self._use()
        backend = self._demand(use, backend, Capability.KEYS)
        async with self._entered(use, asker, "keygen", backend, "") as entry:
            made: KeyInfo = await self._call(
                use, backend, lambda store: _ring(store).keygen(), KeyInfo
            )
            entry.version = made.id
        return _key(backend, made)

    async def rotate_keys(
        self, asker: Asker, *, backend: str = "", retire: bool = True
    ) -> AsyncIterator[Body]:
        """`secret.rotate-keys`: how far it has come, again and again; the last one is the end."""
        use = self._use()
        backend = self._demand(use, backend, Capability.KEYS)
        seen: list[KeyProgress] = []
        progress = _Progress()
        async with self._entered(use, asker, "rotate-keys", backend, "") as entry:
            work = progress.work(
                lambda tell: self._call(
                    use,
                    backend,
                    lambda store: _ring(store).rotate_keys(tell, retire=retire),
                    KeyProgress,
                    limit=REWRAP_LIMIT,
                )
            )
            async for one in work:
                seen.append(one)
                yield {
                    "done": one.done,
                    "total": one.total,
                    "retired": list(one.retired),
                    "finished": False,
                }
            last = seen[-1]
            entry.reason = f"{last.done} records; retired: {', '.join(last.retired) or 'none'}"
        yield {
            "done": last.done,
            "total": last.total,
            "retired": list(last.retired),
            "finished": True,
        }

    async def rotate(self, asker: Asker, *, name: str, force: bool = False) -> AsyncIterator[Body]:
        """`secret.rotate`: each step when it is done."""
        use = self._use()
        backend, plain = self._named(use, name)
        if self._rotations is None:
            raise AtlasError(
                "core.unreachable",
                "rotating a secret needs the daemon, which goes on with it after a crash",
                hint="start it: `atlasd run`",
            )
        async for done in self._rotations.rotate(backend, plain, actor=asker.actor, force=force):
            yield {
                "backend": backend,
                "name": plain,
                "step": done.step,
                "version": done.version,
            }

    # --- the audit log

    async def audit(
        self, asker: Asker, *, limit: int = 50, name: str = "", action: str = ""
    ) -> Body:
        """`secret.audit`."""
        del asker
        plain = self._named(self._use(), name)[1] if name else ""
        found = await self._in_thread(self._audit.read, limit=limit, name=plain, action=action)
        return {"records": found, "file": str(self._audit.path)}

    async def audit_verify(self, asker: Asker) -> Body:
        """`secret.audit-verify`."""
        del asker
        found = await self._in_thread(self._audit.verify)
        return {
            "records": found.records,
            "last": found.last or None,
            "problems": list(found.problems),
            "file": str(self._audit.path),
        }

    # --- how

    def _reference(self, use: Use, name: str) -> Reference:
        try:
            return self._address(name.removeprefix("secret://"), tuple(use.policy.backends))
        except ValueError as error:
            raise AtlasError(
                "secret.invalid",
                f"{name[:100]!r} is no name of a secret: {error}",
                hint=str(getattr(error, "hint", "")),
            ) from None

    def _named(self, use: Use, name: str) -> tuple[str, str]:
        """Backend and name, of what may be given without selector and field only."""
        found = self._reference(use, name)
        if found.selector or found.field:
            raise AtlasError(
                "secret.invalid",
                f"{name[:100]!r} names a part of a secret; this is done with all of it",
                hint=f"write {found.name}",
            )
        return found.backend or use.policy.backend, found.name

    def _demand(self, use: Use, backend: str, capability: Capability) -> str:
        backend = backend or use.policy.backend
        self._engine.backends.demand(use.policy, backend, capability)
        return backend

    async def _call(
        self,
        use: Use,
        backend: str,
        work: Callable[[SecretStore], Awaitable[T]],
        expect: type | tuple[type, ...],
        *,
        limit: timedelta | None = None,
    ) -> T:
        if limit is None:
            return await self._engine.backends.call(use.policy, backend, work, expect=expect)
        return await self._engine.backends.call(
            use.policy, backend, work, expect=expect, limit=limit
        )

    def _touched(self, use: Use, backend: str, name: str) -> None:
        self._engine.changed_by_us(use.policy, backend, name)
        if any(
            (one.backend or use.policy.backend, one.name) == (backend, name)
            for references in use.uses.values()
            for one in references
        ):
            self._changed(name)

    @asynccontextmanager
    async def _entered(
        self,
        use: Use,
        asker: Asker,
        action: str,
        backend: str,
        name: str,
        *,
        reads: bool = False,
    ) -> "AsyncIterator[_Note]":
        """Have what is done in it written to the audit log, however it ends.

        With a policy that fails closed, what changes something is written before it is done as
        well; what only `reads` has given nothing away before it is left.
        """
        note = _Note()
        entry = Entry(
            action=action,
            name=name,
            backend=backend,
            environment=use.policy.environment,
            actor=asker.actor,
            pid=asker.pid,
        )
        if use.policy.fail_closed and not reads:
            await self._engine.enter(use.policy, [replace(entry, outcome="begun")])
        try:
            yield note
        except AtlasError as error:
            failed = replace(entry, outcome=error.code, reason=error.message)
            await self._engine.enter(use.policy, [failed])
            raise
        done = replace(entry, version=note.version, reason=note.reason)
        await self._engine.enter(use.policy, [done])


@dataclass(kw_only=True)
class _Note:
    """What is known only when it is done."""

    version: str = ""
    reason: str = ""


class _Progress:
    """Progress that a callback tells, as something to iterate over."""

    async def work(
        self, begin: Callable[[Callable[[KeyProgress], None]], Awaitable[KeyProgress]]
    ) -> AsyncIterator[KeyProgress]:
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[KeyProgress | None] = asyncio.Queue()

        def tell(progress: KeyProgress) -> None:
            # A store may tell from one of its threads.
            loop.call_soon_threadsafe(told.put_nowait, progress)

        async def all_of_it() -> KeyProgress:
            try:
                return await begin(tell)
            finally:
                told.put_nowait(None)

        task = asyncio.create_task(all_of_it())
        try:
            while (one := await told.get()) is not None:
                yield one
            yield await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _read(value: str | None, encoded: str | None) -> SecretValue:
    if (value is None) == (encoded is None):
        raise AtlasError("secret.invalid", "one of value and base64 is needed, and only one")
    if value is not None:
        return SecretValue(value)
    assert encoded is not None
    try:
        return SecretValue(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        raise AtlasError("secret.invalid", "what is given in base64 is not base64") from None


def _written(value: SecretValue) -> Body:
    try:
        return {"value": value.text(), "base64": None}
    except ValueError:
        return {"value": None, "base64": base64.b64encode(value.reveal()).decode()}


def _ring(store: SecretStore) -> KeyRing:
    if not isinstance(store, KeyRing):
        raise AtlasError("secret.unsupported", "the backend says that it has keys, and has none")
    return store


def _version(found: SecretVersion) -> Body:
    return {
        "version": found.version,
        "stages": list(found.stages),
        "created": found.created,
        "created_by": found.created_by,
        "enabled": found.enabled,
        "key": found.key,
    }


def _info(info: SecretInfo) -> Body:
    return {
        "name": info.name,
        "current": info.current,
        "created": info.created,
        "changed": info.changed,
        "versions": info.versions,
        "deleted": info.deleted,
        "recoverable_until": info.recoverable_until,
    }


def _key(backend: str, key: KeyInfo) -> Body:
    return {
        "backend": backend,
        "id": key.id,
        "primary": key.primary,
        "source": key.source,
        "warning": key.warning,
        "records": key.records,
    }


def _no_key(backend: str, error: AtlasError) -> Body:
    return {
        "backend": backend,
        "id": "",
        "primary": False,
        "source": "",
        "warning": f"{error.message}; {error.hint}" if error.hint else error.message,
        "records": 0,
    }


def _state(answer: Resolved | Exception) -> str:
    if isinstance(answer, Resolved):
        return "stale" if answer.stale else "ok"
    return answer.code if isinstance(answer, AtlasError) else "internal"


def _dotted(path: KeyPath) -> str:
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text
