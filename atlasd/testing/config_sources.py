"""The conformance suite of configuration sources."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atlasd.contracts.config import ConfigSource, KeyPath, Layer
from atlasd.errors import AtlasError


class ConfigSourceSuite:
    """What every configuration source keeps.

    Derive a class whose name begins with `Test`, and give it:

    - a fixture `source`, the descriptor (see `load_drop_in` and `load_module`);
    - a fixture `document`, a text in the source's form with some tables and lists in it;
    - a fixture `expected`, the data that it means;
    - a fixture `broken`, a text with a mistake, and the line of the mistake, or None if every text
      means something.
    """

    @pytest.fixture
    def file(self, source: ConfigSource, document: str, tmp_path: Path) -> Path:
        """A file with the document."""
        path = tmp_path / f"document{source.suffixes[0]}"
        path.write_text(document)
        return path

    def test_it_reads_what_is_meant(
        self, source: ConfigSource, file: Path, expected: dict[str, Any]
    ) -> None:
        """The data is as expected, types included, and belongs to the caller alone."""
        layer = source.read(file)
        assert layer.data == expected
        assert repr(layer.data) == repr(expected)
        assert layer.origin == str(file)
        layer.data["changed"] = True
        assert source.read(file).data == expected

    def test_every_setting_has_a_place_in_the_file(self, source: ConfigSource, file: Path) -> None:
        """Each value and each key has a position, and it lies within the file."""
        layer = source.read(file)
        paths = set(_paths(layer.data))
        assert set(layer.values) - {()} == paths
        assert set(layer.keys) == {path for path in paths if isinstance(path[-1], str)}
        lines = file.read_text().splitlines()
        for position in (*layer.values.values(), *layer.keys.values()):
            assert position.origin == str(file)
            assert 1 <= position.line <= len(lines)
            assert 1 <= position.column <= len(lines[position.line - 1]) + 1

    def test_later_settings_stand_later(self, source: ConfigSource, file: Path) -> None:
        """Positions tell settings apart: they are not all the same."""
        layer = source.read(file)
        assert len({str(layer.where(path)) for path in _paths(layer.data)}) > 1

    def test_an_empty_file_is_an_empty_layer(self, source: ConfigSource, tmp_path: Path) -> None:
        """Nothing in the file is nothing set, not a mistake."""
        path = tmp_path / f"empty{source.suffixes[0]}"
        path.write_text("")
        layer = source.read(path)
        assert layer == Layer(origin=str(path), data={}, values=layer.values)
        assert set(layer.values) <= {()}

    def test_a_missing_file_is_said_so(self, source: ConfigSource, tmp_path: Path) -> None:
        """A file that is not there has its own code, and is named."""
        path = tmp_path / f"missing{source.suffixes[0]}"
        with pytest.raises(AtlasError) as caught:
            source.read(path)
        assert caught.value.code == "config.missing"
        assert str(path) in caught.value.message

    def test_what_cannot_be_read_is_no_traceback(
        self, source: ConfigSource, tmp_path: Path
    ) -> None:
        """A folder in the file's place, and bytes that are no text, are explained."""
        folder = tmp_path / f"folder{source.suffixes[0]}"
        folder.mkdir()
        binary = tmp_path / f"binary{source.suffixes[0]}"
        binary.write_bytes(b"\xff\xfe\x00\x80")
        for path in (folder, binary):
            with pytest.raises(AtlasError) as caught:
                source.read(path)
            assert caught.value.code == "config.invalid"
            assert str(path) in caught.value.message

    def test_a_mistake_is_found_in_its_line(
        self, source: ConfigSource, broken: tuple[str, int] | None, tmp_path: Path
    ) -> None:
        """The message opens with file, line and column; programs find them in the details."""
        if broken is None:
            pytest.skip("every text means something to this source")
        text, line = broken
        path = tmp_path / f"broken{source.suffixes[0]}"
        path.write_text(text)
        with pytest.raises(AtlasError) as caught:
            source.read(path)
        error = caught.value
        assert error.code == "config.invalid"
        assert error.details["origin"] == str(path)
        assert error.details["line"] == line
        assert error.message.startswith(f"{path}:{line}:{error.details['column']}: ")


def _paths(data: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    if path:
        yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _paths(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _paths(value, (*path, index))
