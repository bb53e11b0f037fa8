"""kill -9 during puts and rotations, at 200 random moments: nothing lost, nothing half-applied."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed_program.py")


@pytest.mark.timeout(300)
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**31)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), "200", str(seed)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
    *wrong, counts = done.stdout.splitlines()
    assert wrong == [], f"seed {seed}"
    # Or nothing was tried: each was begun a good many times, and not always killed.
    found = json.loads(counts)
    assert min(found[what] for what in ("put", "keygen", "rotate", "put done")) > 3, counts
