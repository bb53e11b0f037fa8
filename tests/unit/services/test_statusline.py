from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from atlasd.services import statusline
from atlasd.states import Lifecycle


def supervisor(**services: list[Lifecycle]) -> Any:
    return SimpleNamespace(
        services={
            name: SimpleNamespace(
                units={
                    index: SimpleNamespace(machine=SimpleNamespace(state=state))
                    for index, state in enumerate(states)
                }
            )
            for name, states in services.items()
        }
    )


def test_the_line_counts_services_and_their_instances_by_state() -> None:
    line = statusline.text(
        supervisor(web=[Lifecycle.RUNNING, Lifecycle.RUNNING], job=[Lifecycle.BACKOFF])
    )
    assert line.startswith("2 services; instances: ")
    assert "2 running" in line
    assert "1 backoff" in line


def test_the_line_of_nothing() -> None:
    assert statusline.text(supervisor()) == "0 services"
