from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.systemd.installed import ROLES, unit
from tests.integration.systemd.machine import Machine

pytestmark = pytest.mark.xdist_group("systemd")

_UNITS = Path(__file__).parents[3] / "systemd"

# Why services stands above 4.5 is written at the head of its unit.
_HIGHEST = {"services": 5.8, "core": 2.0, "monitoring": 1.5, "api": 1.5}
_HIGHEST_TIGHT = 4.5


def exposure(path: Path) -> float:
    """Score a unit file as `systemd-analyze security` does: 0 is closed, 10 is wide open."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze (package systemd)")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", path],
        capture_output=True,
        text=True,
        check=True,
    )
    overall = done.stdout.splitlines()[-1]
    assert "Overall exposure level" in overall
    return float(overall.split(": ")[1].split()[0])


def options(text: str) -> list[str]:
    return [line for line in text.splitlines() if "=" in line and not line.startswith("#")]


@pytest.mark.parametrize("role", ROLES)
def test_security_score(role: str) -> None:
    assert exposure(_UNITS / unit(role)) <= _HIGHEST[role]


def test_security_score_of_services_with_the_tight_drop_in(tmp_path: Path) -> None:
    # Offline, systemd-analyze reads no drop-ins: their lines go into the section they belong to.
    drop_in = "\n".join(options((_UNITS / "atlas-services-tight.conf").read_text()))
    text = (_UNITS / "atlas-services.service").read_text()
    tight = tmp_path / "atlas-services.service"
    tight.write_text(text.replace("[Install]", f"{drop_in}\n[Install]"))

    assert exposure(tight) <= _HIGHEST_TIGHT


def test_services_never_takes_its_services_down_with_it() -> None:
    settings = options((_UNITS / "atlas-services.service").read_text())

    assert "KillMode=process" in settings
    assert "OOMPolicy=continue" in settings
    assert "Delegate=yes" in settings
    assert "StartLimitIntervalSec=0" in settings


@pytest.mark.parametrize("role", ["core", "monitoring", "api"])
def test_no_unit_pulls_services_down(role: str) -> None:
    # Each of these words would stop or restart atlas-services along with the unit.
    binding = ("Requires=", "BindsTo=", "PartOf=atlas-", "Upholds=", "PropagatesStopTo=")
    for line in options((_UNITS / unit(role)).read_text()):
        assert not line.startswith(binding)


def test_verify_prints_nothing(machine: Machine) -> None:
    names = []
    for path in [*_UNITS.glob("*.service"), *_UNITS.glob("*.target")]:
        machine.write(f"/etc/systemd/system/{path.name}", path.read_text())
        names.append(path.name)
    assert len(names) == len(ROLES) + 1

    done = machine.run("systemd-analyze", "verify", "--man=no", *names)

    assert done.stdout + done.stderr == ""


def test_verify_would_have_said_something(machine: Machine) -> None:
    text = (_UNITS / "atlas-api.service").read_text().replace("Restart=", "Restrat=")
    machine.write("/etc/systemd/system/misspelt.service", text)

    done = machine.run("systemd-analyze", "verify", "--man=no", "misspelt.service", check=False)

    assert "Restrat" in done.stdout + done.stderr


def test_tmpfiles_and_sysusers_make_what_the_units_use(machine: Machine) -> None:
    machine.write("/tmp/users.conf", (_UNITS / "atlas.sysusers").read_text())
    machine.write("/tmp/folders.conf", (_UNITS / "atlas.tmpfiles").read_text())
    machine.run("systemd-sysusers", "/tmp/users.conf")
    machine.run("systemd-tmpfiles", "--create", "/tmp/folders.conf")

    assert machine.run("id", "-Gn", "atlasd-api").stdout.split() == ["atlasd-api", "atlasd"]
    found = machine.run("stat", "-c", "%a %U:%G", "/run/atlasd", "/var/log/atlasd").stdout
    assert found.splitlines() == ["3771 root:atlasd", "2750 root:atlasd"]
    # What root makes in the run folder, such as services.sock, is the group's to open.
    machine.run("touch", "/run/atlasd/made-by-root")
    assert machine.run("stat", "-c", "%G", "/run/atlasd/made-by-root").stdout.strip() == "atlasd"


def test_json_of_the_harness_is_systemd(machine: Machine) -> None:
    done = machine.run("systemctl", "list-units", "--output=json", "--type=service")
    assert any(u["unit"] == "systemd-journald.service" for u in json.loads(done.stdout))
