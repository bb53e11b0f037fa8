"""Last known good values on disk: there after a restart, and of no use to anybody else."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.contracts.secrets import SecretValue, SecretVersion
from atlasd.errors import AtlasError
from atlasd.secrets import keyfile
from atlasd.secrets.cache import Key
from atlasd.secrets.lastknown import LastKnown

KEY = Key("vault", "prod/db", "current")
VALUE = SecretVersion(
    name="prod/db", version="v7", stages=("current",), value=SecretValue(b"correct horse \xff")
)


def disk(folder: Path, *, key: bytes = b"k" * 32, machine: bytes = b"here") -> LastKnown:
    return LastKnown(folder / "known", lambda: key, machine=machine).at("production", "{}")


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "known").iterdir() if not path.name.startswith(".")]


def test_what_was_kept_is_found_by_a_later_daemon(tmp_path: Path) -> None:
    disk(tmp_path).keep(KEY, VALUE, 1234.5)
    found = disk(tmp_path).find(KEY)
    assert found is not None
    assert (found.value, found.fetched) == (VALUE, 1234.5)


def test_nothing_of_it_can_be_read(tmp_path: Path) -> None:
    disk(tmp_path).keep(KEY, VALUE, 1234.5)
    (path,) = files(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    raw = path.read_bytes() + path.name.encode()
    for word in (b"correct", b"prod", b"vault", b"v7"):
        assert word not in raw


@pytest.mark.parametrize(
    ("environment", "key"),
    [("staging", KEY), ("production", Key("aws", "prod/db", "current")),
     ("production", Key("vault", "prod/other", "current")),
     ("production", Key("vault", "prod/db", "previous"))],
)  # fmt: skip
def test_a_file_that_was_copied_to_another_name_is_of_no_use(
    tmp_path: Path, environment: str, key: Key
) -> None:
    known = disk(tmp_path)
    known.keep(KEY, VALUE, 1.0)
    (source,) = files(tmp_path)
    other = known.at(environment, "{}")
    other.keep(key, VALUE, 1.0)
    (target,) = set(files(tmp_path)) - {source}
    target.write_bytes(source.read_bytes())
    assert other.find(key) is None
    assert known.find(KEY) is not None


def test_another_host_or_key_reads_nothing(tmp_path: Path) -> None:
    disk(tmp_path).keep(KEY, VALUE, 1.0)
    assert disk(tmp_path, machine=b"there").find(KEY) is None
    assert disk(tmp_path, key=b"x" * 32).find(KEY) is None


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_damaged_file_is_as_good_as_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("known")
    known = disk(folder)
    known.keep(KEY, VALUE, 1.0)
    (path,) = files(folder)
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    assert known.find(KEY) is None


def test_what_was_dropped_is_gone(tmp_path: Path) -> None:
    known = disk(tmp_path)
    known.keep(KEY, VALUE, 1.0)
    known.drop(KEY)
    known.drop(KEY)
    assert known.find(KEY) is None
    assert files(tmp_path) == []


def test_one_of_two_has_its_turn(tmp_path: Path) -> None:
    one, other = disk(tmp_path), disk(tmp_path)
    with one.turn(KEY) as mine:
        assert mine
        with other.turn(KEY) as theirs:
            assert not theirs
    with other.turn(KEY) as theirs:
        assert theirs


# --- the key files


def test_a_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit"
    made = keyfile.key(path, credential="atlasd.audit", credentials=None)
    assert len(made) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert keyfile.key(path, credential="atlasd.audit", credentials=None) == made
    assert [p.name for p in path.parent.iterdir()] == ["audit"]


def test_a_credential_is_taken_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "atlasd.audit").write_bytes(b"c" * 32)
    path = tmp_path / "keys" / "audit"
    found = keyfile.key(path, credential="atlasd.audit", credentials=str(tmp_path))
    assert found == b"c" * 32
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [(b"k" * 32, 0o640, "others can read this key"), (b"short", 0o600, "5 bytes, not 32"),
     (b"", 0o600, "0 bytes, not 32")],
)  # fmt: skip
def test_a_key_that_is_none_is_refused(
    tmp_path: Path, content: bytes, mode: int, says: str
) -> None:
    path = tmp_path / "audit"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(AtlasError) as caught:
        keyfile.key(path, credential="x", credentials=None)
    assert caught.value.code == "secret.key"
    assert says in caught.value.message
    assert path.read_bytes() == content


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_takes_the_key_of_the_user_whose_folder_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = keyfile.key(folder / "audit", credential="x", credentials=None)
    os.chown(folder / "audit", 65534, 65534)
    with pytest.raises(AtlasError) as caught:
        keyfile.key(folder / "audit", credential="x", credentials=None)
    assert "it belongs to user 65534" in caught.value.message
    os.chown(folder, 65534, 65534)
    assert keyfile.key(folder / "audit", credential="x", credentials=None) == made


def test_a_key_is_never_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"k" * 32)
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "audit").symlink_to(tmp_path / "real")
    with pytest.raises(AtlasError) as caught:
        keyfile.key(tmp_path / "audit", credential="x", credentials=None)
    assert caught.value.code == "secret.key"
