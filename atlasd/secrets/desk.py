"""What every operation on secrets stands on: who asks, what is meant, and the audit log."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from atlasd.contracts.config import KeyPath
from atlasd.contracts.secrets import Capability, Reference, SecretsPolicy, SecretStore
from atlasd.errors import AtlasError
from atlasd.secrets import bulk
from atlasd.secrets.audit import Audit, Entry
from atlasd.secrets.engine import Engine
from atlasd.secrets.impact import Consumer
from atlasd.secrets.rotation import RotationEngine

Body = dict[str, Any]
T = TypeVar("T")


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


@dataclass(kw_only=True)
class Note:
    """What is known only when it is done."""

    version: str = ""
    reason: str = ""


class Desk:
    """Where operations are asked for. It belongs to the engine's loop."""

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
    ) -> "AsyncIterator[Note]":
        """Have what is done in it written to the audit log, however it ends.

        With a policy that fails closed, what changes something is written before it is done as
        well; what only `reads` has given nothing away before it is left.
        """
        note = Note()
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
