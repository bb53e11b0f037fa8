"""The conformance suite of configuration sources."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atlasd.contracts.config import ConfigSource, KeyPath, Layer
from atlasd.errors import AtlasError

ORIGIN = "document"


class ConfigSourceSuite:
    """What every source of files of settings keeps.

    Derive a class whose name begins with `Test`, and give it:

    - a fixture `source`, the descriptor (see `load_drop_in` and `load_module`);
    - a fixture `document`, a text in the source's form with some tables and lists in it;
    - a fixture `expected`, the data that it means;
    - a fixture `broken`, a text with a mistake, and the line of the mistake, or None if every text
      means something.

    A source of variables also has a fixture `read`, which reads a text in one of its dialects.
    """

    @pytest.fixture
    def read(self, source: ConfigSource) -> Callable[[str], Layer]:
        """Reads a text."""
        parse = source.parse
        assert parse is not None, "give a fixture `read` for one of the dialects"
        return lambda text: parse(text, ORIGIN)

    def test_it_says_which_files_are_its_own(self, source: ConfigSource) -> None:
        """Endings begin with a dot, and there is one at least."""
        assert source.suffixes
        assert all(suffix.startswith(".") for suffix in source.suffixes)

    def test_it_reads_what_is_meant(
        self, read: Callable[[str], Layer], document: str, expected: dict[str, Any]
    ) -> None:
        """The data is as expected, types included, and belongs to the caller alone."""
        layer = read(document)
        assert layer.data == expected
        assert repr(layer.data) == repr(expected)
        assert layer.origin == ORIGIN
        assert [fault for fault in layer.faults if not fault.warning] == []
        layer.data["changed"] = True
        assert read(document).data == expected

    def test_every_setting_has_a_place_in_the_file(
        self, read: Callable[[str], Layer], document: str
    ) -> None:
        """Each value and each key has a position, and it lies within the file."""
        layer = read(document)
        paths = set(_paths(layer.data))
        assert set(layer.values) - {()} == paths
        assert set(layer.keys) == {path for path in paths if isinstance(path[-1], str)}
        lines = document.splitlines()
        for position in (*layer.values.values(), *layer.keys.values()):
            assert position.origin == ORIGIN
            assert 1 <= position.line <= len(lines)
            assert 1 <= position.column <= len(lines[position.line - 1]) + 1

    def test_later_settings_stand_later(self, read: Callable[[str], Layer], document: str) -> None:
        """Positions tell settings apart: they are not all the same."""
        layer = read(document)
        assert len({str(layer.where(path)) for path in _paths(layer.data)}) > 1

    def test_windows_line_ends_mean_the_same(
        self, read: Callable[[str], Layer], document: str, expected: dict[str, Any]
    ) -> None:
        """Some editors write them, and nobody sees it; only inside a value they may stay."""
        layer = read(document.replace("\n", "\r\n"))
        assert _with_plain_ends(layer.data) == expected
        assert dict(layer.values) == dict(read(document).values)

    @pytest.mark.parametrize("text", ["", "\n", "\n\n"], ids=["nothing", "a line", "lines"])
    def test_an_empty_file_is_an_empty_layer(self, read: Callable[[str], Layer], text: str) -> None:
        """Nothing in the file is nothing set, not a mistake."""
        layer = read(text)
        assert layer.data == {}
        assert layer.faults == ()
        assert set(layer.values) <= {()}

    def test_no_text_is_a_traceback(self, read: Callable[[str], Layer], document: str) -> None:
        """A file that was cut off anywhere is read or explained; it raises nothing else."""
        for length in range(len(document)):
            answer = _attempt(read, document[:length])
            assert isinstance(answer, Layer) or answer.code == "config.invalid"

    def test_a_mistake_is_found_in_its_line(
        self, read: Callable[[str], Layer], broken: tuple[str, int] | None
    ) -> None:
        """What is raised opens with file, line and column, and programs find them in the details.

        A fault that did not keep the text from being read has them in its position.
        """
        if broken is None:
            pytest.skip("every text means something to this source")
        text, line = broken
        answer = _attempt(read, text)
        if isinstance(answer, AtlasError):
            assert answer.code == "config.invalid"
            assert answer.details["origin"] == ORIGIN
            assert answer.details["line"] == line
            assert answer.message.startswith(f"{ORIGIN}:{line}:{answer.details['column']}: ")
            return
        faults = [fault for fault in answer.faults if not fault.warning]
        assert [(fault.where.origin, fault.where.line) for fault in faults[:1]] == [(ORIGIN, line)]
        assert faults[0].expected or faults[0].got


def _with_plain_ends(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_plain_ends(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_plain_ends(item) for item in value]
    return value.replace("\r\n", "\n") if isinstance(value, str) else value


def _attempt(read: Callable[[str], Layer], text: str) -> "Layer | AtlasError":
    try:
        return read(text)
    except AtlasError as error:
        return error


def _paths(data: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    if path:
        yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _paths(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _paths(value, (*path, index))
