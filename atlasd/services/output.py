"""Capture of what services write: from their pipes into log files, exactly once, at little cost."""

import fcntl
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from atlasd.services.loop import READ, Loop, Timer
from atlasd.services.output_file import LogFile
from atlasd.services.output_files import LogDirectory, Spawn
from atlasd.services.output_journal import CHUNK, Journal, split_owner
from atlasd.services.output_records import STREAMS, compose, join, parse, stamp
from atlasd.services.output_secrets import Carry, OutputSecrets
from atlasd.services.output_stream import PIPE_DEFAULT, Stream, carry_path, open_pipe
from atlasd.services.spec import HostPolicy, KnownSecret, Log

__all__ = ["Capture", "OutputLine", "Recovered", "Spawn", "Stream"]

REST = 0.002
"""Seconds that a busy stream is left alone after a short read, so that more is read at once."""
BUSY = 20_000
"""Microseconds: a stream that was read less than this ago is busy. A line now and then is worth no
second wake-up of the process, which costs more than the line."""
TURN_BYTES = 2 << 20
TURN_SECONDS = 0.003
"""What reading may take of one turn of the loop; the rest waits for the next one."""
PIPE = 1 << 20
"""Bytes of pipe for a stream that floods."""

_ONESHOT = READ | select.EPOLLONESHOT
_SUFFIX = {"stdout": "out", "stderr": "err"}
_BIG = 64 * 1024


class Recovered(NamedTuple):
    """What a predecessor had taken from a pipe when it died, and has now been written."""

    service: str
    instance: int
    stream: str
    size: int
    """Bytes of output."""


class OutputLine(NamedTuple):
    """A line of output, for a crash record."""

    time: str
    stream: str
    message: str


class Capture:
    """Reads every stream of every instance; one per services role.

    `run_dir` is the role's own folder (on tmpfs), `log_dir` the place of log files. Call `recover`
    before the first `stream`. `spawn(argv, on_exit)` starts gzip; without it log files stay
    uncompressed. `report` is told, in plain words, what an operator should know.
    """

    def __init__(
        self,
        loop: Loop,
        run_dir: str,
        log_dir: str,
        *,
        policy: HostPolicy | None = None,
        spawn: Spawn | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._loop = loop
        self._wall = loop.clock.wall
        self._report = report or (lambda _text: None)
        self._pipes = os.path.join(run_dir, "fifo")
        os.makedirs(self._pipes, mode=0o700, exist_ok=True)
        budget = (policy or HostPolicy()).log_budget
        self.files = LogDirectory(log_dir, loop, budget=budget, spawn=spawn, report=self._report)
        self.secrets = OutputSecrets(os.path.join(run_dir, "output-secrets"))
        self._journal = Journal(os.path.join(run_dir, "output.journal"))
        self._streams: dict[tuple[str, int, str], Stream] = {}
        self._ready: deque[Stream] = deque()
        self._resting: list[Stream] = []
        self._rest: Timer | None = None
        self._pumping = False
        self._flooded = False
        self._trouble = ""
        self.bytes_total = 0
        """Bytes read from all streams since the start of this process."""
        self.lost_bytes = 0
        """Bytes that were read and could not be written."""
        self.lost_lines = 0

    def recover(self) -> Recovered | None:
        """Take stock of the log files, and write what a predecessor left in the journal."""
        self.files.scan()
        settling = self._journal.settling()
        if settling is not None:
            Carry(carry_path(self._pipe(*split_owner(settling)))).commit()
        chunk = self._journal.unfinished()
        recovered = None
        if chunk is not None:
            service, instance, stream = split_owner(chunk.owner)
            file = self.files.file(service, instance)
            carry = Carry(carry_path(self._pipe(service, instance, stream)))
            redactor = self.secrets.redactor(service, instance)
            if chunk.ending:
                text, held = redactor.last(carry.data), 0
                parts = _last_record(text, stream.encode(), chunk.micros)
            else:
                text, held = redactor.split(carry.data + chunk.data)
                parts = compose(text, stream.encode(), chunk.micros, held)
            size = len(text) - held
            if file.repair(chunk, sum(map(len, parts)), self.micros()):
                lost, lines = file.append(parts)
            else:
                lost, lines = size, text.count(b"\n")
            self._lost(file, lost, lines)
            self._settle(carry, text[size:])
            recovered = Recovered(service, instance, stream, len(chunk.data))
        self._journal.clear()
        return recovered

    def configure(self, service: str, log: Log) -> None:
        """Set size, age and count of a service's log files; holds at once."""
        self.files.configure(service, log)

    def keep_out(
        self, service: str, instance: int, secrets: Iterable[KnownSecret], *, anew: bool = False
    ) -> None:
        """Have the values of these secrets taken out of the instance's output from now on.

        Those that were named before are taken out too, as its process may still have them, unless
        `anew` says that a new one is about to start.
        """
        try:
            changed = self.secrets.learn(service, instance, secrets, anew=anew)
        except OSError as error:
            changed = True
            self._report(f"a successor would not know the secrets of {service}: {error.strerror}")
        if changed:
            redactor = self.secrets.redactor(service, instance)
            for name in STREAMS:
                stream = self._streams.get((service, instance, name))
                if stream is not None:
                    stream.redactor = redactor

    def set_policy(self, policy: HostPolicy) -> None:
        """Set the budget of all log files together; holds at once."""
        self.files.set_budget(policy.log_budget)

    def stream(
        self,
        service: str,
        instance: int,
        stream: str,
        *,
        uid: int | None = None,
        gid: int | None = None,
        fd: int | None = None,
    ) -> Stream:
        """The stream `stdout` or `stderr` of an instance; the same one as long as it isn't closed.

        A pipe that is there already is used again. `fd` is its reading end as a peer has kept it;
        it becomes ours. The pipe belongs to `uid`, so that a program can open /dev/stdout anew.
        Raises `OSError` when the pipe cannot be made.
        """
        key = (service, instance, stream)
        known = self._streams.get(key)
        if known is not None:
            if fd is not None:
                os.close(fd)
            return known
        if stream not in STREAMS:
            raise ValueError(f"no such stream: {stream!r}")
        path = self._pipe(service, instance, stream)
        adopted = True
        if fd is None:
            fd, adopted = open_pipe(path)
        else:
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)
        if uid is not None:
            os.fchown(fd, uid, -1 if gid is None else gid)
        made = Stream(self, self.files.file(service, instance), stream, fd, path, adopted=adopted)
        self._streams[key] = made
        self._arm(made)
        return made

    def _pipe(self, service: str, instance: int, stream: str) -> str:
        return os.path.join(self._pipes, f"{service}.{instance}.{_SUFFIX[stream]}")

    def held(self) -> dict[str, int]:
        """Descriptors for a peer to hold, by a name that says which stream it is."""
        return {
            f"{stream.service}.{stream.instance}.{_SUFFIX[stream.stream]}": stream.fd
            for stream in self._streams.values()
        }

    def tail(
        self, service: str, instance: int, *, lines: int = 20, limit: int = 16384, since: float = 0
    ) -> list[OutputLine]:
        """The instance's last lines of both streams, from `limit` bytes of log at most.

        `since`: wall time; lines from before it, of an earlier process, are left out.
        """
        text = self.files.file(service, instance).last_bytes(limit)
        records = filter(None, map(parse, text.split(b"\n")))
        begin = stamp(int(since * 1_000_000)).decode()
        found = [
            OutputLine(line.time, line.stream, line.message.decode(errors="backslashreplace"))
            for line in join(records)
            if line.time >= begin
        ]
        return found[-lines:]

    def micros(self) -> int:
        """The wall time in microseconds since the epoch."""
        return int(self._wall() * 1_000_000)

    def _arm(self, stream: Stream) -> None:
        self._loop.watch(stream.fd, stream.readable, _ONESHOT)

    def enqueue(self, stream: Stream) -> None:
        """Have the stream read in this turn of the loop."""
        self._ready.append(stream)
        self._schedule()

    def _schedule(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Read every stream that is ready once, within the limits of a turn."""
        self._pumping = False
        ready, resting = self._ready, self._resting
        left = TURN_BYTES
        end = time.monotonic() + TURN_SECONDS
        for _ in range(len(ready)):
            stream = ready.popleft()
            if stream.fd < 0:
                continue
            before = stream.read_at
            count = self._take_safely(stream)
            if not count:
                self._arm(stream)
                if self._flooded and not resting and not ready:
                    self._flooded = False
                    self._journal.trim()
            elif count >= stream.flood:
                self._widen(stream)
                ready.append(stream)
            elif 0 <= stream.read_at - before < BUSY:
                resting.append(stream)
            else:
                self._arm(stream)
            left -= count
            if left <= 0 or time.monotonic() >= end:
                break
        if ready:
            self._schedule()
        if resting and self._rest is None:
            self._rest = self._loop.call_later(REST, self._rested)

    def _rested(self) -> None:
        self._rest = None
        self._ready.extend(self._resting)
        self._resting.clear()
        if not self._pumping:
            self._pump()

    def _take_safely(self, stream: Stream) -> int:
        try:
            return self.take(stream)
        except Exception as error:  # noqa: BLE001  one stream's trouble must not stop the others
            trouble = f"output of {stream.service}.{stream.instance}: {error!r}"
            if trouble != self._trouble:  # said once, though it may happen at every read
                self._trouble = trouble
                self._report(trouble)
            return 1  # not 0: it rests, rather than being read again at once

    def take(self, stream: Stream) -> int:
        """Move one chunk of a stream into its log file; its size, 0 if there was nothing."""
        journal, file, mark = self._journal, stream.file, stream.mark
        micros = int(self._wall() * 1_000_000)
        writable = file.ready(mark, micros)
        journal.begin(stream.key, file.size if writable else -1, file.inode, micros)
        count = journal.read(stream.fd)
        if not count:
            return 0
        carry = stream.carry
        try:
            text, held = stream.redactor.split(journal.taken(count, carry.data))
            size = len(text) - held
            if size:
                if writable:
                    lost, lines = file.append(compose(text, mark, micros, held))
                else:
                    lost, lines = size, text.count(b"\n")
                if lost:
                    stream.lost_bytes += lost
                    stream.lost_lines += lines
                    self._lost(file, lost, lines)
                if lost < size:
                    file.mid_line[mark] = not lost and text[size - 1] != 10
            if held or carry.data:
                self._settle(carry, text[size:])
        finally:
            journal.done(count)
        # Only now, since the journal names the file by what it was.
        if file.size >= file.limit and writable:
            self.files.rotate(file)
        stream.read_at = micros
        stream.bytes_total += count
        self.bytes_total += count
        if count > _BIG:
            self._flooded = True
        if stream.tap is not None and size:
            stream.tap(text[:size])
        return count

    def _settle(self, carry: Carry, held: bytes) -> None:
        """What was taken is written but for `held`, which takes the place of the last such end."""
        try:
            carry.stage(held)
            self._journal.settle()
            carry.commit()
        except OSError as error:
            carry.remove()  # written already, or else known here alone
            self._report(f"the end of a chunk of output is kept in memory only: {error.strerror}")

    def end_line(self, stream: Stream) -> None:
        """End a line that stays without an end, after what was held back of it."""
        journal, file, mark, carry = self._journal, stream.file, stream.mark, stream.carry
        micros = self.micros()
        writable = file.ready(mark, micros)
        text = stream.redactor.last(carry.data)
        held_back = bool(carry.data)
        if held_back:
            offset = file.size if writable else -1
            journal.begin(stream.key, offset, file.inode, micros, ending=True)
        try:
            lost = len(text)
            if writable:
                lost, _ = file.append(_last_record(text, mark, micros))
                file.mid_line[mark] = False
            stream.lost_bytes += lost
            self._lost(file, lost, 0)
            if held_back:
                self._settle(carry, b"")
        finally:
            if held_back:
                journal.done(0)

    def _lost(self, file: LogFile, count: int, lines: int) -> None:
        if count:
            file.lose(count)
            self.lost_bytes += count
            self.lost_lines += lines

    def _widen(self, stream: Stream) -> None:
        """Give a stream that fills its pipe a larger one; once, and without insisting."""
        if stream.widened:
            return
        stream.widened = True
        size = PIPE_DEFAULT
        for wanted in (PIPE, PIPE // 4):
            try:
                size = fcntl.fcntl(stream.fd, fcntl.F_SETPIPE_SZ, wanted)
                break
            except OSError:  # EPERM: the user's pipes take fs.pipe-user-pages-soft already
                continue
        stream.flood = min(size, CHUNK) * 3 // 4

    def forget(self, stream: Stream) -> None:
        """Read a stream no more."""
        self._loop.unwatch(stream.fd)
        self._streams.pop((stream.service, stream.instance, stream.stream), None)
        if all(other.file is not stream.file for other in self._streams.values()):
            stream.file.close()

    def close(self) -> None:
        """Let go of everything; pipes and their content stay for a successor."""
        for stream in list(self._streams.values()):
            stream.close()
        if self._rest is not None:
            self._rest.cancel()
        self._ready.clear()
        self._resting.clear()
        self.files.close()
        self._journal.close()


def _last_record(text: bytes, stream: bytes, micros: int) -> list[bytes | memoryview]:
    """The record that ends a line with what was held back of it."""
    return [b"%s %s F %s\n" % (stamp(micros), stream, text)]
