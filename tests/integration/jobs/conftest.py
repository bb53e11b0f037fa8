"""A served engine for each test; the folder is short, as a socket's path must be."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.jobs.served import Served, served


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="atj-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def engine(folder: Path) -> Iterator[Served]:
    with served(folder) as running:
        yield running
