"""The engine: looks secrets up, once for all who want them, and says when one has changed."""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from atlasd.clock import Clock, utc
from atlasd.contracts.secrets import (
    CURRENT,
    Capability,
    Reference,
    Resolved,
    Sealed,
    Sealer,
    SecretBackend,
    SecretsPolicy,
    SecretStore,
    SecretValue,
)
from atlasd.errors import AtlasError
from atlasd.events import Event
from atlasd.secrets.audit import Entry
from atlasd.secrets.backends import Backends, OpenBackend
from atlasd.secrets.cache import Key, Look, Rules, State
from atlasd.secrets.fetching import Fetching, unknown
from atlasd.secrets.fields import pick
from atlasd.secrets.lastknown import LastKnown

COOL_DOWN = 60.0
"""Seconds between two fetches of one secret that were forced."""
WATCH_MOST = 30.0
"""Seconds after which the watch looks again at the latest."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a secret stands, for people and metrics; never its value."""

    key: Key
    state: State
    version: str
    age: float | None
    error: str


@dataclass(kw_only=True)
class Numbers:
    """What the engine has done, for metrics."""

    fetches: Counter[tuple[str, str]]
    """By backend and outcome: `done`, `shared`, or the code of the error."""
    served: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Values handed out, by backend and state."""
    audit_failures: int = 0


class Engine:
    """The engine of one process. It belongs to the event loop in which it is used."""

    def __init__(
        self,
        *,
        open_backend: OpenBackend,
        descriptors: Mapping[str, SecretBackend],
        clock: Clock,
        audit: Callable[[Sequence[Entry]], None] | None = None,
        last_known: LastKnown | None = None,
        publish: Callable[[Event], object] = lambda _event: None,
        changed: Callable[[Key], object] = lambda _key: None,
        known: Callable[[str, SecretValue], object] = lambda _name, _value: None,
        chance: Callable[[], float] = random.random,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`audit` writes records and may block; `changed` hears of another version of a secret.

        `known` hears the value of each that was read, before anybody else, so that no log shows it.
        """
        self.backends = Backends(
            open_backend, descriptors, clock, pause=pause, reopened=self._reopened
        )
        self._fetching = Fetching(
            self.backends,
            clock,
            last_known=last_known,
            publish=publish,
            changed=changed,
            known=known,
            chance=chance,
            pause=pause,
        )
        self._clock = clock
        self._audit = audit
        self._watched: tuple[SecretsPolicy, tuple[Key, ...]] | None = None
        self._rewatch = asyncio.Event()
        self.numbers = Numbers(fetches=self._fetching.fetches)

    # --- values

    async def resolve(
        self,
        policy: SecretsPolicy,
        wanted: Sequence[Reference | Sealed],
        *,
        consumer: str,
        actor: str,
    ) -> dict[Reference | Sealed, Resolved | Exception]:
        """For each what it stands for, or why not; entered in the audit log."""
        found = self._at_hand(policy, wanted)
        rest = [one for one in wanted if one not in found]
        answers = await asyncio.gather(
            *(self._resolved(policy, one) for one in rest), return_exceptions=True
        )
        for one, answer in zip(rest, answers, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, Exception):
                raise answer
            found[one] = answer
        if self._audit is None:
            return found
        entries = [
            self._read_entry(policy, one, answer, consumer, actor) for one, answer in found.items()
        ]
        try:
            await self.enter(policy, entries)
        except AtlasError as error:
            return dict.fromkeys(wanted, error)
        return found

    async def fetch(
        self, policy: SecretsPolicy, reference: Reference, *, consumer: str, actor: str
    ) -> Resolved:
        """One value; entered in the audit log. Raises `AtlasError`."""
        found = await self.resolve(policy, [reference], consumer=consumer, actor=actor)
        answer = found[reference]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def enter(self, policy: SecretsPolicy, entries: Sequence[Entry]) -> None:
        """Write to the audit log.

        Raises `audit.broken` if it cannot be written and the policy is to fail closed.
        """
        if self._audit is None:
            return
        try:
            await asyncio.to_thread(self._audit, entries)
        except AtlasError as error:
            self.numbers.audit_failures += 1
            _log.error("%s (%s)", error.message, error.hint)
            if policy.fail_closed:
                raise

    async def refresh(self, policy: SecretsPolicy, reference: Reference) -> "Refreshed":
        """Fetch a secret now, whatever its age: somebody was refused with the value that he has.

        Within `COOL_DOWN` of the last time nothing is fetched. Raises `AtlasError`.
        """
        realm = self._fetching.realm(policy)
        key = self.key_of(policy, reference)
        now = self._clock.monotonic()
        wait = realm.forced.get(key, -COOL_DOWN) + COOL_DOWN - now
        before = realm.cache.look(key, now)
        if wait > 0:
            version = before.value.version if before.value else ""
            return Refreshed(fetched=False, changed=False, version=version, wait=wait)
        realm.forced[key] = now
        error = await self._fetching.flight(realm, policy, key, forced=True)
        if error is not None:
            raise error
        after = realm.cache.look(key, self._clock.monotonic())
        if after.value is None:
            raise unknown(key)
        changed = before.value is not None and before.value.version != after.value.version
        return Refreshed(fetched=True, changed=changed, version=after.value.version, wait=0.0)

    def key_of(self, policy: SecretsPolicy, reference: Reference) -> Key:
        """What is fetched for a reference."""
        return Key(
            reference.backend or policy.backend, reference.name, reference.selector or CURRENT
        )

    def standing(self, policy: SecretsPolicy, keys: Iterable[Key]) -> tuple[Standing, ...]:
        """How each of these secrets stands, without fetching any."""
        realm = self._fetching.realm(policy)
        now = self._clock.monotonic()
        found = []
        for key in keys:
            look = realm.cache.look(key, now)
            found.append(
                Standing(
                    key=key,
                    state=look.state,
                    version=look.value.version if look.value is not None else "",
                    age=look.age if look.value is not None else None,
                    error=look.error.message if look.error is not None else "",
                )
            )
        return tuple(found)

    def _at_hand(
        self, policy: SecretsPolicy, wanted: Sequence[Reference | Sealed]
    ) -> dict[Reference | Sealed, Resolved | Exception]:
        """What can be given without waiting: fresh values, of backends that are as they were."""
        realm = self._fetching.realm(policy)
        realm.cache.rules = Rules.of(policy)
        ready = {name: self.backends.is_open(policy, name) for name in policy.backends}
        now = self._clock.monotonic()
        found: dict[Reference | Sealed, Resolved | Exception] = {}
        for one in wanted:
            if isinstance(one, Sealed):
                continue
            key = self.key_of(policy, one)
            if not ready.get(key.backend):
                continue
            look = realm.cache.look(key, now)
            if look.state is State.FRESH:
                try:
                    found[one] = self._given(key, one, look)
                except AtlasError as error:
                    found[one] = error
        return found

    async def _resolved(self, policy: SecretsPolicy, wanted: Reference | Sealed) -> Resolved:
        if isinstance(wanted, Sealed):
            return await self._unsealed(policy, wanted)
        key = self.key_of(policy, wanted)
        return self._given(
            key, wanted, await self._fetching.looked(self._fetching.realm(policy), policy, key)
        )

    def _given(self, key: Key, wanted: Reference, look: Look) -> Resolved:
        found = look.value
        assert found is not None
        assert found.value is not None
        value = pick(found.value, wanted.field, wanted.name) if wanted.field else found.value
        self.numbers.served[key.backend, look.state] += 1
        return Resolved(
            value=value,
            backend=key.backend,
            version=found.version,
            fetched=utc(self._clock.wall() - look.age),
            stale=look.error is not None,
        )

    async def _unsealed(self, policy: SecretsPolicy, sealed: Sealed) -> Resolved:
        name = self.sealer_of(policy)
        value = await self.backends.call(
            policy, name, lambda store: _sealer(store).unseal(sealed.text, binding=sealed.binding),
            expect=SecretValue,
        )  # fmt: skip
        return Resolved(value=value, backend=name)

    def sealer_of(self, policy: SecretsPolicy) -> str:
        """The backend that reads encrypted values: the default one if it can, else one that can."""
        able = self.backends.able(policy, Capability.SEAL)
        if not able:
            raise AtlasError(
                "secret.unsupported",
                "no secret backend can decrypt values that stand in the configuration",
                hint="the backend fernet can: see `atlasctl plugins`",
            )
        return able[0]

    def _reopened(self, environment: str, name: str) -> None:
        self._fetching.reopened(environment, name)

    # --- what is not asked for

    def changed_by_us(self, policy: SecretsPolicy, backend: str, name: str) -> None:
        """We put a version or moved a stage: what is kept of the secret is not to be used."""
        self._fetching.changed_by_us(policy, backend, name)

    async def close(self) -> None:
        """Let go of every backend."""
        await self._fetching.close()
        await self.backends.close()

    # --- watching

    def watch(self, policy: SecretsPolicy, references: Iterable[Reference]) -> None:
        """From now on keep these fresh, and say when one of them changes."""
        self._watched = (policy, tuple({self.key_of(policy, one): None for one in references}))
        self._rewatch.set()

    @property
    def watched(self) -> tuple[Key, ...]:
        """What is kept fresh."""
        return self._watched[1] if self._watched is not None else ()

    async def run(self) -> None:
        """Keep what is watched fresh, until cancelled."""
        while True:
            wait = await self.refresh_due()
            self._rewatch.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._rewatch.wait()

    async def refresh_due(self) -> float:
        """Fetch all that is watched and due; seconds until something is due again."""
        if self._watched is None:
            return WATCH_MOST
        policy, keys = self._watched
        realm = self._fetching.realm(policy)
        realm.cache.rules = Rules.of(policy)
        now = self._clock.monotonic()
        due = [key for key in keys if realm.cache.look(key, now).fetch]
        await asyncio.gather(
            *(
                self._fetching.flight(realm, policy, key)
                for key in due
                if key.backend in policy.backends
            ),
            return_exceptions=True,
        )
        soonest = min((realm.cache.due(key) for key in keys), default=now + WATCH_MOST)
        return min(max(soonest - self._clock.monotonic(), 1.0), WATCH_MOST)

    # --- audit

    def _read_entry(
        self,
        policy: SecretsPolicy,
        wanted: Reference | Sealed,
        answer: Resolved | Exception,
        consumer: str,
        actor: str,
    ) -> Entry:
        if isinstance(wanted, Sealed):
            name, backend = f"enc:{wanted.binding}", ""
        else:
            name, backend = wanted.name, wanted.backend or policy.backend
        return Entry(
            action="read",
            name=name,
            backend=answer.backend if isinstance(answer, Resolved) else backend,
            version=answer.version if isinstance(answer, Resolved) else "",
            environment=policy.environment,
            actor=actor,
            consumer=consumer,
            outcome=outcome_of(answer),
            reason=answer.message if isinstance(answer, AtlasError) else "",
        )


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """What a forced fetch came to."""

    fetched: bool
    changed: bool
    version: str
    wait: float
    """Seconds until it may be forced again, when it was not fetched."""


def outcome_of(answer: Resolved | Exception) -> str:
    """One word for the audit log."""
    if isinstance(answer, AtlasError):
        return answer.code
    if isinstance(answer, Exception):
        return type(answer).__name__
    return "stale" if answer.stale else "done"


def _sealer(store: SecretStore) -> Sealer:
    if not isinstance(store, Sealer):
        raise AtlasError("secret.unsupported", "the backend says that it can seal, and cannot")
    return store
