"""A store with a key, and its folders."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atlasd_plugins.secrets_fernet.store import FernetStore
from tests.plugins.secrets_fernet.stores import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in ("CREDENTIALS_DIRECTORY", "ATLASD_SECRETS_KEY", "ATLASD_SECRETS_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    return Home(tmp_path)


@pytest.fixture
async def store(home: Home) -> AsyncIterator[FernetStore]:
    async with home.open() as opened:
        await opened.keygen()
        yield opened
