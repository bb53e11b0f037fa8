"""Following the files of a configuration: when something has really changed, and come to rest.

The kernel tells of every change in the folders concerned; nothing is looked at in between. Editors
write a file in many ways: over the old one, beside it and renamed, the old one moved away first.
Kubernetes exchanges a symbolic link to a whole folder. So the folders are watched, those of each
link on the way included, and what counts in the end is whether the contents differ.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from atlasd.config.snapshot import take
from atlasd.inotify import Heard, Inotify

QUIET = 0.15
"""Seconds without another change after which the files are looked at."""
LONGEST = 2.0
"""Seconds after which they are looked at although changes go on."""
MOST_LINKS = 40
"""Symbolic links that are followed on the way to a file, as the kernel does."""

_log = logging.getLogger("atlasd.config")


@dataclass(frozen=True, kw_only=True)
class Places:
    """What is to be followed."""

    files: frozenset[str]
    """Single files, those included that are not there (yet)."""
    folders: frozenset[str] = frozenset()
    """Folders in which every file counts."""


@dataclass(kw_only=True)
class Watched:
    """The folders that have to be watched for some places, and the names in each that count."""

    names: dict[str, set[str]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)

    def counts(self, heard: Heard) -> bool:
        """Whether an event may be about one of the places."""
        if not heard.folder or heard.gone or not heard.name:
            return True
        if heard.folder in self.whole:
            return not heard.name.startswith(".") or heard.name in self.names.get(heard.folder, ())
        return heard.name in self.names.get(heard.folder, ())

    @property
    def folders(self) -> frozenset[str]:
        """All folders."""
        return frozenset((*self.names, *self.whole))


Look = Callable[[str], str | bool]
"""What is at a path: the text of a symbolic link, else whether there is anything."""


def look(path: str) -> str | bool:
    """See `Look`; what cannot be looked at counts as missing."""
    try:
        return os.readlink(path)  # noqa: PTH115  texts throughout
    except OSError:
        return os.path.lexists(path)


def watched(places: Places, look: Look) -> Watched:
    """What has to be watched so that no change of the places goes unheard."""
    found = Watched()
    for path in (*places.files, *places.folders):
        steps, end = trail(path, look)
        for folder, name in steps:
            found.names.setdefault(folder, set()).add(name)
        if path in places.folders and end:
            found.whole.add(end)
    return found


def trail(path: str, look: Look) -> tuple[list[tuple[str, str]], str]:
    """The (folder, name) pairs on which it depends what is at a path, and where that really is.

    These are the links on the way, the last part, and the first part that is not there: then the
    second answer is empty.
    """
    steps: list[tuple[str, str]] = []
    parts = [part for part in os.path.abspath(path).split("/") if part]  # noqa: PTH100
    here = "/"
    links = 0
    while parts:
        name = parts.pop(0)
        if name in ("..", "."):
            here = os.path.dirname(here) if name == ".." else here  # noqa: PTH120
            continue
        below = os.path.join(here, name)  # noqa: PTH118
        found = look(below)
        if found is False:
            return [*steps, (here, name)], ""
        if isinstance(found, str):
            steps.append((here, name))
            links += 1
            if links > MOST_LINKS:
                return steps, ""
            parts = [part for part in found.split("/") if part] + parts
            here = "/" if found.startswith("/") else here
            continue
        if not parts:
            steps.append((here, name))
        here = below
    return steps, here


class Watcher:
    """Calls `changed` whenever the contents of the places differ from those last seen.

    Raises `OSError` when it is made where the kernel allows no watching.
    """

    def __init__(
        self,
        places: Callable[[], Places],
        changed: Callable[[], Awaitable[object]],
        *,
        seen: Callable[[], Mapping[str, str]],
    ) -> None:
        """`places` says what is to be followed now, `seen` by path the digests that are known."""
        self._places = places
        self._changed = changed
        self._seen = seen
        self._inotify = Inotify()
        self._watched = Watched()
        self._heard = asyncio.Event()
        self._short = False
        """Whether the kernel has no room for all watches; said once."""

    async def run(self) -> None:
        """Follow the files until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._inotify.descriptor, self._listen)
        known = self._seen()
        try:
            self._rewatch()
            # What changed before the watch stood is found by comparing once.
            self.look()
            while True:
                await self._heard.wait()
                await self._rest()
                places = self._places()
                self._rewatch()
                now = await asyncio.to_thread(digests, places)
                if now == known:
                    continue
                # As it was before anybody read it: what changes meanwhile is another change.
                known = now
                await self._changed()
                if self._places() != places:
                    self.look()
        finally:
            loop.remove_reader(self._inotify.descriptor)
            self._inotify.close()

    def look(self) -> None:
        """Compare soon, whatever the kernel says: the places are others."""
        self._heard.set()

    def _listen(self) -> None:
        if any(self._watched.counts(heard) for heard in self._inotify.read()):
            self._heard.set()

    async def _rest(self) -> None:
        """Return when nothing was heard for a while."""
        deadline = asyncio.get_running_loop().time() + LONGEST
        while self._heard.is_set() and asyncio.get_running_loop().time() < deadline:
            self._heard.clear()
            await asyncio.sleep(QUIET)
        self._heard.clear()

    def _rewatch(self) -> None:
        self._watched = watched(self._places(), look)
        try:
            self._inotify.watch(self._watched.folders)
        except OSError as error:
            if not self._short:
                _log.warning(
                    "not every folder of the configuration is followed: %s: %s; raise "
                    "fs.inotify.max_user_watches",
                    error.filename,
                    error.strerror,
                )
            self._short = True
        else:
            self._short = False


def digests(places: Places) -> dict[str, str]:
    """By path a digest of each file that is there; empty for what is there and can't be read."""
    paths = set(places.files)
    for folder in places.folders:
        paths.update(_files_in(folder))
    found = {one.path: one.digest for one in take(paths).files}
    return found | {path: "" for path in paths - found.keys() if os.path.lexists(path)}


def _files_in(folder: str) -> Iterable[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []
