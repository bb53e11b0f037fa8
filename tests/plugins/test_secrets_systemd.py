"""Credentials of systemd as secrets: read, listed, and nothing else."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atlasd.contracts.secrets import SecretStore, SecretValue
from atlasd.errors import AtlasError
from atlasd.testing import PlainContext
from atlasd_plugins.secrets_systemd import SystemdSettings, open_backend


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o500)
    for name, value in (("db", b"pass\x00word\n"), ("api.token", b"t"), ("secrets.key", b"k")):
        (folder / name).write_bytes(value)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


@pytest.fixture
async def store(folder: Path, context: PlainContext) -> AsyncIterator[SecretStore]:
    async with open_backend(SystemdSettings(), context) as opened:
        yield opened


async def refused(call: object) -> tuple[str, str]:
    with pytest.raises(AtlasError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.hint
    return caught.value.code, caught.value.message


async def test_a_credential_is_read_byte_for_byte(store: SecretStore) -> None:
    got = await store.get("db")
    assert got.value == SecretValue(b"pass\x00word\n")
    assert got.stages == ("current",)
    assert got.version == (await store.describe("db")).current
    assert (await store.get("db", version=got.version)).value == got.value


async def test_a_path_is_the_credential_with_dots(store: SecretStore) -> None:
    got = await store.get("api/token")
    assert (got.name, got.value) == ("api/token", SecretValue("t"))
    assert [info.name for info in await store.list("api/")] == ["api.token"]
    assert (await refused(store.get("secrets/key")))[0] == "secret.denied"
    assert (await refused(store.get("../credentials/db")))[0] == "secret.not_found"


async def test_a_new_credential_is_a_new_version(store: SecretStore, folder: Path) -> None:
    before = (await store.get("db")).version
    os.utime(folder / "db", ns=(1, 1))
    assert (await store.get("db")).version != before


async def test_the_keys_of_the_store_are_not_handed_on(store: SecretStore) -> None:
    assert [info.name for info in await store.list()] == ["api.token", "db"]
    assert [info.name for info in await store.list("a")] == ["api.token"]
    code, message = await refused(store.get("secrets.key"))
    assert (code, "atlasd's own" in message) == ("secret.denied", True)


@pytest.mark.parametrize("name", ["", "..", ".", "/", "./", "a b", "a\n"])
async def test_a_name_that_is_no_file_of_the_folder(store: SecretStore, name: str) -> None:
    assert (await refused(store.get(name)))[0] == "secret.invalid"


async def test_what_is_not_there(store: SecretStore, folder: Path) -> None:
    assert (await refused(store.get("nothing")))[0] == "secret.not_found"
    assert (await refused(store.get("db", version="1")))[0] == "secret.not_found"
    assert (await refused(store.get("db", stage="previous")))[0] == "secret.not_found"
    (folder / "link").symlink_to(folder / "db")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "fifo")
    for name in ("link", "sub", "fifo"):
        assert (await refused(store.get(name)))[0] == "secret.unavailable"
    assert [info.name for info in await store.list()] == ["api.token", "db"]


async def test_without_systemd_it_says_so(
    store: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    for call in (store.get("db"), store.list()):
        code, message = await refused(call)
        assert (code, "CREDENTIALS_DIRECTORY" in message) == ("secret.unavailable", True)


async def test_nothing_can_be_changed(store: SecretStore, folder: Path) -> None:
    for call in (
        store.put("db", SecretValue("v")),
        store.versions("db"),
        store.stage("db", "1", "current"),
        store.delete("db"),
        store.recover("db"),
    ):
        code, message = await refused(call)
        assert (code, "read only" in message) == ("secret.unsupported", True)
    assert (folder / "db").read_bytes() == b"pass\x00word\n"
