"""Workers that use a store, killed at random moments; test_killed.py runs it.

    python killed_program.py FOLDER TRIALS SEED

Modules are imported once, then each worker is forked, does random operations, says through a pipe
what it begins and what is done, and is killed. The next one first looks whether all that was done
is there, and of what was begun all or nothing. What is wrong is printed; silence is good.
"""

import asyncio
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from atlasd.contracts.secrets import SecretValue
from atlasd.errors import AtlasError
from atlasd.testing import PlainContext
from atlasd_plugins.secrets_fernet import FernetSettings, open_backend, ring
from atlasd_plugins.secrets_fernet.store import FernetStore

NAMES = [f"n/{number}" for number in range(12)]
FILLING = 200
"""Records that are there from the beginning, so that a rotation takes some transactions."""
MOST = 3
"""Operations that a worker may begin."""
LONGEST = {"put": 0.008, "keygen": 0.008, "rotate": 0.12}
"""Seconds after the beginning of its last operation at which a worker is killed at the latest."""


class Expected:
    """What must be there, as far as the workers have told."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, str]] = {name: {} for name in NAMES}
        """By name and version."""
        self.begun: dict[str, Any] | None = None
        self.touched: set[str] = set(NAMES)
        self.counts: dict[str, int] = {}

    def hear(self, line: dict[str, Any]) -> None:
        """Take what a worker says."""
        if "begin" in line:
            self.begun = line
            self.counts[line["begin"]] = self.counts.get(line["begin"], 0) + 1
            return
        self.begun = None
        self.counts[f"{line['done']} done"] = self.counts.get(f"{line['done']} done", 0) + 1
        if line["done"] == "put":
            self.values[line["name"]][line["version"]] = line["value"]
            self.touched.add(line["name"])

    async def look(self, store: FernetStore) -> list[str]:
        """What is wrong. A put that had begun may be there or not; if it is, it counts from now."""
        wrong = []
        for name in sorted(self.touched):
            values = self.values[name]
            try:
                versions = await store.versions(name)
            except AtlasError as error:
                if values or error.code != "secret.not_found":
                    wrong.append(f"{name}: {error.code}: {error.message}")
                versions = []
            there = {v.version for v in versions}
            begun = self.begun if self.begun and self.begun.get("name") == name else {}
            more = there - values.keys()
            if values.keys() - there:
                wrong.append(f"{name}: lost {sorted(values.keys() - there)}")
            if len(more) > (begun.get("begin") == "put"):
                wrong.append(f"{name}: {sorted(more)} came from nowhere")
            for version in more:
                values[version] = begun.get("value", "?")
            for found in versions:
                got = (await store.get(name, version=found.version)).value
                if got is None or got.text() != values.get(found.version):
                    wrong.append(f"{name}: version {found.version} is another value")
                newest = found.version == str(max(map(int, there)))
                if ("current" in found.stages) != newest:
                    wrong.append(f"{name}: {found.version} has {found.stages}")
        wrong += [
            f"key {key.id} is missing" for key in await store.keys() if key.source == "missing"
        ]
        return wrong


async def work(folder: Path, seed: int, expected: Expected, out: int) -> None:
    """Look, say so, then do operations until the end comes."""

    def say(**words: object) -> None:
        os.write(out, json.dumps(words).encode() + b"\n")

    generator = random.Random(seed)
    context = PlainContext(folder / "state", config_dir=folder / "etc")
    async with open_backend(FernetSettings(keep_versions=1000), context) as store:
        assert isinstance(store, FernetStore)
        begun = expected.begun
        if begun and begun.get("name"):
            expected.touched = {begun["name"], *expected.touched}
        wrong = await expected.look(store)
        say(looked=wrong, adopted={name: expected.values[name] for name in expected.touched})
        while True:
            if generator.random() < 0.75:
                name = generator.choice(NAMES)
                value = f"{generator.random()}" * generator.choice([1, 1, 80])
                say(begin="put", name=name, value=value)
                version = (await store.put(name, SecretValue(value))).version
                say(done="put", name=name, version=version, value=value)
                continue
            if len(await store.keys()) < 3:
                say(begin="keygen")
                await store.keygen()
                say(done="keygen")
            say(begin="rotate")
            await store.rotate_keys()
            say(done="rotate")


def trial(folder: Path, seed: int, expected: Expected) -> list[str]:
    """One worker's life. What it found wrong of those before it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            asyncio.run(work(folder, seed, expected, writer))
        finally:
            os._exit(1)
    os.close(writer)
    told = _until_its_time_has_come(reader, random.Random(seed + 1))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    while chunk := os.read(reader, 65536):
        told += chunk
    os.close(reader)
    lines = [json.loads(line) for line in told.split(b"\n")[:-1]]
    if not lines or not os.WIFSIGNALED(status):
        return [f"seed {seed}: a worker ended by itself"]
    expected.begun = None
    expected.touched = set()
    wrong = [f"seed {seed}: {words}" for words in lines[0]["looked"]]
    expected.values |= lines[0]["adopted"]
    for line in lines[1:]:
        expected.hear(line)
    return wrong


