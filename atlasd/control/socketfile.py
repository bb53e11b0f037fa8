"""The control socket's file: one daemon at a time, and nothing left of one that died."""

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path

from atlasd.control.rights import group_id
from atlasd.errors import AtlasError

MODE = 0o660
"""Of the socket: its owner and the group `atlasd`."""


class ControlSocket:
    """A listening unix socket, one process's as long as that holds the lock beside it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock: int | None = None
        self._inode: tuple[int, int] | None = None

    def open(self) -> socket.socket:
        """The listening socket, in place of one that a dead daemon left.

        Raises `AtlasError` `daemon.running` when a living one has it, `daemon.directory` when the
        folder cannot be used.
        """
        try:
            self._take_lock()
            self._clear_the_way()
            return self._listen()
        except OSError as fault:
            self.close()
            raise AtlasError(
                "daemon.directory",
                f"the control socket {self.path} cannot be made: {fault.strerror or fault}",
                hint="check the folder's owner and mode, or choose another place with --root DIR",
            ) from fault
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the file, if it is still ours, and let go of the lock."""
        if self._inode is not None:
            with contextlib.suppress(OSError):
                now = os.lstat(self.path)
                if (now.st_dev, now.st_ino) == self._inode:
                    Path(self.path).unlink()
            self._inode = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        # Two daemons that start at once would both find the file stale, and the second would take
        # it from the first; the lock lets only one of them look.
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            os.close(lock)
            raise self._running(f"process {pid}" if pid else "another process") from None
        except OSError:
            os.close(lock)
            raise
        self._lock = lock
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)

    def _clear_the_way(self) -> None:
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise AtlasError(
                "daemon.directory",
                f"{self.path} is in the way: it is no socket",
                hint="move it away",
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.path)
            except (ConnectionRefusedError, FileNotFoundError):
                with contextlib.suppress(FileNotFoundError):
                    Path(self.path).unlink()
                return
            except BlockingIOError:
                pass  # its backlog is full: somebody is there, and busy
        raise self._running("another process")

    def _listen(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # Under a mask, not with chmod afterwards: there is no moment at which others can enter.
            before = os.umask(0o777 & ~MODE)
            try:
                listening.bind(self.path)
            finally:
                os.umask(before)
            made = os.lstat(self.path)
            self._inode = (made.st_dev, made.st_ino)
            group = group_id()
            if group is not None:
                # Only root, or a member of the group, can give the file to it.
                with contextlib.suppress(PermissionError):
                    os.chown(self.path, -1, group)
            listening.listen(128)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
        return listening

    def _running(self, who: str) -> AtlasError:
        return AtlasError(
            "daemon.running",
            f"another daemon serves {self.path}: {who}",
            hint="stop it with `atlasctl shutdown`, or use another root with --root DIR",
            details={"socket": self.path},
        )
