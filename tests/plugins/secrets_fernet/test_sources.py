"""Where keys come from: their order, who may read them, and what is said of each."""

import json
import os
import stat
from pathlib import Path

import pytest

from atlasd.contracts.secrets import SecretValue
from atlasd_plugins.secrets_fernet import passphrase
from atlasd_plugins.secrets_fernet.keys import Key
from atlasd_plugins.secrets_fernet.store import FernetStore
from tests.plugins.secrets_fernet.stores import Home, failing, text_of

ROOT = os.geteuid() == 0


def key_file(path: Path, *keys: Key, mode: int = 0o400) -> None:
    path.unlink(missing_ok=True)
    path.write_text("".join(f"{key.text()}\n" for key in keys))
    path.chmod(mode)


async def test_without_a_key_everything_that_needs_one_says_where_it_looked(home: Home) -> None:
    async with home.open() as store:
        for call in (
            store.put("db", SecretValue("v")),
            store.seal(SecretValue("v"), binding="a"),
            store.unseal("enc:v1:0000:gAAAA", binding="a"),
            store.rotate_keys(),
        ):
            with failing(
                "secret.key",
                "credential 'secrets.key'",
                str(home.ring),
                "ATLASD_SECRETS_KEY",
                "ATLASD_SECRETS_PASSPHRASE",
            ):
                await call
    assert not home.ring.exists()


async def test_the_order_of_the_sources_is_kept_and_shown(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, two, three = (Key(bytes([number]) * 32) for number in (1, 2, 3))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "secrets.key").write_text(f"{one.text()}\n")
    key_file(home.ring, two, one)
    monkeypatch.setenv("ATLASD_SECRETS_KEY", f"{three.text()} {two.text()}")
    monkeypatch.setenv("ATLASD_SECRETS_PASSPHRASE", "correct horse battery staple")
    async with home.open() as store:
        keys = await store.keys()
        assert [(key.id, key.source, key.primary) for key in keys[:3]] == [
            (one.id, "credential secrets.key", True),
            (two.id, f"file {home.ring}", False),
            (three.id, "environment ATLASD_SECRETS_KEY", False),
        ]
        assert keys[3].source == "passphrase ATLASD_SECRETS_PASSPHRASE"
        assert [bool(key.warning) for key in keys[:2]] == [False, False]
        assert "/proc" in keys[2].warning
        assert "guessed" in keys[3].warning
        put = await store.put("db", SecretValue("v"))
        assert put.key == one.id


async def test_a_passphrase_is_a_key_as_long_as_its_salt_is_there(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATLASD_SECRETS_PASSPHRASE", "correct horse battery staple")
    salt = home.state / "secrets.db.salt"
    async with home.open() as store:
        await store.put("db", SecretValue("v"))
    found = json.loads(salt.read_text())
    assert (found["kdf"], found["memory_kib"], found["iterations"]) == ("argon2id", 65536, 3)
    assert len(bytes.fromhex(found["salt"])) == 16
    async with home.open() as store:
        assert await text_of(store, "db") == "v"
    monkeypatch.setenv("ATLASD_SECRETS_PASSPHRASE", "correct horse battery stable")
    async with home.open() as store:
        with failing("secret.key", "not in the ring"):
            await store.get("db")
        with failing("secret.key", "needs"):
            await store.put("db", SecretValue("w"))
    # The new passphrase first, the old one below it: then keys can be rotated.
    monkeypatch.setenv("ATLASD_SECRETS_PASSPHRASE", "a new one\ncorrect horse battery staple")
    async with home.open() as store:
        assert (await store.rotate_keys()).done == 1
        assert "take it out" in (await store.keys())[1].warning
    monkeypatch.setenv("ATLASD_SECRETS_PASSPHRASE", "a new one")
    async with home.open() as store:
        assert await text_of(store, "db") == "v"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"salt": "00", "memory_kib": 65536, "iterations": 3, "lanes": 4}',
     '{"salt": "%s", "memory_kib": 99999999, "iterations": 3, "lanes": 4}' % ("00" * 16),
     '{"salt": "%s", "memory_kib": 8, "iterations": 3, "lanes": 4}' % ("00" * 16)],
)  # fmt: skip
async def test_a_damaged_salt_is_said_to_be(
    home: Home, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("ATLASD_SECRETS_PASSPHRASE", "correct horse battery staple")
    salt = home.state / "secrets.db.salt"
    salt.write_text(text)
    async with home.open() as store:
        with failing("secret.key", str(salt), "damaged"):
            await store.put("db", SecretValue("v"))
    assert salt.read_text() == text


def test_the_same_passphrase_is_the_same_key_for_ever() -> None:
    parameters = passphrase.Parameters(salt=b"s" * 16, memory_kib=65536, iterations=3, lanes=4)
    assert passphrase.derive("horse", parameters, source="x").id == "851a3b30199b8417"


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644, 0o602])
async def test_a_key_file_that_others_may_use_is_refused(home: Home, mode: int) -> None:
    key_file(home.ring, Key(b"k" * 32), mode=mode)
    async with home.open() as store:
        with failing("secret.key", str(home.ring), f"{mode:04o}"):
            await store.put("db", SecretValue("v"))
        home.ring.chmod(0o600)
        await store.put("db", SecretValue("v"))


