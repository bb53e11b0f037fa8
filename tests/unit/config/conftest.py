"""Fixtures of the configuration's tests."""

from pathlib import Path

import pytest

from atlasd.paths import find
from tests.unit.config.desk import ENVIRON, Desk, FakeHost


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty root, on a host that the test can furnish."""
    paths = find(root=str(tmp_path), environ={})
    return Desk(paths=paths, host=FakeHost(), environ=dict(ENVIRON))
