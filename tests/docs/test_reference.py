"""That the reference says what the code says, and that it can be caught when it doesn't."""

from pathlib import Path

import pytest

from docs import generate


def test_the_reference_is_current() -> None:
    assert generate.stale() == [], "run `make docs` and commit docs/reference"


def test_no_page_of_the_reference_is_left_over() -> None:
    by_hand = {generate.REFERENCE / f"{name}.md" for name in generate.BY_HAND}
    assert set(generate.REFERENCE.glob("*.md")) == set(generate.reference()) | by_hand


def test_a_page_that_says_something_else_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "REFERENCE", tmp_path)
    for path, text in generate.reference().items():
        path.write_text(text)
    assert generate.stale() == []
    (tmp_path / "errors.md").write_text("# Errors\n\nThere are none.\n")
    (tmp_path / "states.md").unlink()
    assert sorted(generate.stale()) == ["errors.md", "states.md"]
