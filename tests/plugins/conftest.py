"""A context like the daemon's for plugins under test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from atlasd.testing import PlainContext


@pytest.fixture
def context(tmp_path: Path) -> Iterator[PlainContext]:
    """The real clock, real threads, and a folder of its own."""
    plain = PlainContext(tmp_path / "state")
    yield plain
    plain.close()
