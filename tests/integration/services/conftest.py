"""Hosts for these tests, each closed whatever becomes of the test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.services.host import Host, Moments


@pytest.fixture
def new_host(request: pytest.FixtureRequest) -> Iterator[Callable[..., Host]]:
    """Give a maker of hosts."""
    made: list[Host] = []

    def make(**options: Any) -> Host:
        made.append(Host(**options))
        return made[-1]

    yield make
    for one in made:
        said = one.logs_of_roles()
        one.close()
        print(said)


@pytest.fixture
def host(new_host: Callable[..., Host]) -> Host:
    """Give a host whose roles are not started yet."""
    return new_host()


@pytest.fixture
def moments() -> Moments:
    """Give random moments."""
    return Moments()
