"""Disks that fail under a running daemon: it says so, loses nothing, and heals by itself."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from atlasd.errors import AtlasError
from atlasd.worker import Client
from tests.integration.daemons import Atlas, atlas, until

Mount = Callable[..., None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts with these options; skips where that is not allowed."""
    mounted: list[str] = []

    def mount(*words: str) -> None:
        try:
            done = subprocess.run(["mount", *words], capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount here")
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
        if not words[1].startswith("remount"):
            mounted.append(words[-1])

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def daemon() -> Iterator[Atlas]:
    with atlas() as made:
        made.configure("")
        yield made


@pytest.fixture
def folder(daemon: Atlas) -> Path:
    """Where the queue is."""
    folder = Path(daemon.paths.state, "plugins", "queue_sqlite")
    folder.mkdir(parents=True)
    return folder


def checked(daemon: Atlas) -> dict[str, Any]:
    """What health says of jobs."""
    found: dict[str, Any] = daemon.client.call("health")["checks"]["atlasd:jobs"][0]
    return found


def is_told(daemon: Atlas, *words: str) -> bool:
    found = checked(daemon)
    return found["status"] != "pass" and all(word in found["output"] for word in words)


def is_well(daemon: Atlas) -> bool:
    return bool(checked(daemon)["status"] == "pass")


def fill(client: Client, size: int, kept: set[int]) -> AtlasError:
    """Enqueue until it is refused; the refusal."""
    while True:
        try:
            kept.add(client.enqueue("shop.note", {"text": "x" * size}).id)
        except AtlasError as error:
            return error


def ids_of(daemon: Atlas) -> set[int]:
    return {job["id"] for job in daemon.client.call("job.list", limit=1000)["jobs"]}


def test_a_full_disk_is_said_loses_nothing_and_heals(
    daemon: Atlas, folder: Path, mount: Mount
) -> None:
    mount("-t", "tmpfs", "-o", "size=2m", "none", str(folder))
    daemon.up()
    kept: set[int] = set()
    with closing(Client(str(Path(daemon.paths.run, "jobs.sock")))) as client:
        for size in (50_000, 3_000, 200):
            refused = fill(client, size, kept)
            assert refused.code == "job.store"
            assert "make room" in refused.hint
        until(lambda: is_told(daemon, "queue.db", "full"), "health to say it")
        assert ids_of(daemon) == kept
        mount("-o", "remount,size=16m", str(folder))
        until(lambda: is_well(daemon), "health to be well again")
        kept.add(client.enqueue("shop.note", {"text": "x" * 50_000}).id)
    assert ids_of(daemon) == kept


def test_a_disk_that_cannot_be_written_is_said_and_heals(
    daemon: Atlas, folder: Path, mount: Mount
) -> None:
    mount("--bind", str(folder), str(folder))
    mount("-o", "remount,bind,ro", str(folder))
    daemon.up()
    until(lambda: is_told(daemon, "queue.db"), "health to say it")
    done = subprocess.run(
        [sys.executable, "-m", "atlasd.cli.atlasctl", "job", "push", "a", "--root",
         str(daemon.root)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    mount("-o", "remount,bind,rw", str(folder))
    until(lambda: is_well(daemon), "health to be well again")
    daemon.client.call("job.enqueue", jobs=[{"kind": "a"}])
    assert len(ids_of(daemon)) == 1