def _until_its_time_has_come(reader: int, generator: random.Random) -> bytes:
    """What a worker says until a random moment in one of the operations that it begins."""
    fatal = generator.randint(1, MOST)
    told = b""
    deadline = time.monotonic() + 60
    chosen = False
    while (left := deadline - time.monotonic()) > 0 and select.select([reader], [], [], left)[0]:
        chunk = os.read(reader, 65536)
        if not chunk:
            break
        told += chunk
        begun = [line for line in told.split(b"\n")[:-1] if line.startswith(b'{"begin"')]
        if len(begun) >= fatal and not chosen:
            chosen = True
            what = json.loads(begun[fatal - 1])["begin"]
            deadline = time.monotonic() + generator.random() * LONGEST[what]
    return told


async def prepare(folder: Path) -> None:
    """A store with some records in it."""
    context = PlainContext(folder / "state", config_dir=folder / "etc")
    async with open_backend(FernetSettings(), context) as store:
        assert isinstance(store, FernetStore)
        await store.keygen()
        await asyncio.gather(
            *[store.put(f"filling/{i}", SecretValue(f"v{i}")) for i in range(FILLING)]
        )
    context.close()


async def look_at_all(folder: Path, expected: Expected) -> list[str]:
    """Everything, at the end; then rotate once more, and nothing may be left of old keys."""
    context = PlainContext(folder / "state", config_dir=folder / "etc")
    async with open_backend(FernetSettings(), context) as store:
        assert isinstance(store, FernetStore)
        expected.touched = set(NAMES)
        wrong = await expected.look(store)
        await store.rotate_keys()
        if [key.primary for key in await store.keys()] != [True]:
            wrong.append("old keys are left")
        wrong += await expected.look(store)
        for number in range(FILLING):
            got = (await store.get(f"filling/{number}")).value
            if got is None or got.text() != f"v{number}":
                wrong.append(f"filling/{number} is another value")
    context.close()
    return wrong


def main() -> None:
    """Run the trials; the last line says what the workers had done."""
    folder, trials, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    ring.PAGE = 20  # a rotation is many small transactions, with a kill between any two of them
    for name in ("etc", "state"):
        (folder / name).mkdir(mode=0o700)
    child = os.fork()
    if child == 0:  # threads end with it: from here on there is one, and it can fork
        asyncio.run(prepare(folder))
        os._exit(0)
    os.waitpid(child, 0)
    expected = Expected()
    for number in range(trials):
        for words in trial(folder, seed + 2 * number, expected):
            sys.stdout.write(f"trial {number}: {words}\n")
    for words in asyncio.run(look_at_all(folder, expected)):
        sys.stdout.write(f"at the end: {words}\n")
    sys.stdout.write(f"{json.dumps(expected.counts)}\n")


if __name__ == "__main__":
    main()
