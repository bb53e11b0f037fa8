"""A real disk that is full, or read-only: clear errors, nothing lost, and well again afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("secrets_disk")

PROGRAM = Path(__file__).with_name("disk_program.py")


def can_mount() -> bool:
    if os.geteuid() != 0:
        return False
    trial = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return trial.returncode == 0


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not can_mount():
        pytest.skip("needs root and a mount namespace (package util-linux)")
    folder = tmp_path_factory.mktemp("disk")
    for name in ("etc", "state"):
        (folder / name).mkdir(mode=0o700)
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, str(PROGRAM), str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line.pop("what"): line for line in lines}


def test_a_full_disk_is_said_to_be_full_and_loses_nothing(told: dict[str, Any]) -> None:
    full = told["full"]
    assert full["fault"].startswith("secret.unavailable: ")
    assert full["fault"].endswith("the disk is full")
    assert full["put"] == full["readable"] > 2
    *faults, readable = told["several while full"]["answers"]
    assert {fault.partition(":")[0] for fault in faults} == {"secret.unavailable"}
    assert readable == full["put"]


def test_with_room_again_it_goes_on(told: dict[str, Any]) -> None:
    assert told["room"] == {"fault": ""}


def test_what_was_put_before_a_kill_is_read_from_a_read_only_disk(told: dict[str, Any]) -> None:
    assert told["killed"] == {"signal": 9}
    dead = told["read-only after a kill"]
    assert dead["fault"] == ""
    assert dead["readable"] == dead["names"]


def test_a_read_only_disk_is_read_and_says_why_it_is_not_written(told: dict[str, Any]) -> None:
    found = told["read-only"]
    assert found["readable"] == found["names"]
    assert found["fault"].startswith("secret.unavailable: ")
    assert "readonly" in found["fault"]


def test_once_writable_it_is_written_again(told: dict[str, Any]) -> None:
    assert told["writable"] == {"fault": ""}
    assert told["all"]["readable"] == told["read-only"]["names"]
    assert told["all"]["listed"] == told["read-only"]["names"] + 2
