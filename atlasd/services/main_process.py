"""The main process of one instance: who it is, proven, and how to be told of its end."""

import os
import signal
from typing import TYPE_CHECKING

from atlasd.services import procinfo
from atlasd.services.adopted_exit import AdoptedExit

if TYPE_CHECKING:
    from atlasd.services.unit import Unit


class MainProcess:
    """Its identity: a pid alone means nothing, so a pidfd pins it, and its start time proves it."""

    def __init__(self, unit: "Unit") -> None:
        self._unit = unit
        self._held_name = f"pidfd/{unit.service.name}/{unit.index}"
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.last_pid = 0
        """Of the last one, whether it lives or not."""
        self._start_time: int | None = 0
        self.session = 0
        """Of the last process that we have started: its session and group bear its number, also
        when another process has become the main one."""
        self._session_start: int | None = None
        self.is_descendant = False
        """Whether we have started it in this life: what becomes an orphan is handed to us then."""
        self._adopted: AdoptedExit | None = None

    @property
    def start_time(self) -> int:
        """When it was started, in clock ticks since boot; 0 when none was.

        Looked up when it is first needed: while a program is still executing its first moments,
        the kernel lets nobody look.
        """
        if self._start_time is None:
            stat = procinfo.stat(self.last_pid)
            self._start_time = stat.start_time if stat is not None else 0
        return self._start_time

    @property
    def session_start(self) -> int:
        """When the process was started whose number the session bears; as `start_time`."""
        return self._session_start if self._session_start is not None else self.start_time

    def started(self, pid: int) -> None:
        """We have started it. Raises `OSError`, and ends it, when it cannot be pinned."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            # It could be neither watched nor stopped. It is our child and not waited for: the pid
            # is nobody else's.
            os.kill(pid, signal.SIGKILL)
            raise
        self._is(pid, pidfd)
        self.session, self._session_start = pid, None
        self.is_descendant = True

    def _is(self, pid: int, pidfd: int) -> None:
        self.pid = self.last_pid = pid
        self._start_time = None
        self.pidfd = pidfd
        self._unit.supervisor.by_pid[pid] = self._unit
        self._unit.effects.held.hold(self._held_name, pidfd)

    def known_as(
        self, pid: int, start_time: int, session: int | None, session_start: int | None
    ) -> None:
        """Who it was, by a predecessor's record."""
        self.last_pid, self._start_time = pid, start_time
        self.session, self._session_start = session or pid, session_start

    def becomes(self, pid: int, pidfd: int) -> None:
        """The program named another process of its own as its main one (MAINPID=).

        `pidfd`, which becomes ours, has been proven to be of a process of this instance.
        """
        self._session_start = self.session_start  # while it can still be asked for
        self.release()
        self._is(pid, pidfd)
        self._watch_end()

    def adopt(self, pid: int, pidfd: int, *, is_child: bool) -> None:
        """Take over a proven process of a predecessor's, `known_as` before."""
        start_time = self._start_time
        self._is(pid, pidfd)
        self._start_time = start_time
        self.is_descendant = is_child
        if not is_child:
            self._watch_end()

    def _watch_end(self) -> None:
        # Of a process that is nobody's child here. Should it become ours, both tell of its end,
        # and the first counts.
        assert self.pidfd is not None
        self._adopted = AdoptedExit(
            self._unit.loop,
            self.pidfd,
            (self.last_pid, self.start_time),
            self._unit.process_ended,
        )

    def send(self, number: int) -> None:
        """Send it a signal; harmless when it is gone."""
        if self.pidfd is not None:
            procinfo.send(self.pidfd, number)

    def release(self) -> None:
        """It has ended, or is no longer ours to look after."""
        if self.pid is not None:
            self._unit.supervisor.by_pid.pop(self.pid, None)
        if self._adopted is not None:
            self._adopted.cancel()
            self._adopted = None
        if self.pidfd is not None:
            self._unit.effects.held.drop(self._held_name)
            os.close(self.pidfd)
        self.pid = self.pidfd = None
