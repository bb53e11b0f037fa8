"""A key made of a passphrase by Argon2id, and the file with its salt and parameters."""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from atlasd.errors import AtlasError
from atlasd_plugins.secrets_fernet.guarded import sync_folder
from atlasd_plugins.secrets_fernet.keys import Key

# RFC 9106, the second recommended choice: 64 MiB, three passes, four lanes.
MEMORY_KIB = 64 * 1024
ITERATIONS = 3
LANES = 4

WARNING = "a passphrase can be guessed by whoever has the store; prefer a key file"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What has to be known beside the passphrase."""

    salt: bytes
    memory_kib: int = MEMORY_KIB
    iterations: int = ITERATIONS
    lanes: int = LANES


def derive(passphrase: str, parameters: Parameters, *, source: str) -> Key:
    """The key; takes a fifth of a second and 64 MiB. Raises `secret.key` without Argon2id."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    try:
        raw = Argon2id(
            salt=parameters.salt,
            length=32,
            iterations=parameters.iterations,
            lanes=parameters.lanes,
            memory_cost=parameters.memory_kib,
        ).derive(passphrase.encode())
    except UnsupportedAlgorithm:
        raise AtlasError(
            "secret.key",
            "the OpenSSL that Python's cryptography was built with has no Argon2id: no key can be "
            "made of a passphrase",
            hint="use a key file, or install cryptography's own wheel",
        ) from None
    return Key(raw, source=source)


def parameters_in(path: Path) -> Parameters:
    """The parameters in a file; it is made, with a new salt, where there is none.

    Raises `secret.key` for one that is damaged, and `OSError` for one that cannot be used.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        _make(path)
        data = path.read_bytes()
    try:
        found = json.loads(data)
        parameters = Parameters(
            salt=bytes.fromhex(found["salt"]),
            memory_kib=found["memory_kib"],
            iterations=found["iterations"],
            lanes=found["lanes"],
        )
        # What stands there is not secret, and whoever can change it shall not take all memory.
        sound = (
            len(parameters.salt) >= 16
            and MEMORY_KIB <= parameters.memory_kib <= 16 * MEMORY_KIB
            and ITERATIONS <= parameters.iterations <= 100
            and 1 <= parameters.lanes <= 64
        )
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise AtlasError(
            "secret.key",
            f"{path} is damaged: the salt of the passphrase cannot be read from it",
            hint="restore it from a backup of the store; without it the passphrase is no key",
        )
    return parameters


def _make(path: Path) -> None:
    new = Parameters(salt=os.urandom(16))
    text = json.dumps(
        {
            "kdf": "argon2id",
            "salt": new.salt.hex(),
            "memory_kib": new.memory_kib,
            "iterations": new.iterations,
            "lanes": new.lanes,
        }
    )
    place = path.with_name(f".{path.name}.{os.getpid()}.new")
    place.unlink(missing_ok=True)
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            if os.geteuid() == 0:
                os.fchown(descriptor, path.parent.stat().st_uid, -1)
            file.write(f"{text}\n")
            file.flush()
            os.fsync(descriptor)
        # Another process may have been quicker: its salt is then the one.
        with contextlib.suppress(FileExistsError):
            os.link(place, path)
    finally:
        place.unlink(missing_ok=True)
    sync_folder(path.parent)
