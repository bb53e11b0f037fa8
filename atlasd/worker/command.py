"""`atlas-worker --exec`: each job is a run of a command, with the payload on its standard input.

The command is the leader of a process group of its own. When the job has to stop, that group is
told to (TERM) and then made to (KILL); what the command leaves behind in it when it has ended by
itself is ended too. Nothing else is ever signalled: the leader is not reaped before, so its number
cannot have become somebody else's.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Self

from atlasd.worker.context import Context
from atlasd.worker.errors import Bury, Discard, Outcome, Retry, TargetFailed
from atlasd.worker.foreign import RESULT_LIMIT, result_of, retry_after

KILL_AFTER = 3.0
"""Seconds between TERM and KILL."""
TAIL = 2000
"""Bytes of the last words that become the error's message."""
CHUNK = 65536

EX_DATAERR = 65
EX_UNAVAILABLE = 69
EX_TEMPFAIL = 75
EX_CONFIG = 78
DISCARD = 100
"""Exit code by which a command says that the job isn't worth another try; as for qmail, it is for
good."""


class Command:
    """Runs a command for a job; called by several threads at once."""

    def __init__(self, words: Sequence[str], *, result: str = "json") -> None:
        """`result` is one of `atlasd.worker.foreign.RESULTS`."""
        self._words = list(words)
        self._result = result

    def __call__(self, context: Context) -> Any:
        """The result. Raises what says what becomes of the job."""
        with _Run(self._words, context) as run:
            run.watch()
        if context.stopped_by is not None:
            raise context.stopped_by
        code = run.code
        if code:
            raise judged(code, bytes(run.err))
        return result_of(bytes(run.out), self._result, self._words[0], whole=run.whole)


def environment(context: Context) -> dict[str, str]:
    """What a command is told of its job, beside what the worker itself was started with."""
    planned = context.scheduled_for
    return {
        **os.environ,
        "ATLASD_JOB_ID": str(context.id),
        "ATLASD_JOB_KIND": context.kind,
        "ATLASD_JOB_QUEUE": context.queue,
        "ATLASD_JOB_ATTEMPT": str(context.attempt),
        "ATLASD_JOB_MAX_ATTEMPTS": str(context.max_attempts),
        "ATLASD_JOB_FENCE": str(context.fence),
        "ATLASD_JOB_RUN_AT": context.run_at.isoformat(),
        "ATLASD_JOB_TARGET": context.target,
        "ATLASD_JOB_FAIR_KEY": context.fair_key,
        "ATLASD_JOB_SCHEDULE": context.schedule,
        "ATLASD_JOB_SCHEDULED_FOR": planned.isoformat() if planned else "",
    }


def judged(code: int, said: bytes) -> Outcome:
    """What an exit code other than 0 says; negative: the signal that the command died of.

    `said` are its last words on standard error.
    """
    text = said[-TAIL:].decode(errors="replace").strip()
    how = f"exit {code}" if code > 0 else f"signal {_signal(-code)}"
    message = text or f"the command ended with {how} and said nothing"
    error: Outcome
    if code in (EX_DATAERR, EX_CONFIG):
        error = Bury(message)
    elif code == DISCARD:
        error = Discard(message)
    elif code == EX_UNAVAILABLE:
        error = TargetFailed(message, after=_asked(text))
    else:
        error = Retry(message, after=_asked(text) if code == EX_TEMPFAIL else 0.0)
    error.kind = how
    return error


def _asked(text: str) -> float:
    """What the last line `Retry-After: …` says, in seconds."""
    for line in reversed(text.splitlines()):
        name, colon, value = line.partition(":")
        if colon and name.strip().lower() == "retry-after":
            return retry_after(value, time.time())
    return 0.0


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


class _Run:
    """One run: everything that may happen in it is waited for in one place."""

    def __init__(self, words: Sequence[str], context: Context) -> None:
        self.code = 0
        self.out = bytearray()
        self.err = bytearray()
        self.whole = True
        self._context = context
        self._payload = memoryview(context.payload.encode())
        self._kill_at = 0.0
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment(context), process_group=0, bufsize=0,
            )  # fmt: skip
        except OSError as error:
            os.close(self._stop)
            # The worker's own set-up is wrong: each job would fail, and none is to blame.
            raise Retry(f"{words[0]} cannot be started: {error.strerror or error}") from None

    def __enter__(self) -> Self:
        self._ended = os.pidfd_open(self._process.pid)
        self._context.on_stop(lambda: os.eventfd_write(self._stop, 1))
        return self

    def __exit__(self, *_: object) -> None:
        self._context.on_stop(None)
        # Whatever has happened: nothing of it runs on. The leader is there until it is reaped.
        if self._process.returncode is None:
            self._signal(signal.SIGKILL)
            self.code = self._process.wait()
        os.close(self._ended)
        os.close(self._stop)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def watch(self) -> None:
        """Feed it, hear it, stop it when the job is to stop; returns when it has ended."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        streams = {"out": process.stdout.fileno(), "err": process.stderr.fileno()}
        for descriptor in (process.stdin.fileno(), *streams.values()):
            os.set_blocking(descriptor, False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._ended, selectors.EVENT_READ, "ended")
            selector.register(self._stop, selectors.EVENT_READ, "stop")
            selector.register(process.stdin.fileno(), selectors.EVENT_WRITE, "in")
            for word, descriptor in streams.items():
                selector.register(descriptor, selectors.EVENT_READ, word)
            while True:
                left = self._kill_at - time.monotonic() if self._kill_at else None
                found = selector.select(None if left is None else max(left, 0.0))
                if left is not None and left <= 0:
                    self._kill_at = 0.0
                    self._signal(signal.SIGKILL)
                said = {key.data: key.fd for key, _ in found}
                if "stop" in said:
                    os.eventfd_read(self._stop)
                    self._signal(signal.SIGTERM)
                    self._kill_at = time.monotonic() + KILL_AFTER
                if "in" in said and self._feed(said["in"]):
                    selector.unregister(said["in"])
                    process.stdin.close()
                for word in ("out", "err"):
                    if word in said and not self._hear(word, said[word]):
                        selector.unregister(said[word])
                if "ended" in said:
                    break
        # Processes that it left behind would go on with a job that has ended.
        self._signal(signal.SIGKILL)
        for word, descriptor in streams.items():
            while self._hear(word, descriptor, once=True):
                pass
        self.code = process.wait()

    def _feed(self, descriptor: int) -> bool:
        """Write some of the payload; true when no more is to be written."""
        try:
            self._payload = self._payload[os.write(descriptor, self._payload[:CHUNK]) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            return True  # it need not read what it is given
        return not self._payload

    def _hear(self, word: str, descriptor: int, *, once: bool = False) -> bool:
        """Read some output; false at its end, and with `once` when there is none now."""
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return not once
        if word == "err":
            self.err += data
            del self.err[: -2 * TAIL]
            with contextlib.suppress(OSError):
                sys.stderr.buffer.write(data)
                sys.stderr.flush()
        elif self.whole:
            self.out += data
            if len(self.out) > RESULT_LIMIT:
                self.whole = False
                self.out.clear()
        return bool(data)

    def _signal(self, number: int) -> None:
        """Signal its group, whose leader has not been reaped."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
