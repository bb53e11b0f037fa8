"""Keys of the ring: what each is called, and the text of the file that holds them."""

import base64
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import final

from cryptography.fernet import Fernet, InvalidToken

from atlasd.errors import AtlasError

_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
_EXPECTED = "expected a key: 32 bytes in URL-safe base64, 44 characters"

HEADER = """\
# The keys of atlasd's secrets, one a line. The first one encrypts, all of them decrypt.
# Without this file nobody can read the store, and whoever has both reads every secret:
# keep a copy of it, and keep it apart from the backups of the store.
"""


class UnreadableTokenError(Exception):
    """The token was not made with the key, or was changed."""


@final
class Key:
    """One key of the ring; its bytes do not print."""

    __slots__ = ("_fernet", "_text", "id", "source")

    def __init__(self, raw: bytes, *, source: str = "") -> None:
        """`raw` are 32 bytes; `source` says where they were found."""
        self._text = base64.urlsafe_b64encode(raw).decode()
        self._fernet = Fernet(self._text)
        self.id = fingerprint(raw)
        self.source = source

    def encrypt(self, data: bytes, at: int) -> bytes:
        """A token; `at` is the time that stands in it, in seconds since the epoch."""
        return self._fernet.encrypt_at_time(data, at)

    def decrypt(self, token: bytes) -> bytes:
        """What was encrypted. Raises `UnreadableTokenError`."""
        try:
            return self._fernet.decrypt(token)
        except InvalidToken:
            raise UnreadableTokenError from None

    def text(self) -> str:
        """The key itself, as the ring file has it."""
        return self._text

    def __repr__(self) -> str:
        return f"Key({self.id})"


def fingerprint(raw: bytes) -> str:
    """The id of a key, 16 hexadecimal digits.

    A hash of its own kind: no other use of the key yields it, and it says nothing of the key.
    """
    return hashlib.blake2b(raw, digest_size=8, person=b"atlasd key id v1").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Ring:
    """All keys at hand, in the order of their sources; the first one encrypts."""

    keys: tuple[Key, ...]

    @property
    def primary(self) -> Key:
        """The key that encrypts."""
        return self.keys[0]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys."""
        return tuple(key.id for key in self.keys)

    def find(self, key_id: str) -> Key | None:
        """The key of this id."""
        return next((key for key in self.keys if key.id == key_id), None)


def joined(keys: Sequence[Key]) -> Ring:
    """A ring in which each key stands once, where it came first."""
    first: dict[str, Key] = {}
    for key in keys:
        first.setdefault(key.id, key)
    return Ring(keys=tuple(first.values()))


# --- the text of a ring file: blocks of comments, each ended by its key


@dataclass(frozen=True, kw_only=True)
class _Block:
    """The lines that belong to one key: comments and blanks before it, and itself."""

    lines: tuple[str, ...]
    key: Key


def parse(text: str, origin: str, *, source: str = "") -> list[Key]:
    """The keys in a ring file's text, in their order.

    Raises `secret.key` with the line, and never its content, for what is no key.
    """
    _, blocks, _ = _split(text, origin, source or origin)
    return [block.key for block in blocks]


def parse_words(text: str, origin: str) -> list[Key]:
    """The keys in a variable, with spaces, commas or newlines between them."""
    return [_key(word, origin, origin) for word in re.split(r"[\s,]+", text) if word]


def with_key(text: str, key: Key, made: str, origin: str) -> str:
    """The text with a new first key, `made` at this time; comments are kept."""
    header, blocks, rest = _split(text, origin, origin)
    lines = [header or f"{HEADER}\n", f"# {key.id} made {made}\n", f"{key.text()}\n"]
    lines += [line for block in blocks for line in block.lines]
    return "".join([*lines, *rest])


def without_keys(text: str, ids: Collection[str], origin: str) -> str:
    """The text without some keys and the comments above them."""
    header, blocks, rest = _split(text, origin, origin)
    kept = [line for block in blocks if block.key.id not in ids for line in block.lines]
    return "".join([header, *kept, *rest])


def _split(text: str, origin: str, source: str) -> tuple[str, list[_Block], list[str]]:
    """What stands before the first blank line if no key does, the blocks, and what follows."""
    header: list[str] = []
    blocks: list[_Block] = []
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        lines.append(f"{line}\n")
        word = line.partition("#")[0].strip()
        if word:
            key = _key(word, f"{origin}:{number}", source)
            blocks.append(_Block(lines=tuple(lines), key=key))
            lines = []
        elif not line.strip() and not blocks and not header:
            header, lines = lines, []
    return "".join(header), blocks, lines


def _key(word: str, where: str, source: str) -> Key:
    if not _KEY.fullmatch(word):
        raise AtlasError(
            "secret.key",
            f"{where}: {_EXPECTED}; this is something else",
            hint="`atlasctl secret keygen` makes keys; a damaged file is restored from its copy",
        )
    return Key(base64.urlsafe_b64decode(word), source=source)
