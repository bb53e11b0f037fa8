"""`atlas-worker`: runs the jobs of an application's modules."""

import argparse
import asyncio
import importlib
import logging
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from atlasd.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, AtlasError
from atlasd.worker.client import socket_path
from atlasd.worker.feed import Feed
from atlasd.worker.foreign import RESULTS, EveryKind
from atlasd.worker.registry import HANDLERS, Handler
from atlasd.worker.runner import RECONNECT, RECONNECT_CAP, Runner, StuckError, on_signals
from atlasd.worker.wire import Connection

RESPAWN = 1.0
"""Seconds before a process that has ended by itself is replaced."""
Handlers = Mapping[str, Handler[..., Any]]

_log = logging.getLogger("atlasd.worker")


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="atlas-worker", description="Run jobs of an application.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="modules that declare jobs")
    parser.add_argument(
        "--exec",
        metavar="COMMAND",
        dest="command",
        help="in place of modules: run this for each job, its payload on standard input",
    )
    parser.add_argument(
        "--http", metavar="URL", help="in place of modules: post each job's payload there"
    )
    parser.add_argument(
        "--result", choices=RESULTS, default="json",
        help="of --exec and --http: what is made of standard output or the answer's body "
        "(default: json)",
    )  # fmt: skip
    parser.add_argument(
        "--queue", action="append", default=[], metavar="NAME",
        help="queue to take jobs from; may be given several times (default: those of the handlers)",
    )  # fmt: skip
    parser.add_argument("--processes", type=int, default=1, help="processes (default: 1)")
    parser.add_argument(
        "--concurrency", type=int, default=1, help="jobs at once in each process (default: 1)"
    )
    parser.add_argument(
        "--prefetch", type=int, default=0, metavar="N",
        help="jobs that a process fetches ahead (default: some 40 ms of work)",
    )  # fmt: skip
    parser.add_argument(
        "--grace", type=float, default=25.0, metavar="SECONDS",
        help="time that running jobs have when the worker is told to end (default: 25)",
    )  # fmt: skip
    parser.add_argument(
        "--reload", action="store_true",
        help="start anew when a Python file below this folder changes; for development",
    )  # fmt: skip
    parser.add_argument("--root", metavar="DIR", help="folder that atlasd was started with")
    parser.add_argument("--verbose", action="store_true", help="log more")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run until told to end; the exit code."""
    options = arguments(words)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if not options.reload:
        return _run(options)
    from atlasd.worker.reloading import reloading

    try:
        # The modules are imported by each worker anew, never here.
        return reloading(partial(_run, options), Path.cwd())
    except OSError as error:
        print(f"atlas-worker: --reload: {error.strerror or error}", file=sys.stderr)
        print("atlas-worker: raise fs.inotify.max_user_watches", file=sys.stderr)
        return EXIT_FAILED


def _run(options: argparse.Namespace) -> int:
    try:
        handlers = handlers_of(options)
    except AtlasError as error:
        print(f"atlas-worker: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"atlas-worker: {error.hint}", file=sys.stderr)
        return EXIT_USAGE
    if options.processes > 1:
        return _parent(options, handlers)
    return _work(options, handlers)


def handlers_of(options: argparse.Namespace) -> Handlers:
    """What runs the jobs: the modules' handlers, a command, or a URL. Raises `AtlasError`."""
    given = [
        word
        for word, value in (
            ("modules", options.modules), ("--exec", options.command), ("--http", options.http),
        )
        if value
    ]  # fmt: skip
    if len(given) != 1:
        raise _wrong(
            f"{' and '.join(given)} are given: one is enough" if given else "nothing to run jobs",
            "atlas-worker MODULE …, or --exec COMMAND, or --http URL",
        )
    if options.modules:
        return _imported(options.modules)
    if not options.queue:
        raise _wrong(f"{given[0]} does not say of which jobs", "add --queue NAME")
    # Each costs memory (TLS, subprocesses) that workers of the other ways need not have.
    if options.http:
        from atlasd.worker.push import Push

        return EveryKind(Push(options.http, result=options.result))
    try:
        words = shlex.split(options.command)
    except ValueError as error:
        raise _wrong(f"--exec: {str(error).lower()}", "quote it as a shell would") from None
    if not words or shutil.which(words[0]) is None:
        name = words[0] if words else ""
        raise _wrong(f"--exec: there is no program {name!r}", "no shell runs; give its path")
    from atlasd.worker.command import Command

    return EveryKind(Command(words, result=options.result))


