"""`kill -9` while a configuration is changed, reloaded or rolled back: old or new, never half."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atlasd.config import edit, snapshot
from atlasd.config import history as history_module
from atlasd.config.history import History
from atlasd.config.snapshot import Snapshot
from atlasd.config.writing import JOURNAL
from atlasd.errors import AtlasError
from atlasd.paths import Paths, find
from atlasd.store import Store
from tests.integration.config_writer import KEY, begin, read
from tests.integration.daemons import Atlas, atlas, until

TRIALS = 60
LONGEST = 0.25
"""Seconds after which a process is killed at the latest; what it does takes a few hundredths."""
SEED = 20261125


def main_file(state: int) -> str:
    return f"""\
# state {state}
[services.web]
command = "sleep {state}"
[services.web.env]
COUNT = "0"  # changes
"""


def part(state: int) -> str:
    return f'# state {state}\n[services.db]\ncommand = "sleep {state}"\n'


class Table:
    """A root, and what is known of its state."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "journal"
        self.paths: Paths = find(root=str(root))
        for folder in (self.paths.config_parts, self.paths.state):
            Path(folder).mkdir(parents=True)
        self.files = (self.paths.config_file, str(Path(self.paths.config_parts, "part.toml")))

    def write(self, state: int) -> None:
        Path(self.files[0]).write_text(main_file(state))
        Path(self.files[1]).write_text(part(state))

    def now(self) -> Snapshot:
        return snapshot.take(self.files)

    def store(self) -> Store:
        return Store.open(Path(self.paths.database), {"generations": history_module.SCHEMA})

    async def after(self, before: Snapshot, kept: dict[int, Snapshot]) -> list[Snapshot]:
        """The states that the files may be in: the last that is certain, and perhaps the next."""
        states = [before]
        pending = ""
        for line in self.log.read_text().splitlines():
            if line == "done":
                states = states[-1:]
                pending = ""
                continue
            assert not pending
            pending = line
            what, argument = line.split()
            if what == "set":
                states.append(with_count(states[-1], argument))
            elif what == "rollback":
                if int(argument) not in kept:
                    # It was accepted by this very process: the store says what it was.
                    kept.update(await self.kept())
                states.append(kept[int(argument)])
        return states

    async def kept(self) -> dict[int, Snapshot]:
        store = self.store()
        try:
            history = History(store)
            return {
                one.number: (await history.get(one.number)).files for one in await history.all()
            }
        finally:
            await store.close()


def with_count(before: Snapshot, value: str) -> Snapshot:
    main = next(one for one in before.files if one.path.endswith("atlasd.toml"))
    text = edit.set_value(main.content.decode(), KEY, value)
    return Snapshot(
        files=tuple(
            snapshot.FileText(path=one.path, content=text.encode(), mode=one.mode)
            if one is main
            else one
            for one in before.files
        )
    )


@contextmanager
def writer(table: Table) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.config_writer", str(table.root), str(table.log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def contents(found: Snapshot) -> list[tuple[str, bytes]]:
    return [(one.path, one.content) for one in found.files]


async def test_a_writer_that_is_killed_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    table = Table(tmp_path)
    chance = random.Random(SEED)
    store = table.store()
    for state in range(1, 4):
        table.write(state)
        generations = await begin(table.paths, store)
        assert generations.current.generation == state
    await store.close()
    seen = {"set": 0, "reload": 0, "rollback": 0}
    outcomes = {"old": 0, "new": 0}
    certain = table.now()
    with writer(table) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for trial in range(TRIALS):
            kept = await table.kept()
            table.log.write_text("")
            print(trial, file=process.stdin, flush=True)
            pid = int(process.stdout.readline())
            until(table.log.read_text, f"trial {trial} to begin")
            await asyncio.sleep(chance.random() * LONGEST)
            os.kill(pid, signal.SIGKILL)
            assert int(process.stdout.readline()) == -signal.SIGKILL

            store = table.store()
            generations = await begin(table.paths, store)  # as the next daemon does it
            last = await generations.history.last()
            await store.close()
            states = await table.after(certain, kept)
            found = table.now()
            assert contents(found) in [contents(state) for state in states], f"trial {trial}"
            texts = [one.content.decode().splitlines()[0] for one in found.files]
            assert texts[0] == texts[1], f"trial {trial}: half of a state"
            assert not Path(table.paths.etc, JOURNAL).exists()
            assert last is not None
            assert last.files == found
            assert last.number >= max(kept)
            assert read(table.paths).settings.services.keys() == {"web", "db"}
            certain = found
            lines = table.log.read_text().splitlines()
            for line in lines:
                if line != "done":
                    seen[line.split()[0]] += 1
            if lines and lines[-1] != "done" and len(states) > 1:
                changed = contents(found) == contents(states[-1])
                outcomes["new" if changed else "old"] += 1
    # The trials hit what they are about.
    assert all(count >= TRIALS / 4 for count in seen.values()), seen
    assert outcomes["old"] > 0, outcomes


def test_a_core_that_is_killed_while_it_takes_over_begins_again_whole() -> None:
    chance = random.Random(SEED)
    with atlas() as host:
        host.configure(main_file(1))
        daemon = host.up()
        for what in ("config.set", "config.rollback", "config.rollback"):
            for state in (2, 3):
                host.configure(main_file(state))
                host.client.call("config.reload")
            earlier = host.client.call("config.show")["generation"] - 1
            given = {"generation": earlier} if what == "config.rollback" else {"key": ".".join(KEY)}
            asked = subprocess.Popen(
                [sys.executable, "-c", ASK, str(host.root), what, str(given)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                time.sleep(chance.random() * 0.6)
                daemon.kill()
                daemon.wait()
            finally:
                asked.kill()
                asked.wait()
            daemon = host.up()
            text = Path(host.paths.config_file).read_text()
            # A file is whole: its first line and its command are of one state.
            assert any(f"# state {n}" in text and f'"sleep {n}"' in text for n in (2, 3))
            shown = host.client.call("config.show")
            assert f'"{shown["settings"]["services"]["web"]["command"]}"' in text
            assert health(host) == "pass"


ASK = """
import ast, sys
from atlasd.control.client import Client
from atlasd.paths import find
root, what, given = sys.argv[1:]
fields = ast.literal_eval(given)
if what == "config.set":
    fields["value"] = "7"
Client(find(root=root).control_socket, timeout=30).call(what, **fields)
"""


def health(host: Atlas) -> str:
    def settled() -> str:
        try:
            return str(host.client.call("health")["checks"]["atlasd:config"][0]["status"])
        except AtlasError:
            return ""

    return str(until(settled, "the verdict on the configuration"))
