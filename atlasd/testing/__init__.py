"""What plugin authors test with: a context, a hand-wound clock, conformance suites.

The suites need pytest and pytest-asyncio beside atlasd:

    from atlasd.testing.descriptors import load_drop_in
    from atlasd.testing.checks import CheckTypeSuite

    class TestBacklog(CheckTypeSuite):
        @pytest.fixture
        def check_type(self):
            return load_drop_in(Path("backlog.py").resolve(), CheckType)
        ...

`SecretBackendSuite` in `atlasd.testing.secrets`, `ConfigSourceSuite` in
`atlasd.testing.config_sources` and `QueueStoreSuite` in `atlasd.testing.queue` are used in the same
way. `MemoryBackend` is a secret backend that fails as it is told, for tests of what uses one.

What authors of applications test their jobs with is `JobKit` in `atlasd.testing.jobs`.
"""

from atlasd.clock import HandClock
from atlasd.testing.context import PlainContext
from atlasd.testing.memory_backend import MemoryBackend

__all__ = ["HandClock", "MemoryBackend", "PlainContext"]
