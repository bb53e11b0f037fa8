"""The services role's event loop: epoll, timers, and signals turned into events; nothing polls."""

import heapq
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable

from atlasd.clock import Clock, RealClock

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR


class Timer:
    """A call that is to happen later; `cancel` takes it back."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Take the call back; harmless when it has happened already."""
        self.callback = None

    @property
    def pending(self) -> bool:
        """Whether the call is still to come."""
        return self.callback is not None


class Loop:
    """One thread, one epoll. A callback that raises is reported and costs only itself."""

    def __init__(
        self, clock: Clock | None = None, report: Callable[[str], None] | None = None
    ) -> None:
        self.clock: Clock = clock or RealClock()
        self.report = report or (lambda text: sys.stderr.write(text + "\n"))
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[int], object]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = 0
        self._soon: list[Callable[[], object]] = []
        self._running = False
        self._signals: dict[int, Callable[[], object]] = {}
        self._came: set[int] = set()
        """Signals that are still to be handled in this turn."""
        self._wake: tuple[int, int] | None = None
        self.wakeups = 0
        """Times the loop has left epoll: the idle cost, as a number."""

    def watch(self, fd: int, callback: Callable[[int], object], events: int = READ) -> None:
        """Call `callback(mask)` whenever `fd` is ready for `events`; again to change either."""
        if fd in self._watched:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; harmless when it is not watched. Call it before the descriptor is closed."""
        if self._watched.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass  # closed already: epoll has forgotten it by itself

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call at `when` on the loop's monotonic clock."""
        timer = Timer(when, callback)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, timer))
        return timer

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call after `delay` seconds."""
        return self.call_at(self.clock.monotonic() + delay, callback)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call in this turn of the loop, after what is being handled now."""
        self._soon.append(callback)

    def on_signal(self, number: int, callback: Callable[[], object]) -> None:
        """Call `callback` in the loop after the process was sent the signal."""
        if self._wake is None:
            read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(write, warn_on_full_buffer=False)
            self._wake = (read, write)
            self.watch(read, self._on_wake)
        self._signals[number] = callback
        # A Python-level handler must exist, or the wake-up descriptor is never written to.
        signal.signal(number, lambda *_: None)

    def rearm_signals(self) -> None:
        """Listen for signals again, after somebody has taken the wake-up descriptor away."""
        if self._wake is not None:
            signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)

    def take_signals(self) -> None:
        """Handle the signals that have come already, now and not in the next turn."""
        if self._wake is not None:
            self._on_wake(READ)

    def _on_wake(self, _mask: int) -> None:
        assert self._wake is not None
        try:
            self._came.update(os.read(self._wake[0], 4096))
        except BlockingIOError:
            pass
        while self._came:
            callback = self._signals.get(self._came.pop())
            if callback is not None:
                self._call(callback)

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception:  # noqa: BLE001  one broken callback must not end the supervisor
            self.report("unexpected error in the event loop\n" + traceback.format_exc())

    def run(self) -> None:
        """Turn until `stop`."""
        self._running = True
        while self._running:
            self.turn()

    def stop(self) -> None:
        """Leave `run` after this turn."""
        self._running = False

    def turn(self, limit: float | None = None) -> None:
        """One turn: wait for the next event, `limit` seconds at most, and handle what is due."""
        while self._timers and not self._timers[0][2].pending:
            heapq.heappop(self._timers)
        timeout = limit
        if self._soon:
            timeout = 0.0
        elif self._timers:
            wait = max(0.0, self._timers[0][0] - self.clock.monotonic())
            timeout = wait if limit is None else min(wait, limit)
        ready = self._epoll.poll(timeout)
        self.wakeups += 1
        for fd, mask in ready:
            watcher = self._watched.get(fd)  # an earlier callback of this turn may have removed it
            if watcher is not None:
                try:
                    watcher(mask)
                except Exception:  # noqa: BLE001  see _call
                    self.report("unexpected error in the event loop\n" + traceback.format_exc())
        now = self.clock.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._call(callback)
        soon, self._soon = self._soon, []
        for callback in soon:
            self._call(callback)

    def close(self) -> None:
        """Give back the loop's own descriptors and the wake-up descriptor for signals."""
        if self._wake is not None:
            signal.set_wakeup_fd(-1)
            for number in self._signals:
                signal.signal(number, signal.SIG_DFL)
            for fd in self._wake:
                self.unwatch(fd)
                os.close(fd)
            self._wake = None
        self._epoll.close()
