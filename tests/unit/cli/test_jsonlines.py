from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.cli import jsonlines
from atlasd.cli.jsonlines import Line, opened, pieces, read
from atlasd.cli.progress import line
from atlasd.errors import AtlasError


def test_empty_lines_count_and_are_left_out() -> None:
    found = read(['{"a": 1}\n', "\n", '{"a": 2}\n'], "jobs")
    assert [(one.number, one.body) for one in found] == [(1, {"a": 1}), (3, {"a": 2})]


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "line 2: no JSON"), ("[1]", "line 2: expected an object"), ("[" * 100_000, "line 2")],
)
def test_a_bad_line_is_named(text: str, words: str) -> None:
    with pytest.raises(AtlasError, match=words):
        read(["{}", text], "jobs")


def test_files_that_are_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="cannot be read"), opened(str(tmp_path / "none")):
        pass
    (tmp_path / "binary").write_bytes(b"{}\n\xff\xfe\n")
    with opened(str(tmp_path / "binary")) as file, pytest.raises(AtlasError, match="UTF-8"):
        read(file, "binary")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, jsonlines.BYTES)), max_size=40))
def test_pieces_have_no_gap_and_fit(shape: list[tuple[bool, int]]) -> None:
    number = 0
    lines = []
    for gap, length in shape:
        number += 2 if gap else 1
        lines.append(Line(number, {}, length))
    found = list(pieces(lines))
    assert [one for piece in found for one in piece] == lines
    for piece in found:
        assert [one.number for one in piece] == list(
            range(piece[0].number, piece[0].number + len(piece))
        )
        assert len(piece) == 1 or sum(one.length for one in piece) <= jsonlines.BYTES


def test_progress_in_words() -> None:
    assert line("requeued", 5, None) == "requeued 5"
    assert (
        line("requeued", 50, 100, "1 failed")
        == f"requeued [{'#' * 12}{' ' * 12}] 50 of 100  1 failed"
    )
    assert line("requeued", 200, 100).startswith(f"requeued [{'#' * 24}]")
