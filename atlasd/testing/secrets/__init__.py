"""The conformance suite of secret backends."""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from atlasd.contracts.secrets import SecretBackend, SecretStore
from atlasd.testing.context import PlainContext
from atlasd.testing.secrets.asserting import Disable, assert_nothing_is_shown, opened
from atlasd.testing.secrets.deleting import Deleting
from atlasd.testing.secrets.putting import Putting
from atlasd.testing.secrets.reading import Reading
from atlasd.testing.secrets.sealing import Sealing
from atlasd.testing.secrets.staging import Staging
from atlasd.testing.secrets.trouble import Trouble

__all__ = ["Disable", "SecretBackendSuite"]


class SecretBackendSuite(Reading, Putting, Staging, Deleting, Trouble, Sealing):
    """What every secret backend keeps, as far as its capabilities go.

    Derive a class whose name begins with `Test`, and give it:

    - a fixture `backend`, the descriptor (see `load_drop_in` and `load_module`);
    - a fixture `settings`, of its table in the configuration, for a place that is empty;
    - for a backend without `put`: a fixture `present`, what is there, by name;
    - if there is something that can be down: a fixture `down`, settings for a place of that kind
      where nobody answers;
    - if secrets can be disabled there: a fixture `disable`, a coroutine function that does so by
      the place's own means, given a name and the id of a version.

    Fixtures may start what keeps the secrets. The tests are coroutines: pytest-asyncio must run in
    its mode `auto`. After every test no value may stand in the log or in a file of the plugin's.
    """

    @pytest.fixture
    def context(self, tmp_path: Path) -> Iterator[PlainContext]:
        """What the backend is opened with."""
        plain = PlainContext(tmp_path / "plugin_state", config_dir=tmp_path)
        yield plain
        plain.close()

    @pytest.fixture
    def present(self) -> Mapping[str, str]:
        """What is there before anything was put."""
        return {}

    @pytest.fixture
    def down(self) -> dict[str, Any] | None:
        """Settings with which nobody answers; None if there is nobody to be down."""
        return None

    @pytest.fixture
    def disable(self) -> Disable | None:
        """How a version is disabled without the backend; None if it cannot be."""
        return None

    @pytest.fixture
    async def store(
        self, backend: SecretBackend, settings: dict[str, Any], context: PlainContext
    ) -> AsyncIterator[SecretStore]:
        """The backend, opened; a ring without keys is given one."""
        async with opened(backend, settings, context) as store:
            yield store

    @pytest.fixture(autouse=True)
    def _nothing_is_shown(self, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> Iterator[None]:
        caplog.set_level(logging.DEBUG)
        yield
        records = [r for when in ("setup", "call") for r in caplog.get_records(when)]
        assert_nothing_is_shown(records, tmp_path)
