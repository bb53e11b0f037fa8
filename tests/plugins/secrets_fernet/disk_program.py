"""A store on a disk that is full, then read-only; test_disk.py runs it in a mount namespace.

    unshare --mount python disk_program.py FOLDER

It mounts a small file system on FOLDER/state, and prints one line of JSON for each thing it tried.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from atlasd.contracts.secrets import SecretValue
from atlasd.errors import AtlasError
from atlasd.testing import PlainContext
from atlasd_plugins.secrets_fernet import FernetSettings, open_backend
from atlasd_plugins.secrets_fernet.store import FernetStore


def tell(**words: object) -> None:
    """One line of what came out."""
    sys.stdout.write(f"{json.dumps(words)}\n")


async def put(store: FernetStore, name: str, size: int) -> str:
    """Put a value of a size; the code of the error, or nothing."""
    try:
        await store.put(name, SecretValue("v" * size))
    except AtlasError as error:
        return f"{error.code}: {error.message}"
    return ""


async def readable(store: FernetStore, names: list[str]) -> int:
    """How many of these can be read."""
    return sum([(await store.get(name)).value is not None for name in names])


def mount(folder: Path, *options: str) -> None:
    """Mount a file system of 256 KiB, or change how it is mounted."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "store", str(folder)], check=True
    )


async def die_after_a_put(etc: Path, state: Path) -> None:
    """Leave the store as a killed process does, with what was put in its log only."""
    program = (
        "import asyncio, os, sys; sys.path[:0] = [os.path.dirname(sys.argv[1])]\n"
        "import disk_program; asyncio.run(disk_program.put_and_die(*sys.argv[2:]))"
    )
    died = subprocess.run(  # noqa: ASYNC221  nothing else is to run meanwhile
        [sys.executable, "-c", program, __file__, str(etc), str(state)], check=False
    )
    tell(what="killed", signal=-died.returncode)


async def put_and_die(etc: str, state: str) -> None:
    """In a process of its own: put one secret, and be killed."""
    context = PlainContext(Path(state), config_dir=Path(etc))
    async with open_backend(FernetSettings(), context) as store:
        await store.put("of-the-dead", SecretValue("v"))
        os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    """Fill the disk, make room, make it read-only, make it writable."""
    folder = Path(sys.argv[1])
    etc, state = folder / "etc", folder / "state"
    mount(state, "size=256k", "mode=0700")
    context = PlainContext(state, config_dir=etc)
    async with open_backend(FernetSettings(), context) as store:
        assert isinstance(store, FernetStore)
        await store.keygen()
        names: list[str] = []
        fault = ""
        while not fault and len(names) < 1000:
            fault = await put(store, f"n/{len(names)}", 2000)
            if not fault:
                names.append(f"n/{len(names)}")
        tell(what="full", fault=fault, put=len(names), readable=await readable(store, names))
        answers = await asyncio.gather(
            *[put(store, f"m/{number}", 60_000) for number in range(4)], readable(store, names)
        )
        tell(what="several while full", answers=answers)
        mount(state, "remount", "size=4m")
        tell(what="room", fault=await put(store, "after", 2000))
        names.append("after")
    await die_after_a_put(etc, state)
    names.append("of-the-dead")
    mount(state, "remount", "ro")
    async with open_backend(FernetSettings(), context) as store:
        assert isinstance(store, FernetStore)
        try:
            fault, count = "", await readable(store, names)
        except AtlasError as error:
            fault, count = f"{error.code}: {error.message}", 0
        tell(what="read-only after a kill", fault=fault, readable=count, names=len(names))
        mount(state, "remount", "rw")
    async with open_backend(FernetSettings(), context) as store:
        assert isinstance(store, FernetStore)
        await put(store, "closed", 10)
    mount(state, "remount", "ro")
    async with open_backend(FernetSettings(), context) as store:
        assert isinstance(store, FernetStore)
        tell(
            what="read-only",
            readable=await readable(store, names),
            fault=await put(store, "never", 10),
            names=len(names),
        )
        mount(state, "remount", "rw")
        tell(what="writable", fault=await put(store, "again", 10))
        tell(what="all", readable=await readable(store, names), listed=len(await store.list()))
    context.close()


if __name__ == "__main__":
    asyncio.run(main())
