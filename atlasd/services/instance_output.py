"""The two output streams of one instance."""

import os
from collections.abc import Callable, Iterable

from atlasd.redaction import Redactor
from atlasd.services.effects import Effects
from atlasd.services.output import Stream
from atlasd.services.spec import KnownSecret, Log

STREAMS = ("stdout", "stderr")


class InstanceOutput:
    """Pipes that outlive the instance's processes; opened at its first start or adoption."""

    def __init__(self, effects: Effects, log: Log, service: str, index: int) -> None:
        self._effects = effects
        self._service, self._index = service, index
        self._streams: list[Stream] = []
        self._uid: int | None = None
        self.define(log)

    def define(self, log: Log) -> None:
        """Take new limits of the log files."""
        self._effects.capture.configure(self._service, log)

    def keep_out(self, secrets: Iterable[KnownSecret], *, anew: bool = False) -> None:
        """Take these secrets out of what is said; see `Capture.keep_out`."""
        self._effects.capture.keep_out(self._service, self._index, secrets, anew=anew)

    @property
    def redactor(self) -> Redactor:
        """What takes them out, as it is now."""
        return self._effects.capture.secrets.redactor(self._service, self._index)

    def _name(self, stream: str) -> str:
        return f"pipe/{self._service}/{self._index}/{stream}"

    def own(self, uid: int | None) -> None:
        """Open the pipes, for a program of this user. Raises `OSError`."""
        if self._streams:
            if uid is not None and uid != self._uid:
                for stream in self._streams:
                    os.fchown(stream.fd, uid, -1)
                self._uid = uid
            return
        held = self._effects.held
        for name in STREAMS:
            stream = self._effects.capture.stream(
                self._service, self._index, name, uid=uid, fd=held.take(self._name(name))
            )
            self._streams.append(stream)
            held.hold(self._name(name), stream.fd)
        self._uid = uid

    def child_ends(self) -> tuple[int, int]:
        """Descriptors for a child's stdout and stderr; the caller closes them."""
        out = self._streams[0].child_end()
        try:
            return out, self._streams[1].child_end()
        except OSError:
            os.close(out)
            raise

    def say(self, data: bytes) -> None:
        """Put what a command beside the program says into its log, as standard output."""
        stream = self._streams[0]
        while data and stream.fd >= 0:
            try:
                data = data[os.write(stream.fd, data) :]
            except BlockingIOError:
                stream.drain()

    def drain(self) -> None:
        """Take everything that is in the pipes, and end an unfinished last line."""
        for stream in self._streams:
            stream.finish()

    def tail(self, lines: int, since: float) -> list[str]:
        """The last lines of both streams from `since` (wall time) on."""
        found = self._effects.capture.tail(self._service, self._index, lines=lines, since=since)
        return [line.message for line in found]

    def tap(self, callback: Callable[[bytes, str], object] | None) -> None:
        """Hand every new piece of output, and its stream's name, to the callback; null: no more."""
        for stream in self._streams:
            if callback is None:
                stream.tap = None
            else:
                stream.tap = lambda data, name=stream.stream: callback(data, name)

    def close(self) -> None:
        """Remove the pipes: the instance is no more."""
        for stream in self._streams:
            self._effects.held.drop(self._name(stream.stream))
            stream.close(remove=True)
        self._streams.clear()
        self._effects.capture.secrets.forget(self._service, self._index)
