"""The last known good value of each secret, encrypted on disk, for a start during an outage.

A file for each, so that one that is damaged costs only itself. It is encrypted with AES-GCM and
bound to its environment, its backend with all settings, its name and selector, by a key that is
made of a key file in another folder and of the host's machine id: a copy of this folder alone, or
of the state folder without /etc/machine-id, gives nothing away. Who is root here can read it, as
he can read the daemon's memory.

Two roles share the folder. The one that fetches holds the secret's lock, and the other one finds
what was fetched: a secret is fetched once for the host.
"""

import base64
import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from atlasd.contracts.secrets import SecretValue, SecretVersion
from atlasd.secrets.cache import Key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12
_LOCKS = 16
_MACHINE_ID = Path("/etc/machine-id")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the disk knows of a secret."""

    value: SecretVersion = field(repr=False)
    fetched: float
    """Wall time, seconds since the epoch."""


class LastKnown:
    """The folder of one host. Its methods block: call them from a thread."""

    def __init__(
        self,
        folder: Path,
        key: Callable[[], bytes],
        *,
        machine: bytes = b"",
        place: tuple[str, ...] = (),
    ) -> None:
        """`key` gives the key file's bytes when first needed; `machine` names the host."""
        self._folder = folder
        self._place = place
        self._key = key
        self._machine = machine
        self._keys: tuple[bytes, bytes] | None = None

    def at(self, *place: str) -> "LastKnown":
        """The values of one place: an environment, and a backend with its settings."""
        return LastKnown(self._folder, self._key, machine=self._machine, place=place)

    def keep(self, key: Key, value: SecretVersion, fetched: float) -> None:
        """Write what was fetched at that wall time. Raises `OSError`, `AtlasError`."""
        assert value.value is not None
        body = {
            "version": value.version,
            "stages": list(value.stages),
            "fetched": fetched,
            "value": base64.b64encode(value.value.reveal()).decode(),
        }
        nonce = secrets.token_bytes(_NONCE)
        sealed = nonce + self._cipher().encrypt(
            nonce, json.dumps(body).encode(), self._binding(key)
        )
        path = self._path(key)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(descriptor)
            fresh.rename(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise

    def find(self, key: Key) -> Found | None:
        """What is known; None for nothing, and for what cannot be read: it is only a copy."""
        from cryptography.exceptions import InvalidTag

        path = self._path(key)
        try:
            sealed = path.read_bytes()
            nonce, token = sealed[:_NONCE], sealed[_NONCE:]
            body = json.loads(self._cipher().decrypt(nonce, token, self._binding(key)))
        except FileNotFoundError:
            return None
        except (OSError, InvalidTag, ValueError) as error:
            reason = str(error) or "it was changed, or belongs to another host or key"
            _log.warning("last known value of secret %r is of no use: %s", key.name, reason)
            return None
        return Found(
            value=SecretVersion(
                name=key.name,
                version=body["version"],
                stages=tuple(body["stages"]),
                value=SecretValue(base64.b64decode(body["value"])),
            ),
            fetched=body["fetched"],
        )

    def drop(self, key: Key) -> None:
        """Forget a secret, as when it was revoked."""
        path = self._path(key)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()

    @contextmanager
    def turn(self, key: Key) -> Iterator[bool]:
        """Whether it is this role's turn to fetch; False while another one does."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = int(self._name(key)[:8], 16) % _LOCKS
        path = self._folder / f".lock-{number}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)

    def _path(self, key: Key) -> Path:
        return self._folder / self._name(key)

    def _name(self, key: Key) -> str:
        # Names of secrets say what a host has to do with; they aren't written plainly.
        names = self._both()[1]
        return hmac.new(names, self._binding(key), hashlib.sha256).hexdigest()[:40]

    def _binding(self, key: Key) -> bytes:
        return json.dumps([*self._place, *key]).encode()

    def _cipher(self) -> "AESGCM":
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._both()[0])

    def _both(self) -> tuple[bytes, bytes]:
        """The key of the values, and that of the files' names."""
        if self._keys is None:
            root = hmac.new(self._machine, self._key(), hashlib.sha256).digest()
            self._keys = (
                hmac.new(root, b"atlasd last-known values 1", hashlib.sha256).digest(),
                hmac.new(root, b"atlasd last-known names 1", hashlib.sha256).digest(),
            )
        return self._keys


def machine_id() -> bytes:
    """What tells this host from others; empty where nobody says."""
    try:
        return _MACHINE_ID.read_bytes().strip()
    except OSError:
        return b""
