"""Files that are followed as the kernel tells of them, changed as editors and Kubernetes do it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atlasd.config.watching import Places, Watcher


class Desk:
    """A folder that is watched, and what was heard of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "a.toml"
        self.file.write_text("one")
        self.parts = folder / "conf.d"
        self.heard: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    def places(self) -> Places:
        return Places(files=frozenset({str(self.file)}), folders=frozenset({str(self.parts)}))

    async def changed(self) -> None:
        names = {self.file, *(self.parts.iterdir() if self.parts.is_dir() else ())}
        await self.heard.put({p.name: p.read_text() for p in names if p.is_file()})

    async def says(self, **files: str) -> None:
        """What the files hold, as it was heard at last; each form is heard, or a later one."""
        wanted = {name.replace("_", "."): text for name, text in files.items()}
        async with asyncio.timeout(30):
            while await self.heard.get() != wanted:
                pass


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[Desk]:
    desk = Desk(folder)
    watcher = Watcher(desk.places, desk.changed, seen=dict)
    task = asyncio.create_task(watcher.run())
    try:
        await desk.says(a_toml="one")
        yield desk
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def over(path: Path, text: str) -> None:
    """As `echo text > path` does it."""
    path.write_text(text)


def renamed(path: Path, text: str) -> None:
    """As sed -i and most editors do it."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


def moved_away(path: Path, text: str) -> None:
    """As vim does it with `backupcopy=no`."""
    path.replace(path.with_name(path.name + "~"))
    path.write_text(text)
    path.with_name(path.name + "~").unlink()


def removed(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


@pytest.mark.parametrize("write", [over, renamed, moved_away, removed])
async def test_a_change_is_heard_however_it_is_written(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    async with watching(tmp_path) as desk:
        for text in ("two", "three", "four"):
            write(desk.file, text)
            await desk.says(a_toml=text)


async def test_links_that_are_exchanged_as_kubernetes_does_it(tmp_path: Path) -> None:
    def volume(number: int) -> None:
        made = tmp_path / f"..{number}"
        made.mkdir()
        (made / "a.toml").write_text(f"v{number}")
        (tmp_path / "..data_tmp").symlink_to(made.name)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    async with watching(tmp_path) as desk:
        volume(1)
        (tmp_path / "link").symlink_to("..data/a.toml")
        (tmp_path / "link").replace(desk.file)
        await desk.says(a_toml="v1")
        for number in (2, 3):
            volume(number)
            await desk.says(a_toml=f"v{number}")
        # And a file at the end of the links is written in place.
        (tmp_path / "..3" / "a.toml").write_text("v4")
        await desk.says(a_toml="v4")


async def test_a_folder_that_is_made_later_is_followed_and_files_in_it(tmp_path: Path) -> None:
    async with watching(tmp_path) as desk:
        desk.parts.mkdir()
        (desk.parts / "x.toml").write_text("x")
        await desk.says(a_toml="one", x_toml="x")
        (desk.parts / "y.toml").write_text("y")
        await desk.says(a_toml="one", x_toml="x", y_toml="y")
        (desk.parts / "x.toml").unlink()
        await desk.says(a_toml="one", y_toml="y")
        # The whole folder is exchanged for another one.
        other = tmp_path / "other"
        other.mkdir()
        (other / "z.toml").write_text("z")
        desk.parts.rename(tmp_path / "old")
        other.rename(desk.parts)
        await desk.says(a_toml="one", z_toml="z")
        (desk.parts / "z.toml").write_text("zz")
        await desk.says(a_toml="one", z_toml="zz")


async def test_what_cannot_be_read_is_told_of_too(tmp_path: Path) -> None:
    async with watching(tmp_path) as desk:
        desk.parts.mkdir()
        for make in (os.mkfifo, lambda p: p.symlink_to("nowhere"), Path.mkdir):
            path = desk.parts / "x.toml"
            make(path)
            await desk.says(a_toml="one")
            path.rmdir() if path.is_dir() else path.unlink()
            await desk.says(a_toml="one")


async def test_what_changes_nothing_is_not_told(tmp_path: Path) -> None:
    async with watching(tmp_path) as desk:
        desk.file.touch()
        desk.file.chmod(0o600)
        renamed(desk.file, "one")
        (tmp_path / "notes").write_text("x")
        os.utime(desk.file)
        over(desk.file, "two")
        async with asyncio.timeout(30):
            first = await desk.heard.get()
        assert first == {"a.toml": "two"}
        assert desk.heard.empty()