def _imported(modules: Sequence[str]) -> Handlers:
    sys.path.insert(0, str(Path.cwd()))
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise _wrong(
                f"{module}: {error}", "start it where the module can be imported"
            ) from None
        except SyntaxError as error:
            where = f"{error.filename}:{error.lineno}" if error.filename else module
            raise _wrong(f"{where}: {error.msg}", "mend it, and start again") from None
    if not HANDLERS:
        raise _wrong(f"{', '.join(modules)}: no @job in there", "")
    return HANDLERS


def _wrong(message: str, hint: str) -> AtlasError:
    return AtlasError("request.invalid", message, hint=hint)


def _work(options: argparse.Namespace, handlers: Handlers) -> int:
    """Be one worker process; connects again when the engine comes back."""
    queues = options.queue or sorted(
        {str(handler.options.get("queue", "default")) for handler in handlers.values()}
    )
    path = socket_path(options.root)
    pause = RECONNECT
    while True:
        runner = None
        on_signals(None)
        try:
            feed = Feed(
                lambda: Connection(path),
                worker=identity(),
                queues=queues,
                concurrency=options.concurrency,
                prefetch=options.prefetch,
            )
            pause = RECONNECT
            runner = Runner(feed, handlers, concurrency=options.concurrency, grace=options.grace)
            on_signals(runner)
            if any(handler.is_async for handler in handlers.values()):
                asyncio.run(runner.work_async())
            else:
                runner.work()
        except AtlasError as error:
            if error.code != "core.unreachable":
                print(f"atlas-worker: {error.message}", file=sys.stderr)
                return EXIT_FAILED
            if runner is not None and runner.is_draining:
                return EXIT_OK  # what it held has gone back already
            on_signals(None)
            if pause < RECONNECT_CAP:  # once it is waited for, it is not said again and again
                _log.warning("%s; next try in %.2f s", error.message, pause)
            time.sleep(pause)
            pause = min(pause * 2, RECONNECT_CAP)
            continue
        except StuckError as error:
            print(f"atlas-worker: {error}; this process ends for it", file=sys.stderr)
            return EXIT_FAILED
        return EXIT_OK


def identity() -> str:
    """Host, boot and a random part: no two processes ever have the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        boot = "unknown"
    return f"{socket.gethostname()}/{boot}/{os.getpid()}-{secrets.token_hex(4)}"


def _parent(options: argparse.Namespace, handlers: Handlers) -> int:
    """Start the processes, start again what ends by itself, and end them all when told to."""
    children: set[int] = set()
    ending = False

    def start() -> None:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            try:
                code = _work(options, handlers)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else EXIT_FAILED
            except BaseException:  # noqa: BLE001  the parent's part of the stack is not this one's
                _log.exception("a worker process fell")
                code = EXIT_FAILED
            os._exit(code)
        children.add(child)

    def end(number: int, _frame: object) -> None:
        nonlocal ending
        ending = True
        for child in children:
            os.kill(child, number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    for _ in range(options.processes):
        start()
    failed = EXIT_OK
    while children:
        child, status = os.wait()
        children.discard(child)
        code = os.waitstatus_to_exitcode(status)
        if ending:
            failed = failed or (EXIT_FAILED if code else EXIT_OK)
        else:
            _log.warning("process %d has ended with %d; another one takes its place", child, code)
            time.sleep(RESPAWN)
            start()
    return failed


if __name__ == "__main__":
    sys.exit(main())
