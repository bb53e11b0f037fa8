"""What a secret backend promises: named, versioned values that nothing prints."""

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NoReturn, Protocol, final, runtime_checkable

from pydantic import BaseModel

from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import NoSettings

CURRENT = "current"
PREVIOUS = "previous"
PENDING = "pending"
STAGES = (CURRENT, PREVIOUS, PENDING)
"""Labels of versions, each on one version of a secret at most (as AWS names them, in its SDK's
spelling `AWSCURRENT` and so on). A backend maps them to its own words."""


@final
class SecretValue:
    """A secret's bytes, in a type that does not print, format, pickle or copy into a log.

    Two values are compared in constant time. `reveal` and `text` are the only ways to the bytes:
    search for their callers to see where a secret leaves this type.
    """

    __slots__ = ("_raw",)

    def __init__(self, value: str | bytes) -> None:
        self._raw = value.encode() if isinstance(value, str) else bytes(value)

    def reveal(self) -> bytes:
        """The value itself."""
        return self._raw

    def text(self) -> str:
        """The value as text. Raises `ValueError`, without the value, when it is not UTF-8."""
        try:
            return self._raw.decode()
        except UnicodeDecodeError:
            raise ValueError("the secret is not UTF-8 text") from None

    def __len__(self) -> int:
        return len(self._raw)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretValue):
            return NotImplemented
        return hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        return hash((SecretValue, self._raw))

    def __repr__(self) -> str:
        return "SecretValue(...)"

    def __str__(self) -> str:
        return "[secret]"

    def __format__(self, spec: str) -> str:
        return "[secret]"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretValue is never pickled")


class Capability(StrEnum):
    """What a backend can do beyond reading; what it can't is refused by this name."""

    PUT = "put"
    LIST = "list"
    VERSIONS = "versions"
    """Old versions can be listed and read."""
    STAGE = "stage"
    """Stages can be moved between versions: promotion and rollback."""
    DELETE = "delete"
    RECOVER = "recover"
    """A deleted secret can be had back until its recovery window ends."""
    KEYS = "keys"
    """It has a key ring of its own: see `KeyRing`."""
    SEAL = "seal"
    """It can encrypt values that stand in configuration files (`enc:v1:…`): see `Sealer`."""


@dataclass(frozen=True, kw_only=True)
class SecretVersion:
    """One version of a secret; `value` is there only where it was asked for."""

    name: str
    version: str
    """The backend's own id of the version; opaque, unique for the secret."""
    stages: tuple[str, ...] = ()
    created: datetime | None = None
    created_by: str = ""
    """Who put it, where the backend knows: `uid:0`."""
    enabled: bool = True
    key: str = ""
    """Id of the key that protects it, where the backend knows."""
    value: SecretValue | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class SecretInfo:
    """What is known of a secret without reading it."""

    name: str
    current: str = ""
    """Id of the current version; empty where there is none or the backend does not tell."""
    created: datetime | None = None
    changed: datetime | None = None
    versions: int | None = None
    deleted: datetime | None = None
    """When it was deleted, for one that can still be recovered."""
    recoverable_until: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class SecretStore(Protocol):
    """A backend that has been opened, for one environment.

    Errors are `AtlasError`s of these codes, the name in the message and never a value:

    - `secret.not_found`: no such secret, version or stage; also for one that is deleted;
    - `secret.disabled`: it exists and may not be used (disabled, expired, not yet valid);
    - `secret.denied`: the credentials don't allow it;
    - `secret.unavailable`: the backend does not answer, for now;
    - `secret.throttled`: too many calls; `details["retry_after"]` in seconds where it said so;
    - `secret.corrupt`: what is stored is not what was put: truncated, changed, swapped;
    - `secret.key`: the key that is needed is missing or wrong;
    - `secret.conflict`: the present state does not allow it (a name that is taken or deleted);
    - `secret.unsupported`: the backend can't do that (see `SecretBackend.capabilities`);
    - `secret.invalid`: a name or value that it cannot have.

    Of these only `unavailable` and `throttled` are worth another try.
    """

    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        """One version, with its value: `version` by its id if given, else the one at `stage`."""

    async def describe(self, name: str) -> SecretInfo:
        """What is known of it, deleted ones included; nothing is decrypted."""

    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        """Store a new version and put `stage` on it; the secret is made if there is none.

        With `current`, what was current becomes `previous`. Once it returns, it is durable.
        """

    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        """All secrets whose name starts so, by name; deleted but recoverable ones included."""

    async def versions(self, name: str) -> Sequence[SecretVersion]:
        """All versions without their values, the newest first."""

    async def stage(self, name: str, version: str, stage: str) -> None:
        """Move a stage to a version. Moving `current` moves `previous` to the one that had it."""

    async def delete(self, name: str, *, recovery: timedelta | None = None) -> SecretInfo:
        """Delete it, for good with a `recovery` of zero.

        With RECOVER it can be had back for `recovery`, the backend's own default when None.
        """

    async def recover(self, name: str) -> SecretInfo:
        """Have a deleted secret back, all versions and stages as they were."""


