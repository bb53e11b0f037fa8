"""What holds for all tests."""

import pytest
from hypothesis import settings

# A deadline would measure how busy the machine is, and fail where nothing is wrong.
settings.register_profile("atlasd", deadline=None)
settings.load_profile("atlasd")

# They clone this very process, as the services role does, which has one thread. A lock that a
# thread of an earlier test holds at that moment is never let go of in the child: they run first.
CLONING = ("test_cgroup.py", "test_spawn.py", "test_attributes.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in CLONING)
