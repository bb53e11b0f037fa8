"""moto's server, which answers as AWS does: one process for each process of the tests."""

import atexit
import functools
import subprocess
import sys
import urllib.request
from pathlib import Path

import botocore.loaders
import pytest

PROGRAM = Path(__file__).with_name("moto_program.py")
KEYS = {"access_key_id": "test", "secret_access_key": "test"}


@functools.cache
def address() -> str:
    """Where it listens. It ends when its standard input does, with this process at the latest."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    atexit.register(process.wait)
    atexit.register(process.stdin.close)
    url = process.stdout.readline().strip()
    assert url, "moto's server has not started"
    process.stdout.close()
    return url


def emptied() -> str:
    """Where it listens, after everything in it was forgotten."""
    urllib.request.urlopen(f"{address()}/moto-api/reset", data=b"", timeout=30).close()
    return address()


def read_models_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all clients of a process share what botocore reads: that takes it most of their time."""
    monkeypatch.setattr("botocore.session.create_loader", _loader)


_loader = functools.cache(botocore.loaders.create_loader)
