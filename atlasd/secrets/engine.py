"""The engine: looks secrets up, once for all who want them, and says when one has changed."""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from atlasd.clock import Clock, utc
from atlasd.contracts.secrets import (
    CURRENT,
    STAGES,
    Capability,
    Reference,
    Resolved,
    Sealed,
    Sealer,
    SecretBackend,
    SecretsPolicy,
    SecretStore,
    SecretValue,
    SecretVersion,
)
from atlasd.errors import AtlasError
from atlasd.events import Event, SecretChanged, SecretRevoked, SecretStale
from atlasd.secrets.audit import Entry
from atlasd.secrets.backends import Backends, OpenBackend
from atlasd.secrets.cache import REVOKING, Cache, Key, Look, Rules, State
from atlasd.secrets.fields import pick
from atlasd.secrets.lastknown import LastKnown

SHARED_FOR = 30.0
"""Seconds for which what another role has fetched, and left on disk, counts as fetched by us."""
TURN_LIMIT = 15.0
"""Seconds that a role waits while another one fetches the same secret."""
TURN_PAUSE = 0.05
COOL_DOWN = 60.0
"""Seconds between two fetches of one secret that were forced."""
WATCH_MOST = 30.0
"""Seconds after which the watch looks again at the latest."""

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Realm:
    """All that belongs to one environment: no value of another one is ever looked at."""

    environment: str
    cache: Cache = field(default_factory=Cache)
    flights: dict[Key, "asyncio.Task[AtlasError | None]"] = field(default_factory=dict)
    forced: dict[Key, float] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    """Backends of whose outage was told."""
    touched: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often we have changed a secret ourselves, by backend and name."""


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

    fetches: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By backend and outcome: `done`, or the code of the error."""
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
        self._clock = clock
        self._audit = audit
        self._last_known = last_known
        self._publish = publish
        self._changed = changed
        self._known = known
        self._chance = chance
        self._pause = pause
        self._realms: dict[str, _Realm] = {}
        self._watched: tuple[SecretsPolicy, tuple[Key, ...]] | None = None
        self._rewatch = asyncio.Event()
        self.numbers = Numbers()

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
        realm = self._realm(policy)
        key = self.key_of(policy, reference)
        now = self._clock.monotonic()
        wait = realm.forced.get(key, -COOL_DOWN) + COOL_DOWN - now
        before = realm.cache.look(key, now)
        if wait > 0:
            version = before.value.version if before.value else ""
            return Refreshed(fetched=False, changed=False, version=version, wait=wait)
        realm.forced[key] = now
        error = await self._flight(realm, policy, key, forced=True)
        if error is not None:
            raise error
        after = realm.cache.look(key, self._clock.monotonic())
        if after.value is None:
            raise self._unknown(key)
        changed = before.value is not None and before.value.version != after.value.version
        return Refreshed(fetched=True, changed=changed, version=after.value.version, wait=0.0)

    def key_of(self, policy: SecretsPolicy, reference: Reference) -> Key:
        """What is fetched for a reference."""
        return Key(
            reference.backend or policy.backend, reference.name, reference.selector or CURRENT
        )

    def standing(self, policy: SecretsPolicy, keys: Iterable[Key]) -> tuple[Standing, ...]:
        """How each of these secrets stands, without fetching any."""
        realm = self._realm(policy)
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
        realm = self._realm(policy)
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
        return self._given(key, wanted, await self._looked(self._realm(policy), policy, key))

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

    async def _looked(self, realm: _Realm, policy: SecretsPolicy, key: Key) -> Look:
        realm.cache.rules = Rules.of(policy)
        await self.backends.open(policy, key.backend)  # other settings end what was kept
        look = realm.cache.look(key, self._clock.monotonic())
        if look.value is not None:
            if look.fetch:
                self._begin(realm, policy, key)
            return look
        if look.fetch:
            await self._flight(realm, policy, key)
            look = realm.cache.look(key, self._clock.monotonic())
        if look.value is None:
            raise look.error or self._unknown(key)
        return look

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

    # --- one fetch for all who want it

    async def _flight(
        self, realm: _Realm, policy: SecretsPolicy, key: Key, *, forced: bool = False
    ) -> AtlasError | None:
        """Have it fetched; the error when that failed."""
        return await asyncio.shield(self._begin(realm, policy, key, forced=forced))

    def _begin(
        self, realm: _Realm, policy: SecretsPolicy, key: Key, *, forced: bool = False
    ) -> "asyncio.Task[AtlasError | None]":
        flight = realm.flights.get(key)
        if flight is None:
            flight = asyncio.create_task(
                self._fetch(realm, policy, key, forced=forced),
                name=f"secret {key.backend}/{key.name}",
            )
            realm.flights[key] = flight
            flight.add_done_callback(lambda done: _landed(realm, key, done))
        return flight

    async def _fetch(
        self, realm: _Realm, policy: SecretsPolicy, key: Key, *, forced: bool
    ) -> AtlasError | None:
        disk = self._place(policy, key)
        if disk is None:
            return await self._fetch_once(realm, policy, key, None)
        waited = 0.0
        while True:
            async with _turn(disk, key) as mine:
                if mine or waited >= TURN_LIMIT:
                    if not forced and await self._shared(realm, key, disk):
                        return None
                    return await self._fetch_once(realm, policy, key, disk)
            await self._pause(TURN_PAUSE)
            waited += TURN_PAUSE

    def _place(self, policy: SecretsPolicy, key: Key) -> LastKnown | None:
        """Where the last known value of a secret is kept; None where none is."""
        if self._last_known is None or self.backends.kind(policy, key.backend).local:
            return None
        # What came from a backend with other settings may be of another account or region.
        kind, settings = policy.backends[key.backend]
        return self._last_known.at(policy.environment, kind, settings.model_dump_json())

    async def _fetch_once(
        self, realm: _Realm, policy: SecretsPolicy, key: Key, disk: LastKnown | None
    ) -> AtlasError | None:
        backend, name, selector = key
        choice = {"stage": selector} if selector in STAGES else {"version": selector}
        touched = -1
        try:
            # What we have changed meanwhile may not be what was fetched.
            while touched != realm.touched[backend, name]:
                touched = realm.touched[backend, name]
                found = await self.backends.call(
                    policy, backend, lambda store: store.get(name, **choice), expect=SecretVersion
                )
            if not isinstance(found.value, SecretValue):
                raise AtlasError(
                    "secret.corrupt", f"the backend {backend} gave {name!r} without its value"
                )
        except AtlasError as error:
            self.numbers.fetches[backend, error.code] += 1
            await self._failed(realm, key, error, disk)
            return error
        self.numbers.fetches[backend, "done"] += 1
        realm.stale.discard(backend)
        self._keep(realm, key, found)
        if disk is not None:
            await self._on_disk(disk.keep, key, found, self._clock.wall())
        return None

    def _keep(self, realm: _Realm, key: Key, found: SecretVersion, *, age: float = 0.0) -> None:
        now = self._clock.monotonic()
        if found.value is not None:
            self._known(key.name, found.value)
        if realm.cache.keep(key, found, now, self._chance(), age=age):
            self._publish(
                SecretChanged(
                    time=self._clock.wall(),
                    secret=key.name,
                    backend=key.backend,
                    version=found.version,
                    environment=realm.environment,
                    detail=f"{key.name} is another version: {found.version}",
                )
            )
            self._changed(key)

    async def _shared(self, realm: _Realm, key: Key, disk: LastKnown) -> bool:
        """Whether another role has just fetched it."""
        known = await asyncio.to_thread(disk.find, key)
        if known is None:
            return False
        age = max(0.0, self._clock.wall() - known.fetched)
        look = realm.cache.look(key, self._clock.monotonic())
        ours = look.value is not None and look.age <= age
        if age > min(SHARED_FOR, realm.cache.rules.fresh_for) or ours:
            return False
        self.numbers.fetches[key.backend, "shared"] += 1
        self._keep(realm, key, known.value, age=age)
        return True

    async def _failed(
        self, realm: _Realm, key: Key, error: AtlasError, disk: LastKnown | None
    ) -> None:
        now = self._clock.monotonic()
        over = realm.cache.failed(key, error, now, self._chance())
        if error.code in REVOKING:
            if disk is not None:
                await self._on_disk(disk.drop, key)
            if over:
                self._publish(
                    SecretRevoked(
                        time=self._clock.wall(),
                        secret=key.name,
                        backend=key.backend,
                        environment=realm.environment,
                        reason=error.code,
                        detail=error.message,
                    )
                )
                self._changed(key)
            return
        if realm.cache.look(key, now).value is None and disk is not None:
            known = await asyncio.to_thread(disk.find, key)
            if known is not None:
                age = max(0.0, self._clock.wall() - known.fetched)
                realm.cache.keep(key, known.value, now, self._chance(), age=age)
                realm.cache.failed(key, error, now, self._chance())
        look = realm.cache.look(key, now)
        if look.value is not None and key.backend not in realm.stale:
            realm.stale.add(key.backend)
            self._publish(
                SecretStale(
                    time=self._clock.wall(),
                    secret=key.name,
                    backend=key.backend,
                    environment=realm.environment,
                    reason=error.code,
                    detail=f"{error.message}; a value {look.age:.0f} s old is used",
                )
            )

    async def _on_disk(self, work: Callable[..., None], *args: object) -> None:
        try:
            await asyncio.to_thread(work, *args)
        except (OSError, AtlasError) as error:
            _log.warning("last known values cannot be kept: %s", error)

    # --- what we do ourselves

    def changed_by_us(self, policy: SecretsPolicy, backend: str, name: str) -> None:
        """We put a version or moved a stage: what is kept of the secret is not to be used."""
        realm = self._realm(policy)
        realm.touched[backend, name] += 1
        kept = [k for k in realm.cache if (k.backend, k.name) == (backend, name)]
        realm.cache.forget(backend, name)
        for key in kept:
            disk = self._place(policy, key)
            if disk is not None:
                with contextlib.suppress(OSError, AtlasError):
                    disk.drop(key)

    def _realm(self, policy: SecretsPolicy) -> _Realm:
        realm = self._realms.get(policy.environment)
        if realm is None:
            realm = self._realms[policy.environment] = _Realm(environment=policy.environment)
        return realm

    def _reopened(self, environment: str, name: str) -> None:
        if environment in self._realms:
            self._realms[environment].cache.forget_backend(name)

    def _unknown(self, key: Key) -> AtlasError:
        return AtlasError("secret.unavailable", f"the secret {key.name!r} was not fetched")

    async def close(self) -> None:
        """Let go of every backend."""
        flights = [flight for realm in self._realms.values() for flight in realm.flights.values()]
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
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
        realm = self._realm(policy)
        realm.cache.rules = Rules.of(policy)
        now = self._clock.monotonic()
        due = [key for key in keys if realm.cache.look(key, now).fetch]
        await asyncio.gather(
            *(self._flight(realm, policy, key) for key in due if key.backend in policy.backends),
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


def _landed(realm: _Realm, key: Key, flight: "asyncio.Task[AtlasError | None]") -> None:
    realm.flights.pop(key, None)
    if not flight.cancelled() and flight.exception() is not None:
        _log.error("fetching the secret %s failed", key.name, exc_info=flight.exception())


@asynccontextmanager
async def _turn(disk: LastKnown, key: Key) -> AsyncIterator[bool]:
    """Whether it is this role's turn to fetch; where locks cannot be had, it always is."""
    turn = disk.turn(key)
    try:
        mine = await asyncio.to_thread(turn.__enter__)
    except (OSError, AtlasError):
        yield True
        return
    try:
        yield mine
    finally:
        await asyncio.to_thread(turn.__exit__, None, None, None)


def _sealer(store: SecretStore) -> Sealer:
    if not isinstance(store, Sealer):
        raise AtlasError("secret.unsupported", "the backend says that it can seal, and cannot")
    return store
