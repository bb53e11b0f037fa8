"""All benchmarks, one after the other: `python -m benchmarks` (`make bench`)."""

from __future__ import annotations

import sys

from benchmarks.config.load import main as loading
from benchmarks.config.redaction import main as redaction
from benchmarks.config.secrets import main as secrets
from benchmarks.jobs.__main__ import main as jobs
from benchmarks.supervision.__main__ import main as supervision

if __name__ == "__main__":
    loading([])
    redaction([])
    secrets([])
    jobs([])
    sys.exit(supervision())
