"""What a configuration refers to outside itself: accounts, programs, files."""

import grp
import os
import pwd
import shutil
from pathlib import Path
from typing import Protocol


class Surroundings(Protocol):
    """The host, as far as validation asks about it; a test brings its own."""

    def has_user(self, user: str) -> bool:
        """Whether there is a user of this name or number."""

    def has_group(self, group: str) -> bool:
        """Whether there is a group of this name or number."""

    def has_program(self, word: str, *, search: str, cwd: str) -> bool:
        """Whether a command's first word can be run; `search` is a PATH."""

    def is_folder(self, path: str) -> bool:
        """Whether the path is a folder."""

    def is_root(self) -> bool:
        """Whether atlasd may run programs as other users."""

    def read(self, path: str) -> bytes:
        """The contents of a file; raises `OSError`."""


class ThisHost:
    """The host that this process runs on."""

    def has_user(self, user: str) -> bool:
        """See `Surroundings`. A number needs an entry too: supplementary groups come from it."""
        try:
            if user.isdecimal():
                pwd.getpwuid(int(user))
            else:
                pwd.getpwnam(user)
        except (KeyError, OverflowError):
            return False
        return True

    def has_group(self, group: str) -> bool:
        """See `Surroundings`. Any number will do: a process needs no name for its group."""
        if group.isdecimal():
            return True
        try:
            grp.getgrnam(group)
        except KeyError:
            return False
        return True

    def has_program(self, word: str, *, search: str, cwd: str) -> bool:
        """See `Surroundings`."""
        if "/" in word:
            return shutil.which(str(Path(cwd) / word)) is not None
        return shutil.which(word, path=search) is not None

    def is_folder(self, path: str) -> bool:
        """See `Surroundings`."""
        return Path(path).is_dir()

    def is_root(self) -> bool:
        """See `Surroundings`."""
        return os.geteuid() == 0

    def read(self, path: str) -> bytes:
        """See `Surroundings`."""
        return Path(path).read_bytes()
