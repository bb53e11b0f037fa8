"""Operations at random, while both roles are killed at random: what was asked for last holds."""

import time

from atlasd.control.client import Client
from atlasd.errors import AtlasError
from tests.integration.services.host import Host, Moments, program, until

NAMES = tuple(f"web-{n}" for n in range(5))
SECONDS = 25


def ask(control: Client, verb: str, name: str, **fields: object) -> bool:
    """Whether it was accepted for certain."""
    try:
        control.call(f"service.{verb}", service=name, timeout=2.0, **fields)
    except (AtlasError, OSError, ValueError):
        return False
    return True


def test_what_was_asked_for_last_holds(host: Host, moments: Moments) -> None:
    host.start(
        {
            name: {
                "command": program("sleep", f"mark-{name}"),
                "instances": 2,
                "min_uptime": "0s",
                "stop": {"timeout": "2s"},
            }
            for name in NAMES
        }
    )
    host.all_running(NAMES)
    dice = moments.random
    most = dict.fromkeys(NAMES, 2)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        name = dice.choice(NAMES)
        verb = dice.choice(("start", "stop", "restart", "scale"))
        if verb == "scale":
            instances = dice.randint(0, 3)
            # Accepted or not, it may have been done.
            most[name] = max(most[name], instances)
            ask(host.control, verb, name, instances=instances)
        else:
            ask(host.control, verb, name)
        if dice.random() < 0.25:
            moments.pause(0.1)
            host.restart_role(dice.choice(("core", "services")))
        elif dice.random() < 0.3:
            host.core_is_up()
        lines = list(host.commands().values())
        for other in NAMES:
            assert sum(f"mark-{other}" in line for line in lines) <= most[other], lines
    host.core_is_up()
    expected = {}
    for number, name in enumerate(NAMES):
        expected[name] = (dice.randint(0, 3), number % 2 == 0)
        instances, up = expected[name]
        until(lambda n=name, i=instances: ask(host.control, "scale", n, instances=i))  # type: ignore[misc]
        until(lambda n=name, u=up: ask(host.control, "start" if u else "stop", n))  # type: ignore[misc]
    host.restart_role("core")
    host.restart_role("services")
    host.core_is_up()

    def as_asked() -> bool:
        found = host.snapshot()
        lines = list(host.commands().values())
        for name, (instances, up) in expected.items():
            running = [i for i in found[name]["instances"] if i["state"] == "running"]
            processes = sum(f"mark-{name}" in line for line in lines)
            if not len(running) == processes == (instances if up else 0):
                return False
        return True

    until(
        as_asked,
        lambda: f"{expected}\n{host.snapshot()}\n{host.commands()}\n{host.logs_of_roles()}",
    )
    for name in NAMES:
        assert host.crashes(name) == [], "nothing has ended that was not told to"
