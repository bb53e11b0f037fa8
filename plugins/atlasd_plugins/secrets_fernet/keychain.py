"""Where keys come from: four sources in a fixed order, joined into one ring."""

import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from atlasd.errors import AtlasError
from atlasd_plugins.secrets_fernet import guarded, passphrase
from atlasd_plugins.secrets_fernet.keys import Key, Ring, joined, parse, parse_words
from atlasd_plugins.secrets_fernet.keys import with_key as _with_key
from atlasd_plugins.secrets_fernet.keys import without_keys as _without_keys

VARIABLE_WARNING = (
    "the environment can be read in /proc and is inherited by programs; prefer a key file"
)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where each source would be, in the order in which they are asked."""

    credential: str
    """Name of the systemd credential."""
    file: Path
    """The key file: the only source that atlasd writes."""
    variable: str
    """Environment variable with keys."""
    passphrase_variable: str
    """Environment variable with a passphrase, or several, one a line."""
    salt: Path
    """The file with the passphrase's salt; its folder is the daemon's own."""


class Keychain:
    """The keys of all sources, read anew whenever a source has changed.

    Who changes the key file holds the store's write lock; so does who encrypts. Thus nobody
    encrypts with a key while another process takes it out.
    """

    def __init__(self, places: Places, environ: Mapping[str, str] | None = None) -> None:
        """`environ` is the process's own unless given."""
        self._places = places
        self._environ = os.environ if environ is None else environ
        self._lock = threading.Lock()
        self._read: tuple[object, Ring] | None = None
        self._derived: dict[tuple[str, passphrase.Parameters], Key] = {}

    @property
    def file(self) -> Path:
        """The key file."""
        return self._places.file

    def ring(self) -> Ring:
        """All keys. Raises `secret.key`: there is none, or a source is refused or damaged."""
        ring = self.ring_or_none()
        if ring is None:
            raise AtlasError(
                "secret.key",
                f"there is no key: {self._searched()}",
                hint="`atlasctl secret keygen` makes one; a ring that exists belongs to "
                f"{self.file}",
            )
        return ring

    def ring_or_none(self) -> Ring | None:
        """All keys, or None where no source has any. Raises `secret.key` as `ring`."""
        with self._lock:
            state = self._state()
            if self._read is None or self._read[0] != state:
                self._read = (state, joined(self._collect()))
            ring = self._read[1]
        return ring if ring.keys else None

    def add(self, key: Key, made: str) -> None:
        """Put a key first in the key file. The caller holds the store's write lock.

        Raises `secret.conflict` when it would not become the first of the ring, or the file
        cannot be written.
        """
        credential = self._credential()
        if credential is not None and guarded.signature(credential) is not None:
            raise AtlasError(
                "secret.conflict",
                f"the first key is that of the credential {self._places.credential!r}, which "
                "atlasd cannot write",
                hint="run `atlasctl secret keygen` as root where the unit's file is, restart "
                "atlasd, then rotate the keys",
            )
        text = self._file_text() or ""
        self._write(_with_key(text, key, made, str(self.file)))

    def drop(self, ids: Collection[str]) -> tuple[str, ...]:
        """Take keys out of the key file. The caller holds the store's write lock.

        The ids of those that were there. Raises `secret.conflict` when it cannot be written.
        """
        text = self._file_text()
        if text is None:
            return ()
        there = [key.id for key in parse(text, str(self.file))]
        gone = tuple(key_id for key_id in there if key_id in ids)
        if gone:
            self._write(_without_keys(text, gone, str(self.file)))
        return gone

    # --- the sources

    def _collect(self) -> list[Key]:
        keys: list[Key] = []
        credential = self._credential()
        if credential is not None:
            try:
                # systemd made it for this process alone; its mode can show an ACL as a group's.
                text = credential.read_bytes()
            except FileNotFoundError:
                pass
            except OSError as error:
                raise _unreadable(credential, error) from error
            else:
                source = f"credential {self._places.credential}"
                keys += parse(_text(text, str(credential)), str(credential), source=source)
        try:
            text_of_file = self._file_text()
        except PermissionError as error:
            # Under systemd the file may be root's alone, and be handed over as the credential.
            if not keys:
                raise _unreadable(self.file, error) from error
            text_of_file = None
        except OSError as error:
            raise _unreadable(self.file, error) from error
        if text_of_file is not None:
            keys += parse(text_of_file, str(self.file), source=f"file {self.file}")
        variable = self._environ.get(self._places.variable, "")
        keys += parse_words(variable, f"environment {self._places.variable}")
        return keys + self._from_passphrases()

    def _from_passphrases(self) -> list[Key]:
        phrases = self._passphrases()
        if not phrases:
            return []
        try:
            parameters = passphrase.parameters_in(self._places.salt)
        except OSError as error:
            raise _unreadable(self._places.salt, error) from error
        source = f"passphrase {self._places.passphrase_variable}"
        keys = []
        for phrase in phrases:
            known = (phrase, parameters)
            if known not in self._derived:
                self._derived[known] = passphrase.derive(phrase, parameters, source=source)
            keys.append(self._derived[known])
        return keys

    def _passphrases(self) -> list[str]:
        given = self._environ.get(self._places.passphrase_variable, "")
        return [line for line in given.splitlines() if line]

    def _credential(self) -> Path | None:
        folder = self._environ.get("CREDENTIALS_DIRECTORY", "")
        return Path(folder, self._places.credential) if folder else None

    def _file_text(self) -> str | None:
        owners = guarded.trusted_owners(self._places.salt.parent)
        try:
            data = guarded.read(self.file, owners)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _text(data, str(self.file))

    def _write(self, text: str) -> None:
        # A file that root makes for a daemon without root has to be the daemon's to be read.
        owner = os.geteuid()
        try:
            if owner == 0:
                owner = self._places.salt.parent.stat().st_uid
            self.file.parent.mkdir(parents=True, exist_ok=True)
            guarded.replace(self.file, text.encode(), owner=owner)
        except OSError as error:
            raise AtlasError(
                "secret.conflict",
                f"{self.file} cannot be written: {error.strerror}",
                hint="run the command as root, or as the user to whom the folder belongs",
                details={"reason": "not writable"},
            ) from error

    def _state(self) -> object:
        credential = self._credential()
        return (
            guarded.signature(credential) if credential else None,
            guarded.signature(self.file),
            # Who may own the file, and its folder's rights, decide as well.
            guarded.signature(self.file.parent),
            self._environ.get(self._places.variable, ""),
            self._passphrases() and (self._passphrases(), guarded.signature(self._places.salt)),
        )

    def _searched(self) -> str:
        places = self._places
        return (
            f"no credential {places.credential!r}, no file {self.file}, nothing in the variables "
            f"{places.variable} and {places.passphrase_variable}"
        )


def warning_of(key: Key) -> str:
    """Why the source of a key is weak, if it is."""
    kind = key.source.partition(" ")[0]
    return {"environment": VARIABLE_WARNING, "passphrase": passphrase.WARNING}.get(kind, "")


def _text(data: bytes, origin: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise AtlasError(
            "secret.key",
            f"{origin} is not a text of keys",
            hint="restore it from its copy: a key a line, in URL-safe base64",
        ) from None


def _unreadable(path: Path, error: OSError) -> AtlasError:
    return AtlasError(
        "secret.key",
        f"{path} cannot be read: {error.strerror}",
        hint="it has to belong to the daemon's user, or be handed over as a systemd credential",
    )
