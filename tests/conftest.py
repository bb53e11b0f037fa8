"""What holds for all tests."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.postgres_server import HandWoundSchema, PostgresServers, lacking

# A deadline would measure how busy the machine is, and fail where nothing is wrong.
settings.register_profile("atlasd", deadline=None)
settings.load_profile("atlasd")

# They clone this very process, as the services role does, which has one thread. A lock that a
# thread of an earlier test holds at that moment is never let go of in the child: they run first.
CLONING = ("test_cgroup.py", "test_spawn.py", "test_attributes.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in CLONING)


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[PostgresServers]:
    servers = PostgresServers()
    yield servers
    servers.close()


# Not of the session itself: tests come in random order, and would start and end servers all day.
@pytest.fixture(params=["current", "15"])
def postgres_version(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    if why := lacking(version):
        pytest.skip(why)
    return version


@pytest.fixture
def postgres_schema(postgres_version: str, postgres_servers: PostgresServers) -> HandWoundSchema:
    return postgres_servers.schema(postgres_version)
