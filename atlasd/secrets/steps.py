"""The steps of a rotation that know the system behind a secret: by commands, or by a plugin."""

import json
import secrets
import string
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

from atlasd.contracts.secrets import Rotator, SecretValue
from atlasd.errors import AtlasError
from atlasd.secrets import commands

R = TypeVar("R")

ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one secret is rotated, as its configuration says; times in seconds."""

    rotator: str | None = None
    create: tuple[str, ...] | None = None
    length: int = 32
    set: tuple[str, ...] | None = None
    test: tuple[str, ...] | None = None
    retire: tuple[str, ...] | None = None
    overlap: float = 3600.0
    every: float | None = None
    timeout: float = 60.0


class RunningRotator(Protocol):
    """A plugin's rotator, behind its guard."""

    async def call(
        self,
        work: Callable[[Rotator], Awaitable[R]],
        *,
        limit: timedelta,
        expect: type | tuple[type, ...],
    ) -> R:
        """What `work` gives. Raises the rotator's own `AtlasError`, and `plugin.failed`."""


@dataclass(frozen=True, kw_only=True)
class Commands:
    """The steps as commands; one that is not configured does nothing."""

    plan: Plan
    environment: str

    async def create(self, name: str, current: SecretValue | None) -> SecretValue:
        """What the command prints, less one newline at its end; else random characters."""
        if self.plan.create is None:
            return _random(name, current, self.plan.length)
        printed = await self._run("create", self.plan.create, name, None, [current])
        value = printed[:-1] if printed.endswith(b"\n") else printed
        if not value:
            raise AtlasError("secret.rotation", "the command printed nothing")
        return SecretValue(value)

    async def set(self, name: str, pending: SecretValue, current: SecretValue | None) -> None:
        """The command reads the new value."""
        if self.plan.set is not None:
            await self._run("set", self.plan.set, name, pending, [pending, current])

    async def test(self, name: str, pending: SecretValue) -> None:
        """The command reads the new value, and ends with 0 if it works."""
        if self.plan.test is not None:
            await self._run("test", self.plan.test, name, pending, [pending])

    async def retire(self, name: str, previous: SecretValue) -> None:
        """The command reads the old value."""
        if self.plan.retire is not None:
            await self._run("retire", self.plan.retire, name, previous, [previous])

    async def _run(
        self,
        step: str,
        command: Sequence[str],
        name: str,
        given: SecretValue | None,
        hidden: Sequence[SecretValue | None],
    ) -> bytes:
        return await commands.run(
            command,
            given=given,
            hidden=[value for value in hidden if value is not None],
            timeout=self.plan.timeout,
            variables={
                "ATLASD_SECRET": name,
                "ATLASD_STEP": step,
                "ATLASD_ENVIRONMENT": self.environment,
            },
        )


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """The steps as a plugin has them."""

    running: RunningRotator
    timeout: float

    async def create(self, name: str, current: SecretValue | None) -> SecretValue:
        """See `Rotator`."""
        return await self._call(lambda rotator: rotator.create(name, current), SecretValue)

    async def set(self, name: str, pending: SecretValue, current: SecretValue | None) -> None:
        """See `Rotator`."""
        await self._call(lambda rotator: rotator.set(name, pending, current), type(None))

    async def test(self, name: str, pending: SecretValue) -> None:
        """See `Rotator`."""
        await self._call(lambda rotator: rotator.test(name, pending), type(None))

    async def retire(self, name: str, previous: SecretValue) -> None:
        """See `Rotator`."""
        await self._call(lambda rotator: rotator.retire(name, previous), type(None))

    async def _call(self, work: Callable[[Rotator], Awaitable[R]], expect: type) -> R:
        return await self.running.call(work, limit=timedelta(seconds=self.timeout), expect=expect)


def _random(name: str, current: SecretValue | None, length: int) -> SecretValue:
    if current is not None and current.reveal().lstrip()[:1] == b"{":
        try:
            whole = isinstance(json.loads(current.reveal()), dict)
        except ValueError:
            whole = False
        if whole:
            raise AtlasError(
                "secret.rotation",
                f"the secret {name!r} is a JSON object: random characters cannot take its place",
                hint=f"give [secrets.rotate.{name}] a command `create` that prints the new object",
            )
    return SecretValue("".join(secrets.choice(ALPHABET) for _ in range(length)))
