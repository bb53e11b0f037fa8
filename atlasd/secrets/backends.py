"""The backends that are open: each opened when it is first needed, called within its budget."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeVar

from pydantic import BaseModel

from atlasd.clock import Clock
from atlasd.contracts.secrets import Capability, SecretBackend, SecretsPolicy, SecretStore
from atlasd.errors import AtlasError, nearest
from atlasd.secrets.budget import Budget

T = TypeVar("T")

CALL_LIMIT = timedelta(seconds=20)
"""What one call of a backend may take."""
AT_ONCE = 8
"""Calls of one backend that may be under way at the same time."""


class Running(Protocol):
    """A backend that has been opened, behind its guard."""

    async def call(
        self,
        work: Callable[[SecretStore], Awaitable[T]],
        *,
        limit: timedelta,
        expect: type | tuple[type, ...],
    ) -> T:
        """What `work` gives, which must be of the type `expect`.

        Raises the backend's own `AtlasError`, and `plugin.failed` for whatever else it does.
        """


OpenBackend = Callable[[str, BaseModel, str, str], AbstractAsyncContextManager[Running]]
"""Opens a backend: by its type, its settings, its name and the environment."""


@dataclass(kw_only=True)
class _Opened:
    """One backend of one environment."""

    type: str
    settings: BaseModel
    running: Running
    closing: AsyncExitStack
    budget: Budget = field(default_factory=Budget)
    at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))


class Backends:
    """Those of one process, of all environments; they belong to the loop in which it is used."""

    def __init__(
        self,
        open_backend: OpenBackend,
        descriptors: Mapping[str, SecretBackend],
        clock: Clock,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        reopened: Callable[[str, str], object] = lambda _environment, _name: None,
    ) -> None:
        """`reopened` hears of a backend whose settings are other ones than before."""
        self._open = open_backend
        self._descriptors = descriptors
        self._clock = clock
        self._pause = pause
        self._reopened = reopened
        self._opened: dict[tuple[str, str], _Opened] = {}
        self._opening = asyncio.Lock()

    def kind(self, policy: SecretsPolicy, name: str) -> SecretBackend:
        """The type of a backend. Raises `secret.not_found` for one that is not configured."""
        if name not in policy.backends:
            raise AtlasError(
                "secret.not_found",
                f"there is no secret backend {name!r}",
                hint=nearest(name, tuple(policy.backends)),
            )
        return self._descriptors[policy.backends[name][0]]

    def demand(self, policy: SecretsPolicy, name: str, capability: Capability) -> None:
        """Raises `secret.unsupported` when a backend has not this capability."""
        kind = self.kind(policy, name)
        if capability not in kind.capabilities:
            can = ", ".join(sorted(kind.capabilities)) or "nothing but read"
            raise AtlasError(
                "secret.unsupported",
                f"the secret backend {name} (type {kind.name}) cannot {capability}",
                hint=f"it can {can}",
            )

    def able(self, policy: SecretsPolicy, capability: Capability) -> tuple[str, ...]:
        """The names of the backends with a capability, the default one first."""
        names = sorted(policy.backends, key=lambda name: (name != policy.backend, name))
        return tuple(name for name in names if capability in self.kind(policy, name).capabilities)

    async def call(
        self,
        policy: SecretsPolicy,
        name: str,
        work: Callable[[SecretStore], Awaitable[T]],
        *,
        expect: type | tuple[type, ...],
        limit: timedelta = CALL_LIMIT,
    ) -> T:
        """A call of a backend. Raises `AtlasError` of the codes `secret.*`."""
        opened = await self.open(policy, name)
        wait = opened.budget.take(self._clock.monotonic())
        if wait:
            await self._pause(wait)
        async with opened.at_once:
            try:
                answer = await opened.running.call(work, limit=limit, expect=expect)
            except AtlasError as error:
                honest = _as_secret(error)
                opened.budget.answered(self._clock.monotonic(), honest)
                if honest is error:
                    raise
                raise honest from error
        opened.budget.answered(self._clock.monotonic(), None)
        return answer

    def is_open(self, policy: SecretsPolicy, name: str) -> bool:
        """Whether the backend stands open with the settings that the policy has for it."""
        opened = self._opened.get((policy.environment, name))
        return opened is not None and (opened.type, opened.settings) == policy.backends[name]

    async def open(self, policy: SecretsPolicy, name: str) -> _Opened:
        """The backend, opened with the settings that the policy has for it."""
        self.kind(policy, name)
        kind, settings = policy.backends[name]
        place = (policy.environment, name)
        async with self._opening:
            opened = self._opened.get(place)
            if opened is not None and (opened.type, opened.settings) == (kind, settings):
                return opened
            if opened is not None:
                del self._opened[place]
                self._reopened(*place)
                await opened.closing.aclose()
            stack = AsyncExitStack()
            running = await stack.enter_async_context(
                self._open(kind, settings, name, policy.environment)
            )
            opened = _Opened(type=kind, settings=settings, running=running, closing=stack)
            self._opened[place] = opened
            return opened

    async def close(self) -> None:
        """Let go of all of them."""
        opened, self._opened = self._opened, {}
        for one in opened.values():
            await one.closing.aclose()


def _as_secret(error: AtlasError) -> AtlasError:
    """A backend's error by one of the codes `secret.*`: a plugin that fails does not answer."""
    if error.code.startswith("secret."):
        return error
    return AtlasError(
        "secret.unavailable", error.message, hint=error.hint, details=dict(error.details)
    )