@dataclass(frozen=True, kw_only=True)
class KeyInfo:
    """One key of a ring; never the key itself."""

    id: str
    """Short and stable, a fingerprint of the key."""
    primary: bool
    """The one that encrypts."""
    source: str
    """Where it was read: `credential secrets.key`, `file /etc/…`, `environment`, `passphrase`."""
    warning: str = ""
    """Why the source is weak, if it is."""
    records: int = 0
    """How many records it still protects; a key with none can be retired."""


@dataclass(frozen=True, kw_only=True)
class KeyProgress:
    """How far a re-wrapping has come."""

    done: int
    total: int
    retired: tuple[str, ...] = ()
    """Ids of keys that no record needs any longer and that were taken out of the ring."""


@runtime_checkable
class KeyRing(Protocol):
    """What a store with `Capability.KEYS` has beside `SecretStore`."""

    async def keys(self) -> Sequence[KeyInfo]:
        """The keys of the ring, the primary one first."""

    async def keygen(self) -> KeyInfo:
        """Make a new key, put it first in the ring and keep the others.

        Raises `secret.conflict` when the ring comes from a source that cannot be written.
        """

    async def rotate_keys(
        self, progress: Callable[[KeyProgress], None] = ..., *, retire: bool = True
    ) -> KeyProgress:
        """Re-wrap every record with the primary key; then, with `retire`, drop the other keys.

        It may run while secrets are read and put, be killed at any point and be run again: what
        was done stays done, and nothing is unreadable in between.
        """


@runtime_checkable
class Sealer(Protocol):
    """What a store with `Capability.SEAL` has beside `SecretStore`."""

    async def seal(self, value: SecretValue, *, binding: str) -> str:
        """`enc:v1:<key-id>:<token>`, bound to `binding` (key path) and the environment."""

    async def unseal(self, text: str, *, binding: str) -> SecretValue:
        """What `seal` was given.

        Raises `secret.corrupt` for a token that was sealed for another place or environment, or
        was changed, and `secret.key` when its key isn't in the ring.
        """


@dataclass(frozen=True, kw_only=True)
class SecretBackend:
    """A kind of place where secrets are kept, as `register_secret_backends` returns it."""

    name: str
    """What configuration says: `secret://fernet/…`, `type = "fernet"`."""
    summary: str
    """One line for `atlasctl plugins`."""
    open: Callable[[Any, PluginContext], AbstractAsyncContextManager[SecretStore]]
    """Called with the validated settings, for the environment `context.environment`. A backend
    that is down, or has no key yet, must not keep it from opening: its calls say so."""
    capabilities: frozenset[Capability] = frozenset()
    """What it can do beside `get` and `describe`."""
    local: bool = False
    """Whether the secrets lie on this host, so that an outage of something else cannot keep them
    away: no last known good value of them is kept on disk beside them."""
    settings: type[BaseModel] = NoSettings
    """Of the table `[secrets.backends.NAME]`, beside `type`. One whose settings all have defaults
    can be used under its own name without a table."""
    requires: tuple[str, ...] = ()
    """Modules that `open` imports; looked for when the plugin is admitted."""
    extra: str = ""
    """The extra of atlasd that brings them: `pip install 'atlasd[extra]'`."""


