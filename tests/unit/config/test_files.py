"""Files of settings: what is said of one that cannot be read, and what of how it was."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from atlasd.config.files import LARGEST, Sources, parse, read
from atlasd.contracts.config import ConfigSource, Layer
from atlasd.errors import AtlasError
from atlasd_plugins.config_toml import register_config_sources

(TOML,) = register_config_sources()
VARIABLES = ConfigSource(
    name="vars",
    summary="x",
    suffixes=(".env",),
    dialects={"plain": lambda text, origin, variables: Layer(origin=origin, data=dict(variables))},
)


def read_file(path: Path) -> Layer:
    return read(path, TOML)


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(AtlasError) as caught:
        read_file(tmp_path / "none.toml")
    assert caught.value.code == "config.missing"
    assert str(tmp_path / "none.toml") in caught.value.message


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(AtlasError) as caught:
        read_file(tmp_path)
    assert caught.value.code == "config.invalid"
    assert os.strerror(21) in caught.value.message


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(AtlasError) as caught:
        read_file(tmp_path / "pipe.toml")
    assert caught.value.code == "config.invalid"
    assert "named pipe" in caught.value.message


def test_text_in_another_encoding_is_refused_where_it_begins(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes("a = 1\r\nb = 'größe'\r\n".encode("latin-1"))
    with pytest.raises(AtlasError) as caught:
        read_file(file)
    assert caught.value.message == f"{file}:2:8: not UTF-8 text"


def test_a_file_is_read_under_the_name_it_was_given(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text("a = 1\n")
    layer = read_file(file)
    assert layer.data == {"a": 1}
    assert str(layer.where(("a",))) == f"{file}:1:5"


def test_a_file_too_large_is_not_parsed(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    with file.open("wb") as out:
        out.truncate(LARGEST + 1)
    with pytest.raises(AtlasError) as caught:
        read_file(file)
    assert caught.value.message == f"{file}: it has more than 16 MiB"


@pytest.mark.parametrize("text", ["a = " + "[" * 300 + "]" * 300, ".".join("a" * 300) + " = 1"])
def test_what_is_nested_too_deeply_is_refused_whatever_reads_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "deep.toml"
    file.write_text(text)
    with pytest.raises(AtlasError) as caught:
        read_file(file)
    assert caught.value.message.startswith(f"{file}:1:")
    assert caught.value.message.endswith("values nested too deeply")
    assert caught.value.details["line"] == 1


def test_files_are_closed_whatever_became_of_them(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("a = ?")
    os.mkfifo(tmp_path / "pipe.toml")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("", "bad.toml", "pipe.toml", "none.toml"):
        with pytest.raises(AtlasError):
            read_file(tmp_path / name)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_device_without_contents_is_an_empty_file() -> None:
    assert read_file(Path("/dev/null")).data == {}


def test_the_layer_knows_its_source_and_when_the_file_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text("a = 1\n")
    os.utime(file, (1.0, 1764100000.0))
    layer = read_file(file)
    assert (layer.source, layer.dialect) == ("toml", "")
    assert layer.modified == datetime.fromtimestamp(1764100000.0, UTC)


def test_a_dialect_has_to_be_known() -> None:
    layer = parse("x", "shop.env", VARIABLES, dialect="plain", variables={"HOME": "/root"})
    assert (layer.data, layer.dialect) == ({"HOME": "/root"}, "plain")
    with pytest.raises(AtlasError) as caught:
        parse("x", "shop.env", VARIABLES, dialect="fish")
    assert caught.value.message == "shop.env: no dialect 'fish' of vars is known"
    assert caught.value.hint == "known dialects: plain"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.toml", "toml"),
        ("a.b.toml", "toml"),
        (".env", "vars"),
        (".env.local", "vars"),
        ("shop.env", "vars"),
        ("env", None),
        ("a.yaml", None),
        ("toml", None),
    ],
)
def test_the_kind_of_a_file_is_told_by_its_name(name: str, source: str | None) -> None:
    found = Sources([TOML, VARIABLES]).of(Path("/etc") / name)
    assert (found.name if found else None) == source


def test_variables_are_no_settings() -> None:
    sources = Sources([TOML, VARIABLES])
    assert sources.of_settings(Path("shop.env")) is None
    assert sources.of_settings(Path("shop.toml")) is TOML
    assert sources.endings == [".toml"]
    assert sources.named("vars") is VARIABLES
    assert sources.named("none") is None
