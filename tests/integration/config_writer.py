"""Changes, reloads and rolls back a configuration until it is killed; for `test_config_kills`.

It loads once and then forks: each line on standard input is a seed, answered with the pid of a
process that works from there on. What a process begins and has done it writes to a journal that
outlives it.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

from atlasd.config import history as history_module
from atlasd.config.editing import Editor, Texts, Where, overlaid
from atlasd.config.generations import Generations
from atlasd.config.history import History
from atlasd.config.load import Config, load
from atlasd.config.restoring import Restorer
from atlasd.config.writing import finish
from atlasd.paths import Paths, find
from atlasd.store import Store
from atlasd_plugins.config_toml import register_config_sources

KEY = ("services", "web", "env", "COUNT")
SOURCES = register_config_sources()


def read(paths: Paths, texts: Texts | None = None) -> Config:
    """The configuration with these texts; what an interrupted writer has left is finished first."""
    if texts is None:
        finish(Path(paths.etc))
    return load(paths, overlaid(SOURCES, texts or {}), environ={"PATH": "/usr/bin:/bin"})


async def begin(paths: Paths, store: Store) -> Generations:
    """As core begins."""
    return await Generations.begin(
        read(paths),
        load=lambda: read(paths),
        history=History(store),
        review=lambda _diff: (),
        parts=Path(paths.config_parts),
    )


async def work(root: str, seed: int, journal: int) -> None:
    """Do one thing after the other."""
    chance = random.Random(seed)
    paths = find(root=root)
    store = Store.open(Path(paths.database), {"generations": history_module.SCHEMA})
    generations = await begin(paths, store)
    editor = Editor(paths, lambda texts, _env: read(paths, texts))
    restorer = Restorer(paths, generations.history, generations.present)
    while True:
        what = chance.choice(["set", "set", "reload", "rollback"])
        argument = chance.randrange(10**6)
        if what == "rollback":
            argument = chance.choice([one.number for one in await generations.history.all()])
        os.write(journal, f"{what} {argument}\n".encode())
        if what == "set":
            await asyncio.to_thread(editor.set, KEY, str(argument), Where())
        elif what == "reload":
            await generations.accept(await generations.candidate(), actor="test")
        else:
            await restorer.restore(argument, force=True)
        os.write(journal, b"done\n")


def main() -> None:
    """Fork for each seed."""
    root, log = sys.argv[1:]
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            journal = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                asyncio.run(work(root, int(line), journal))
            finally:
                os._exit(1)  # it only ends by itself when it has failed
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
