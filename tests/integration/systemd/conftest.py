"""One machine under a real systemd with atlasd installed in it, for all tests of a worker."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.systemd import machine as machines
from tests.integration.systemd.installed import Installed
from tests.integration.systemd.machine import Machine

_REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    missing = machines.why_unsupported()
    if missing:
        pytest.skip(f"a systemd of our own: {missing}")
    # Where the interpreter lives below somebody's home, the daemon's user could not reach it.
    binds = {
        _REPOSITORY: "/opt/atlasd/source",
        Path(sysconfig.get_path("purelib")): "/opt/atlasd/site",
    }
    prefix = Path(sys.base_prefix)
    interpreter = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if prefix == Path("/usr"):
        python = f"/usr/bin/{interpreter}"
    else:
        binds[prefix] = "/opt/python"
        python = f"/opt/python/bin/{interpreter}"
    booted = machines.boot(tmp_path_factory.mktemp("machine") / "root", binds=binds)
    try:
        for name, module in (
            ("atlasd", "-m atlasd"),
            ("atlasctl", "-m atlasd.cli.atlasctl"),
            ("python", ""),
        ):
            booted.write(
                f"/opt/atlasd/bin/{name}",
                "#!/bin/sh\n"
                "export PYTHONPATH=/opt/atlasd/source:/opt/atlasd/source/plugins:/opt/atlasd/site\n"
                "export LD_LIBRARY_PATH=/opt/python/lib PYTHONDONTWRITEBYTECODE=1\n"
                f'exec {python} {module} "$@"\n',
                0o755,
            )
        yield booted
    finally:
        booted.power_off()


@pytest.fixture(scope="session")
def installed(machine: Machine) -> Installed:
    """Give atlasd installed as the documentation says, with its services up."""
    return Installed.install(machine, _REPOSITORY / "systemd")


@pytest.fixture
def atlasd(installed: Installed) -> Iterator[Installed]:
    """Give all four units active and every service running, whatever the test before has broken."""
    installed.settle()
    yield installed
    installed.forget_drop_ins()