@pytest.mark.skipif(not ROOT, reason="needs root, to give files away")
async def test_a_key_file_of_somebody_else_is_refused(home: Home) -> None:
    key_file(home.ring, Key(b"k" * 32))
    os.chown(home.ring, 12345, -1)
    async with home.open() as store:
        with failing("secret.key", "user 12345"):
            await store.keys()
    os.chown(home.ring, 0, -1)
    os.chown(home.etc, 12345, -1)
    async with home.open() as store:
        with failing("secret.key", "folder", "user 12345"):
            await store.keys()


async def test_a_key_file_that_others_could_replace_is_refused(home: Home) -> None:
    key_file(home.ring, Key(b"k" * 32))
    home.etc.chmod(0o770)
    async with home.open() as store:
        with failing("secret.key", str(home.etc), "replace"):
            await store.keys()
        home.etc.chmod(0o1777)  # where only its owner can
        assert len(await store.keys()) == 1


async def test_links_are_followed_if_their_owner_is_trusted(home: Home, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    key_file(elsewhere / "ring", Key(b"k" * 32), mode=0o600)
    home.ring.symlink_to(elsewhere / "ring")
    async with home.open() as store:
        assert len(await store.keys()) == 1
        await store.keygen()
        assert len(await store.keys()) == 2
        assert home.ring.is_symlink()
        assert stat.S_IMODE((elsewhere / "ring").stat().st_mode) == 0o600
        (elsewhere / "ring").chmod(0o644)
        with failing("secret.key", "0644"):
            await store.keys()
    if ROOT:
        (elsewhere / "ring").chmod(0o600)
        os.chown(home.ring, 12345, -1, follow_symlinks=False)
        async with home.open() as store:
            with failing("secret.key", "link of user 12345"):
                await store.keys()


async def test_what_is_no_key_file_is_refused_and_nothing_waits(home: Home) -> None:
    os.mkfifo(home.ring, 0o600)
    async with home.open() as store:
        with failing("secret.key", "not a regular file"):
            await store.keys()
    home.ring.unlink()
    home.ring.write_bytes(b"\xff\xfe")
    home.ring.chmod(0o600)
    async with home.open() as store:
        with failing("secret.key", "not a text"):
            await store.keys()
        with failing("secret.key", "not a text"):
            await store.keygen()
    home.ring.write_bytes(b"#" * 70000)
    async with home.open() as store:
        with failing("secret.key", "64 KiB"):
            await store.keys()


async def test_a_key_is_made_for_its_owner_alone(home: Home, store: FernetStore) -> None:
    found = home.ring.stat()
    assert stat.S_IMODE(found.st_mode) == 0o400
    first = home.in_ring()
    made = await store.keygen()
    assert made.primary
    assert [key.id for key in home.in_ring()] == [made.id, first[0].id]
    assert stat.S_IMODE(home.ring.stat().st_mode) == 0o400
    assert list(home.etc.iterdir()) == [home.ring]


@pytest.mark.skipif(not ROOT, reason="needs root, to give files away")
async def test_what_root_makes_belongs_to_the_daemon(home: Home) -> None:
    os.chown(home.state, 12345, -1)
    async with home.open() as store:
        await store.keygen()
        await store.put("db", SecretValue("v"))
        for path in (home.ring, *home.state.iterdir()):
            assert path.stat().st_uid == 12345, path
        assert await text_of(store, "db") == "v"


async def test_a_hand_edited_ring_is_in_force_at_once(home: Home, store: FernetStore) -> None:
    await store.put("db", SecretValue("v"))
    (old,) = home.in_ring()
    new = Key(b"n" * 32)
    key_file(home.ring, new, old)
    assert (await store.put("db", SecretValue("w"))).key == new.id
    key_file(home.ring, new)
    with failing("secret.key", old.id):
        await store.get("db", version="1")
    key_file(home.ring, new, old)
    assert await text_of(store, "db", version="1") == "v"


async def test_a_credential_is_not_written(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "secrets.key").write_text(f"{Key(b'k' * 32).text()}\n")
    async with home.open() as store:
        with failing("secret.conflict", "credential 'secrets.key'"):
            await store.keygen()
    assert not home.ring.exists()


async def test_a_folder_that_cannot_be_written_is_named(
    home: Home, store: FernetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("db", SecretValue("v"))
    await store.keygen()
    before = home.ring.read_bytes()

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("atlasd_plugins.secrets_fernet.guarded.replace", read_only)
        for call in (store.keygen(), store.rotate_keys()):
            with failing("secret.conflict", str(home.ring), "Read-only"):
                await call
    # All is wrapped anew; only the old key could not be taken out.
    assert home.ring.read_bytes() == before
    assert [key.records for key in await store.keys()] == [1, 0]
    assert len((await store.rotate_keys()).retired) == 1


async def test_a_key_file_that_only_root_reads_gives_way_to_the_credential(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreadable(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("atlasd_plugins.secrets_fernet.guarded.read", unreadable)
    async with home.open() as store:
        with failing("secret.key", str(home.ring), "Permission denied"):
            await store.keys()
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        (tmp_path / "secrets.key").write_text(f"{Key(b'k' * 32).text()}\n")
        assert [key.source for key in await store.keys()] == ["credential secrets.key"]