class Rotator(Protocol):
    """The steps of one rotation that know the system behind a secret (a database's password).

    `create` gives the value to be tried; the others raise `AtlasError` to refuse. Each may run
    again after a crash: the same value must then be welcome.
    """

    async def create(self, name: str, current: SecretValue | None) -> SecretValue:
        """A new value."""

    async def set(self, name: str, pending: SecretValue, current: SecretValue | None) -> None:
        """Have the system accept the new value beside the current one."""

    async def test(self, name: str, pending: SecretValue) -> None:
        """Prove that the system takes the new value; raising leaves the current one in force."""

    async def retire(self, name: str, previous: SecretValue) -> None:
        """Have the system refuse the old value: called when the overlap is over."""


@dataclass(frozen=True, kw_only=True)
class RotatorType:
    """A way to rotate secrets, as `register_secret_rotators` returns it."""

    name: str
    """What configuration says: `rotator = "postgres"`."""
    summary: str
    open: Callable[[Any, PluginContext], AbstractAsyncContextManager[Rotator]]
    settings: type[BaseModel] = NoSettings
    requires: tuple[str, ...] = ()
    extra: str = ""


# --- between the configuration, which finds references, and the engine, which has the values


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """`secret://[backend/]name[@selector][#field]`, as far as it says which value is meant."""

    name: str
    backend: str = ""
    """Empty: the default backend of the environment."""
    selector: str = ""
    """A stage (`current`, `previous`, `pending`) or the id of a version; empty: current."""
    field: str = ""
    """A member of the JSON object that the value is; empty: the whole value."""

    def __str__(self) -> str:
        place = f"{self.backend}/{self.name}" if self.backend else self.name
        selector = f"@{self.selector}" if self.selector else ""
        part = f"#{self.field}" if self.field else ""
        return f"secret://{place}{selector}{part}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sealed:
    """An inline encrypted value, and the place that it is bound to."""

    text: str = field(repr=False)
    binding: str


@dataclass(frozen=True, kw_only=True)
class SecretsPolicy:
    """`[secrets]` of a configuration, as plain values: which backends there are, and the rules."""

    environment: str
    backend: str = "fernet"
    """Name of the default backend."""
    backends: Mapping[str, tuple[str, BaseModel]] = field(default_factory=dict, repr=False)
    """By name: the type of the backend, and its validated settings."""
    fresh_for: timedelta = timedelta(minutes=5)
    max_stale: timedelta = timedelta(hours=24)
    revocation_grace: timedelta = timedelta(0)
    fail_closed: bool = False
    """Whether a secret that cannot be entered in the audit log is refused."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a reference or a sealed value stands for."""

    value: SecretValue
    backend: str = ""
    version: str = ""
    fetched: datetime | None = None
    stale: bool = False
    """Served from before, since the backend does not answer."""


class Resolve(Protocol):
    """How the configuration asks for secrets; blocking, called from a thread."""

    def __call__(
        self, policy: SecretsPolicy, wanted: Sequence[Reference | Sealed], /
    ) -> Mapping[Reference | Sealed, "Resolved | Exception"]:
        """For each what it stands for, or the `AtlasError` that says why not. Never raises."""


Fetch = Callable[[Reference], Awaitable[Resolved]]
"""The engine's own way to one value, for what runs in its loop."""
