"""What plugin authors test with: a context, a hand-wound clock, conformance suites.

The suites need pytest and pytest-asyncio beside atlasd:

    from atlasd.testing.descriptors import load_drop_in
    from atlasd.testing.checks import CheckTypeSuite

    class TestBacklog(CheckTypeSuite):
        @pytest.fixture
        def check_type(self):
            return load_drop_in(Path("backlog.py").resolve(), CheckType)
        ...
"""

from atlasd.clock import HandClock
from atlasd.testing.context import PlainContext

__all__ = ["HandClock", "PlainContext"]
