"""What is encrypted, and to what it is bound: Fernet itself knows no associated data."""

import json
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from atlasd.errors import AtlasError
from atlasd_plugins.secrets_fernet.keys import Key, Ring, UnreadableTokenError

_INLINE = re.compile(r"enc:v1:([A-Za-z0-9_.-]+):([A-Za-z0-9_-]+={0,2})")

RESTORE = "restore the store from a backup, or put the secret anew with `atlasctl secret set`"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which version of which secret a record is; the same stands inside its encrypted parts."""

    environment: str
    name: str
    number: int

    def __str__(self) -> str:
        return f"secret {self.name!r}, version {self.number}, environment {self.environment!r}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One version as it is stored."""

    place: Place
    key_fingerprint: str
    wrapped_key: bytes = field(repr=False)
    """The version's own data key, encrypted with a key of the ring."""
    token: bytes = field(repr=False)
    """The value, encrypted with the data key."""
    created: float
    created_by: str

    @property
    def time(self) -> datetime:
        """When it was put."""
        return datetime.fromtimestamp(self.created, tz=UTC)


def encrypted(key: Key, place: Place, value: bytes, *, at: float, by: str) -> Record:
    """A record of the value, under a data key of its own."""
    raw = os.urandom(32)
    data_key = Key(raw)
    return Record(
        place=place,
        key_fingerprint=key.id,
        wrapped_key=key.encrypt(_bound("data key", place) + raw, int(at)),
        token=data_key.encrypt(_bound("secret", place) + value, int(at)),
        created=at,
        created_by=by,
    )


def decrypted(ring: Ring, record: Record) -> bytes:
    """The value of a record.

    Raises `secret.key` when its key is not in the ring, and `secret.corrupt` when it was changed,
    or put in the place of another one.
    """
    data_key = Key(_data_key(ring, record))
    try:
        body = data_key.decrypt(record.token)
    except UnreadableTokenError:
        raise _corrupt(record.place, "its value was changed, or is another record's") from None
    return _unbound("secret", record.place, body)


def rewrapped(ring: Ring, record: Record) -> Record:
    """The same record with its data key under the ring's primary key. Raises as `decrypted`."""
    raw = _data_key(ring, record)
    wrapped = ring.primary.encrypt(_bound("data key", record.place) + raw, int(record.created))
    return Record(
        place=record.place,
        key_fingerprint=ring.primary.id,
        wrapped_key=wrapped,
        token=record.token,
        created=record.created,
        created_by=record.created_by,
    )


def _data_key(ring: Ring, record: Record) -> bytes:
    key = ring.find(record.key_fingerprint)
    if key is None:
        raise missing_key(record.key_fingerprint, ring, str(record.place))
    try:
        body = key.decrypt(record.wrapped_key)
    except UnreadableTokenError:
        raise _corrupt(record.place, "its data key was changed, or is another key's") from None
    raw = _unbound("data key", record.place, body)
    if len(raw) != 32:
        raise _corrupt(record.place, "its data key has the wrong length")
    return raw


def missing_key(key_id: str, ring: Ring, what: str) -> AtlasError:
    """The error for something that is encrypted with a key which the ring does not have."""
    return AtlasError(
        "secret.key",
        f"{what}: its key {key_id} is not in the ring, which has {', '.join(ring.ids)}",
        hint="put the key back into the key file from its copy; `atlasctl secret check` shows "
        "which keys are needed",
        details={"key": key_id},
    )


# --- the first line of every encrypted body says what it is and where it belongs


def _bound(kind: str, place: Place) -> bytes:
    return _line(
        kind=kind, environment=place.environment, name=place.name, version=str(place.number)
    )


def _line(**binding: str) -> bytes:
    return json.dumps(binding, sort_keys=True).encode() + b"\n"


def _unbound(kind: str, place: Place, body: bytes) -> bytes:
    expected = _bound(kind, place)
    if body.startswith(expected):
        return body[len(expected) :]
    try:
        found = json.loads(body.partition(b"\n")[0])
        words = f"version {found['version']} of {found['name']!r}, {found['environment']!r}"
    except (ValueError, TypeError, KeyError):
        words = "something else"
    raise _corrupt(place, f"what is stored in its place belongs to {words}")


def _corrupt(place: Place, why: str) -> AtlasError:
    return AtlasError("secret.corrupt", f"{place}: {why}", hint=RESTORE)


# --- values that stand in configuration files


def sealed(key: Key, value: bytes, *, environment: str, binding: str, at: float) -> str:
    """`enc:v1:<key-id>:<token>`, good for one key of one environment's configuration."""
    line = _line(kind="sealed", environment=environment, binding=binding)
    return f"enc:v1:{key.id}:{key.encrypt(line + value, int(at)).decode()}"


def unsealed(ring: Ring, text: str, *, environment: str, binding: str) -> bytes:
    """The value of a sealed text that stands at `binding`.

    Raises `secret.key` when its key is not in the ring, and `secret.corrupt` when it was changed
    or sealed for another place.
    """
    again = "write the value there in plain and seal it with `atlasctl config encrypt`"
    form = _INLINE.fullmatch(text)
    if form is None:
        raise AtlasError(
            "secret.corrupt",
            f"what stands at {binding} is not a whole sealed value: enc:v1:<key-id>:<token>",
            hint=again,
        )
    key = ring.find(form[1])
    if key is None:
        raise missing_key(form[1], ring, f"the sealed value at {binding}")
    try:
        body = key.decrypt(form[2].encode())
    except UnreadableTokenError:
        raise AtlasError(
            "secret.corrupt",
            f"the sealed value at {binding} was changed: it is not what was sealed",
            hint=again,
        ) from None
    expected = _line(kind="sealed", environment=environment, binding=binding)
    if body.startswith(expected):
        return body[len(expected) :]
    try:
        found = json.loads(body.partition(b"\n")[0])
        words = f"{found['binding']} in environment {found['environment']!r}"
    except (ValueError, TypeError, KeyError):
        words = "another purpose"
    raise AtlasError(
        "secret.corrupt",
        f"the sealed value at {binding} in environment {environment!r} was sealed for {words}: "
        "it cannot be copied or moved",
        hint=again,
    )
