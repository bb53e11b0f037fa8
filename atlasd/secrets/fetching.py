"""Fetching: one call of a backend for all who want a secret, and what becomes of its answer."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from atlasd.clock import Clock
from atlasd.contracts.secrets import STAGES, SecretsPolicy, SecretValue, SecretVersion
from atlasd.errors import AtlasError
from atlasd.events import Event, SecretChanged, SecretRevoked, SecretStale
from atlasd.secrets.backends import Backends
from atlasd.secrets.cache import REVOKING, Cache, Key, Look, Rules
from atlasd.secrets.lastknown import LastKnown

SHARED_FOR = 30.0
"""Seconds for which what another role has fetched, and left on disk, counts as fetched by us."""
TURN_LIMIT = 15.0
"""Seconds that a role waits while another one fetches the same secret."""
TURN_PAUSE = 0.05

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Realm:
    """All that belongs to one environment: no value of another one is ever looked at."""

    environment: str
    cache: Cache = field(default_factory=Cache)
    flights: dict[Key, "asyncio.Task[AtlasError | None]"] = field(default_factory=dict)
    forced: dict[Key, float] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    """Backends of whose outage was told."""
    touched: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often we have changed a secret ourselves, by backend and name."""


class Fetching:
    """Of one process, for all environments; it belongs to the loop in which it is used."""

    def __init__(
        self,
        backends: Backends,
        clock: Clock,
        *,
        last_known: LastKnown | None,
        publish: Callable[[Event], object],
        changed: Callable[[Key], object],
        known: Callable[[str, SecretValue], object],
        chance: Callable[[], float],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        """See `atlasd.secrets.engine.Engine`."""
        self.fetches: Counter[tuple[str, str]] = Counter()
        """By backend and outcome: `done`, `shared`, or the code of the error."""
        self._backends = backends
        self._clock = clock
        self._last_known = last_known
        self._publish = publish
        self._changed = changed
        self._known = known
        self._chance = chance
        self._pause = pause
        self._realms: dict[str, Realm] = {}

    async def looked(self, realm: Realm, policy: SecretsPolicy, key: Key) -> Look:
        """What may be used of a secret, fetched first if nothing may. Raises `AtlasError`."""
        realm.cache.rules = Rules.of(policy)
        await self._backends.open(policy, key.backend)  # other settings end what was kept
        look = realm.cache.look(key, self._clock.monotonic())
        if look.value is not None:
            if look.fetch:
                self.begin(realm, policy, key)
            return look
        if look.fetch:
            await self.flight(realm, policy, key)
            look = realm.cache.look(key, self._clock.monotonic())
        if look.value is None:
            raise look.error or unknown(key)
        return look

    async def flight(
        self, realm: Realm, policy: SecretsPolicy, key: Key, *, forced: bool = False
    ) -> AtlasError | None:
        """Have it fetched; the error when that failed."""
        return await asyncio.shield(self.begin(realm, policy, key, forced=forced))

    def begin(
        self, realm: Realm, policy: SecretsPolicy, key: Key, *, forced: bool = False
    ) -> "asyncio.Task[AtlasError | None]":
        """The fetch that is under way, or a new one; `forced` takes nothing from another role."""
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
        self, realm: Realm, policy: SecretsPolicy, key: Key, *, forced: bool
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
        if self._last_known is None or self._backends.kind(policy, key.backend).local:
            return None
        # What came from a backend with other settings may be of another account or region.
        kind, settings = policy.backends[key.backend]
        return self._last_known.at(policy.environment, kind, settings.model_dump_json())

    async def _fetch_once(
        self, realm: Realm, policy: SecretsPolicy, key: Key, disk: LastKnown | None
    ) -> AtlasError | None:
        backend, name, selector = key
        choice = {"stage": selector} if selector in STAGES else {"version": selector}
        touched = -1
        try:
            # What we have changed meanwhile may not be what was fetched.
            while touched != realm.touched[backend, name]:
                touched = realm.touched[backend, name]
                found = await self._backends.call(
                    policy, backend, lambda store: store.get(name, **choice), expect=SecretVersion
                )
            if not isinstance(found.value, SecretValue):
                raise AtlasError(
                    "secret.corrupt", f"the backend {backend} gave {name!r} without its value"
                )
        except AtlasError as error:
            self.fetches[backend, error.code] += 1
            await self._failed(realm, key, error, disk)
            return error
        self.fetches[backend, "done"] += 1
        realm.stale.discard(backend)
        self._keep(realm, key, found)
        if disk is not None:
            await self._on_disk(disk.keep, key, found, self._clock.wall())
        return None

    def _keep(self, realm: Realm, key: Key, found: SecretVersion, *, age: float = 0.0) -> None:
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

    async def _shared(self, realm: Realm, key: Key, disk: LastKnown) -> bool:
        """Whether another role has just fetched it."""
        known = await asyncio.to_thread(disk.find, key)
        if known is None:
            return False
        age = max(0.0, self._clock.wall() - known.fetched)
        look = realm.cache.look(key, self._clock.monotonic())
        ours = look.value is not None and look.age <= age
        if age > min(SHARED_FOR, realm.cache.rules.fresh_for) or ours:
            return False
        self.fetches[key.backend, "shared"] += 1
        self._keep(realm, key, known.value, age=age)
        return True

    async def _failed(
        self, realm: Realm, key: Key, error: AtlasError, disk: LastKnown | None
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

    def changed_by_us(self, policy: SecretsPolicy, backend: str, name: str) -> None:
        """We put a version or moved a stage: what is kept of the secret is not to be used."""
        realm = self.realm(policy)
        realm.touched[backend, name] += 1
        kept = [k for k in realm.cache if (k.backend, k.name) == (backend, name)]
        realm.cache.forget(backend, name)
        for key in kept:
            disk = self._place(policy, key)
            if disk is not None:
                with contextlib.suppress(OSError, AtlasError):
                    disk.drop(key)

    def realm(self, policy: SecretsPolicy) -> Realm:
        """What belongs to the policy's environment."""
        realm = self._realms.get(policy.environment)
        if realm is None:
            realm = self._realms[policy.environment] = Realm(environment=policy.environment)
        return realm

    def reopened(self, environment: str, name: str) -> None:
        """A backend has other settings now: what came from it is not to be used."""
        if environment in self._realms:
            self._realms[environment].cache.forget_backend(name)

    async def close(self) -> None:
        """End what is under way."""
        flights = [flight for realm in self._realms.values() for flight in realm.flights.values()]
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)


def _landed(realm: Realm, key: Key, flight: "asyncio.Task[AtlasError | None]") -> None:
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


def unknown(key: Key) -> AtlasError:
    """The error for a secret of which nobody can say why it is not there."""
    return AtlasError("secret.unavailable", f"the secret {key.name!r} was not fetched")
