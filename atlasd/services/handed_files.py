"""The files that one service is handed: generations on tmpfs, exchanged in one step.

    <run>/services/secrets/web/             ours, 0711: others can neither list nor change it
        7/DB_PASSWORD                       0400 in a folder 0500, both the service's user's
        7.digest                            0600: what generation 7 was made of
        current -> 7

A program is told the path through `current`. A new generation is written whole beside the old one
and becomes the current one by a rename, so that a reader finds the old files or the new ones. What
`kill -9` leaves half-written was never current, and the next sweep takes it away.
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Mapping

_CURRENT = "current"
_NEXT = "next"
_DIGEST = ".digest"


class HandedFiles:
    """Those of one service. Nothing is made before there is something to hand."""

    def __init__(self, parent: str, service: str) -> None:
        self.folder = os.path.join(parent, service)
        self._is = ""
        """Digest of the current generation; empty when it is not known."""
        self.generation = 0
        """Number of the current generation; 0 when there is none, or it was not looked at yet."""

    @property
    def path(self) -> str:
        """The folder of the files, as programs are told: it always shows the current ones."""
        return f"{self.folder}/{_CURRENT}"

    def exchange(self, files: Mapping[str, bytes], uid: int, gid: int) -> bool:
        """Have the current generation be these files, of this owner; whether it was not yet.

        Raises `OSError`; the generation before stays the current one then.
        """
        digest = _digest(files, uid, gid)
        if not self._is:
            self._look()
        if digest == self._is:
            return False
        os.makedirs(self.folder, mode=0o711, exist_ok=True)
        number = max(self._numbers(), default=0) + 1
        try:
            self._write(number, digest, files, uid, gid)
            self._make_current(number)
        except OSError:
            self._remove(number)
            raise
        self._is, self.generation = digest, number
        return True

    def _write(
        self, number: int, digest: str, files: Mapping[str, bytes], uid: int, gid: int
    ) -> None:
        folder = f"{self.folder}/{number}"
        os.mkdir(folder, 0o700)
        foreign = (uid, gid) != (os.geteuid(), os.getegid())
        for name, data in files.items():
            fd = _new_file(f"{folder}/{name}", data, 0o400)
            try:
                if foreign:
                    os.fchown(fd, uid, gid)
            finally:
                os.close(fd)
        os.close(_new_file(f"{folder}{_DIGEST}", digest.encode(), 0o600))
        if foreign:
            os.chown(folder, uid, gid)
        os.chmod(folder, 0o500)

    def _make_current(self, number: int) -> None:
        link = f"{self.folder}/{_NEXT}"
        try:
            os.unlink(link)  # a predecessor's, which died just here
        except FileNotFoundError:
            pass
        os.symlink(str(number), link)
        os.rename(link, self.path)

    def _look(self) -> None:
        """Find out what a predecessor has left as the current generation."""
        self._is, self.generation = "", 0
        try:
            self.generation = int(os.readlink(self.path))
            # Ours alone: what lies in the generation itself is its user's to change.
            with open(f"{self.folder}/{self.generation}{_DIGEST}") as file:
                self._is = file.read()
        except (OSError, ValueError):
            pass

    def sweep(self, kept: Collection[int]) -> None:
        """Remove every generation but the current one and those of these numbers."""
        if not self._is:
            self._look()
        for number in self._numbers():
            if number != self.generation and number not in kept:
                self._remove(number)

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted({int(n) for n in (n.removesuffix(_DIGEST) for n in names) if n.isdigit()})

    def _remove(self, number: int) -> None:
        folder = f"{self.folder}/{number}"
        try:
            os.chmod(folder, 0o700)  # of our own: else nothing could be taken out of it
        except OSError:
            pass
        # It follows no link, whatever the files' user has put there.
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.unlink(f"{folder}{_DIGEST}")
        except OSError:
            pass

    def remove(self) -> None:
        """The service is no more, or is handed no file any longer."""
        for number in self._numbers():
            self._remove(number)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._is, self.generation = "", 0


def remove_strangers(parent: str, services: Collection[str]) -> None:
    """Remove what belongs to none of these services."""
    try:
        names = os.listdir(parent)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if name not in services:
            HandedFiles(parent, name).remove()


def _new_file(path: str, data: bytes, mode: int) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def _digest(files: Mapping[str, bytes], uid: int, gid: int) -> str:
    found = hashlib.blake2b(f"{uid} {gid}".encode(), digest_size=16)
    for name, data in sorted(files.items()):
        # Each length first, so that no two sets of files read the same.
        found.update(f"\n{len(name.encode())} {name} {len(data)} ".encode())
        found.update(data)
    return found.hexdigest()
