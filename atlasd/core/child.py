"""The services role as a process of ours: found or started, watched, started again, ended."""

import asyncio
import contextlib
import logging
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from atlasd.errors import AtlasError

START_TIMEOUT = 30.0
"""Seconds within which the role must listen on its socket."""
RETRY_FIRST = 0.1
RETRY_CAP = 5.0
"""Seconds between two starts of a role that falls; the time doubles from the first to the cap."""
NOT_FOR_CHILDREN = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS")

_log = logging.getLogger("atlasd.run")


class ServicesProcess:
    """The services role for `atlasd run`: in a session of its own, so that no Ctrl-C reaches it.

    One that runs already, left by a daemon that was killed, is used as it is.
    """

    def __init__(self, *, socket_path: str, log_file: str, root: str | None) -> None:
        """`root` is what `--root` says to the role; None: it finds its folders as we did."""
        self.pid: int | None = None
        self.found = False
        """Whether it was there already."""
        self._socket_path = socket_path
        self._log_file = log_file
        self._root = root
        self._child: subprocess.Popen[bytes] | None = None
        self._ending = False
        self.over: Callable[[], bool] = lambda: False
        """Whether the role is meant to end, so that it must not be started again."""

    async def ensure(self) -> int:
        """The role's pid, once it answers. Raises `AtlasError` when it does not come up."""
        pid = listening_pid(self._socket_path)
        self.found = pid is not None
        if pid is None:
            self._child = await asyncio.to_thread(self._spawn)
            pid = await self._wait_until_it_listens(self._child)
        self.pid = pid
        return pid

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "atlasd", "services"]
        if self._root is not None:
            command += ["--root", self._root]
        with Path(self._log_file).open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment(os.environ),
                start_new_session=True,
            )

    async def _wait_until_it_listens(self, child: subprocess.Popen[bytes]) -> int:
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT
        pause = 0.005
        while True:
            if child.poll() is not None:
                raise self._failed(f"it ended with code {child.returncode}")
            pid = listening_pid(self._socket_path)
            if pid is not None:
                return pid
            if asyncio.get_running_loop().time() > deadline:
                child.kill()
                await asyncio.to_thread(child.wait)
                raise self._failed(f"it does not listen after {START_TIMEOUT:g} s")
            await asyncio.sleep(pause)
            pause = min(0.1, pause * 1.5)

    def _failed(self, why: str) -> AtlasError:
        last = _last_line(self._log_file)
        return AtlasError(
            "services.unreachable",
            f"the services role could not be started: {why}" + (f": {last}" if last else ""),
            hint=f"its log is {self._log_file}",
        )

    async def keep(self) -> None:
        """Start it again whenever it ends, until `ended` or cancelled; its services live on."""
        pause = RETRY_FIRST
        while not self._over():
            assert self.pid is not None
            began = asyncio.get_running_loop().time()
            await self._wait_for_end(self.pid)
            if self._over():
                return
            _log.warning("the services role (pid %d) has ended; it is started again", self.pid)
            if asyncio.get_running_loop().time() - began > 60.0:
                pause = RETRY_FIRST
            while True:
                try:
                    await self.ensure()
                    break
                except AtlasError as error:
                    _log.error("%s", error.message)
                    await asyncio.sleep(pause)
                    pause = min(RETRY_CAP, pause * 2)

    async def ended(self, timeout: float) -> bool:
        """Wait until the role, which was told to end, has ended; whether it has."""
        self._ending = True
        if self.pid is None:
            return True
        try:
            async with asyncio.timeout(timeout):
                await self._wait_for_end(self.pid)
        except TimeoutError:
            return False
        return True

    def dismiss(self, target: Path) -> None:
        """End the role that `ensure` started, after a start that failed; unless it has work.

        `target` is the file in which it keeps what is to run. With one it may have taken over
        services that have run for long, which are not ours to end.
        """
        if self._child is None or self.found:
            return
        if target.exists():
            _log.warning(
                "the services role (pid %s) stays, with the services that it was told to run "
                "before: the next atlasd takes them over, and `kill %s` stops them",
                self.pid, self.pid,
            )  # fmt: skip
            return
        self._ending = True
        self._child.terminate()

    def _over(self) -> bool:
        return self._ending or self.over()

    async def _wait_for_end(self, pid: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            handle = -1
        if handle >= 0:
            over = asyncio.Event()
            loop.add_reader(handle, over.set)
            try:
                await over.wait()
            finally:
                loop.remove_reader(handle)
                os.close(handle)
        if self._child is not None and self._child.pid == pid:
            await asyncio.to_thread(self._child.wait)
            self._child = None


def listening_pid(path: str) -> int | None:
    """The process that listens on a unix socket, or None when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, TimeoutError, BlockingIOError):
            return None
        raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", raw)[0]
        return pid


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what systemd says to this process alone."""
    return {key: value for key, value in own.items() if key not in NOT_FOR_CHILDREN}


def _last_line(path: str) -> str:
    with contextlib.suppress(OSError):
        with Path(path).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = [line for line in file.read().splitlines() if line.strip()]
        if lines:
            return lines[-1].decode(errors="replace").strip()
    return ""
