"""What is kept of each secret and for how long: a state machine, pure but for what it is told.

fresh -> stale, while it is fetched anew -> stale, since the backend does not answer -> too old.
What was deleted, disabled or denied is over at once, or after a grace that the policy grants.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from atlasd.contracts.secrets import SecretsPolicy, SecretVersion
from atlasd.errors import AtlasError
from atlasd.retry import RetryPolicy, delay

TRANSIENT = frozenset({"secret.unavailable", "secret.throttled"})
"""Errors of a backend that does not answer now: what is known may still be right."""
REVOKING = frozenset({"secret.denied", "secret.not_found", "secret.disabled"})
"""Errors of a backend that does answer, and says that the secret is not to be had any longer."""

BACKOFF = RetryPolicy(first=timedelta(seconds=1), longest=timedelta(minutes=5))
"""Between two attempts to fetch a secret that cannot be fetched."""
SPREAD = 0.1
"""Part of the time of freshness by which chance varies it, so that not all are due at once."""
LONGEST_WAIT = timedelta(hours=1)
"""The most that a backend's `retry_after` is believed."""


class Key(NamedTuple):
    """What one fetch is about."""

    backend: str
    name: str
    selector: str
    """A stage or the id of a version."""


class State(StrEnum):
    """How a secret stands."""

    FRESH = "fresh"
    STALE = "stale"
    """It is used, and should be fetched anew."""
    EXPIRED = "expired"
    """It is too old to be used."""
    REVOKED = "revoked"
    """The backend said that it is over; used only within the policy's grace."""
    MISSING = "missing"
    """Nothing is known of it."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How long what is fetched may be used; seconds."""

    fresh_for: float = 300.0
    max_stale: float = 86400.0
    grace: float = 0.0

    @classmethod
    def of(cls, policy: SecretsPolicy) -> "Rules":
        """Those of a configuration."""
        return cls(
            fresh_for=policy.fresh_for.total_seconds(),
            max_stale=policy.max_stale.total_seconds(),
            grace=policy.revocation_grace.total_seconds(),
        )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is kept of one secret; times are monotonic seconds."""

    value: SecretVersion | None = field(default=None, repr=False)
    fetched: float = 0.0
    due: float = 0.0
    """When it is fetched anew."""
    failures: int = 0
    """In a row, since it was fetched the last time."""
    retry: float = 0.0
    """Before then it isn't tried again."""
    error: AtlasError | None = None
    """Of the last attempt, if that failed."""
    revoked: float | None = None
    """When the backend said that it is over."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What there is to be had of a secret at a moment."""

    state: State
    value: SecretVersion | None = field(default=None, repr=False)
    """What may be used now."""
    age: float = 0.0
    fetch: bool = False
    """Whether it should be fetched now: first, without a value; else beside its use."""
    error: AtlasError | None = None
    """Why there is no value, or why it is stale."""


class Cache:
    """All that is kept, by key."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self._entries: dict[Key, Entry] = {}

    def look(self, key: Key, now: float) -> Look:
        """What may be used at this time, and whether it should be fetched."""
        entry = self._entries.get(key)
        if entry is None:
            return Look(state=State.MISSING, fetch=True)
        tried = entry.error is not None and now < entry.retry
        if entry.value is None:
            return Look(state=State.MISSING, fetch=not tried, error=entry.error)
        age = max(0.0, now - entry.fetched)
        if entry.revoked is not None:
            if now >= entry.revoked + self.rules.grace:
                return Look(state=State.REVOKED, age=age, fetch=not tried, error=entry.error)
            return Look(
                state=State.REVOKED, value=entry.value, age=age, fetch=not tried, error=entry.error
            )
        if now < entry.due:
            return Look(state=State.FRESH, value=entry.value, age=age)
        if age < self.rules.max_stale:
            return Look(
                state=State.STALE, value=entry.value, age=age, fetch=not tried, error=entry.error
            )
        return Look(state=State.EXPIRED, age=age, fetch=not tried, error=entry.error)

    def keep(
        self, key: Key, value: SecretVersion, now: float, chance: float, *, age: float = 0.0
    ) -> bool:
        """Take in what was fetched `age` seconds ago; whether it is another value than before.

        One that could not be had before is another one, too. `chance` is uniform in [0, 1).
        """
        before = self._entries.get(key)
        span = self.rules.fresh_for * (1.0 + SPREAD * (2.0 * chance - 1.0))
        self._entries[key] = Entry(value=value, fetched=now - age, due=now - age + span)
        if before is None:
            return False
        old = before.value
        return old is None or (old.version, old.value) != (value.version, value.value)

    def failed(self, key: Key, error: AtlasError, now: float, chance: float) -> bool:
        """An attempt failed; whether that ended the use of a value that was known until now."""
        entry = self._entries.get(key, Entry())
        failures = entry.failures + 1
        wait = delay(BACKOFF, failures, chance).total_seconds()
        wait = max(wait, retry_after(error))
        over = error.code in REVOKING and entry.value is not None and entry.revoked is None
        self._entries[key] = replace(
            entry,
            failures=failures,
            retry=now + wait,
            error=error,
            revoked=now if over else entry.revoked,
        )
        self._forget_expired(key, now)
        return over

    def _forget_expired(self, key: Key, now: float) -> None:
        # What may not be used any longer isn't kept in memory either.
        entry = self._entries[key]
        over = entry.revoked is not None and now >= entry.revoked + self.rules.grace
        if entry.value is not None and (over or now - entry.fetched >= self.rules.max_stale):
            self._entries[key] = replace(entry, value=None)

    def forget(self, backend: str, name: str) -> None:
        """Drop all that is kept of a secret, as after it was put or its stages were moved."""
        for key in [k for k in self._entries if (k.backend, k.name) == (backend, name)]:
            del self._entries[key]

    def forget_backend(self, backend: str) -> None:
        """Drop all that came from a backend, as when its settings have changed."""
        for key in [k for k in self._entries if k.backend == backend]:
            del self._entries[key]

    def __iter__(self) -> Iterator[Key]:
        """All that something is known of."""
        return iter(tuple(self._entries))

    def due(self, key: Key) -> float:
        """When it is to be fetched the next time, monotonic seconds; 0 for at once."""
        entry = self._entries.get(key)
        if entry is None:
            return 0.0
        return max(entry.due, entry.retry) if entry.error is not None else entry.due


def retry_after(error: AtlasError) -> float:
    """Seconds that the backend asked to be left alone for; 0 when it did not say."""
    said = error.details.get("retry_after")
    if isinstance(said, bool) or not isinstance(said, int | float) or not said > 0:
        return 0.0
    return min(float(said), LONGEST_WAIT.total_seconds())
