"""A fernet store in a folder of its own, and looks at what lies on its disk."""

import re
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from atlasd.clock import Clock, HandClock
from atlasd.contracts.secrets import SecretValue
from atlasd.errors import AtlasError
from atlasd.testing import PlainContext
from atlasd_plugins.secrets_fernet import FernetSettings, open_backend
from atlasd_plugins.secrets_fernet.keys import Key, UnreadableTokenError, parse
from atlasd_plugins.secrets_fernet.store import FernetStore

LONGEST_DATA_KEY = 300
"""Bytes that a wrapped data key may have, with the short names that the tests use."""


class Home:
    """The folders of one store; any number of openers at a time, as different processes are."""

    def __init__(self, folder: Path) -> None:
        self.etc = folder / "etc"
        self.state = folder / "state"
        self.clock: Clock = HandClock()
        self.etc.mkdir(mode=0o700)
        self.state.mkdir(mode=0o700)

    @property
    def ring(self) -> Path:
        return self.etc / "secrets.key"

    @property
    def file(self) -> Path:
        return self.state / "secrets.db"

    @asynccontextmanager
    async def open(
        self, *, environment: str = "production", **settings: Any
    ) -> AsyncIterator[FernetStore]:
        context = PlainContext(
            self.state, clock=self.clock, environment=environment, config_dir=self.etc
        )
        try:
            async with open_backend(FernetSettings(**settings), context) as store:
                assert isinstance(store, FernetStore)
                yield store
        finally:
            context.close()

    def in_ring(self) -> list[Key]:
        """What is in the ring file."""
        return parse(self.ring.read_text(), str(self.ring))

    def raw(self) -> bytes:
        """Everything that the store has on the disk, its log included."""
        return b"".join(path.read_bytes() for path in sorted(self.state.iterdir()))

    def openable(self, key: Key) -> int:
        """How many places in the raw store hold something that a key of the ring opens."""
        raw = self.raw()
        return sum(
            _opens(key, raw[at.start() : at.start() + LONGEST_DATA_KEY])
            for at in re.finditer(rb"gAAAA[A-Za-z0-9_-]+", raw)
        )


def _opens(key: Key, text: bytes) -> bool:
    token = re.match(rb"[A-Za-z0-9_-]+={0,2}", text)
    assert token is not None
    # What follows in the page may look like a part of it: each length that a token can have.
    for length in range(100, len(token[0]) + 1, 4):
        try:
            key.decrypt(token[0][:length])
        except UnreadableTokenError:
            continue
        return True
    return False


def failing(code: str, *words: str) -> "pytest.RaisesExc[AtlasError]":
    """Expect an error of a code, with words in its message."""

    def fits(error: AtlasError) -> bool:
        return error.code == code and all(word in error.message for word in words)

    return pytest.RaisesExc(AtlasError, check=fits)


async def text_of(store: FernetStore, name: str, **which: str) -> str:
    """A secret's value."""
    value = (await store.get(name, **which)).value
    assert value is not None
    return value.text()


async def outcome(call: Awaitable[Any]) -> str:
    """What a call comes to: the text of a value, or the code of an error."""
    try:
        answer = await call
    except AtlasError as error:
        return error.code
    value = getattr(answer, "value", answer)
    return value.text() if isinstance(value, SecretValue) else str(answer)
