"""What holds for all tests."""

from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from tests.postgres_server import HandWoundSchema, PostgresServer, PostgresServers, lacking

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
def postgres_server(
    request: pytest.FixtureRequest, postgres_servers: PostgresServers
) -> PostgresServer:
    if why := lacking(request.param):
        pytest.skip(why)
    return postgres_servers.get(request.param)


@pytest.fixture
async def postgres_schema(postgres_server: PostgresServer) -> AsyncIterator[HandWoundSchema]:
    schema = HandWoundSchema(postgres_server.dsn)
    await schema.make()
    yield schema
    await schema.drop()
