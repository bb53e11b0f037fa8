"""The systems that are measured: their servers, their workers, and what an answer survives."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.supervision.install import from_debian
from benchmarks.supervision.supervisor import Unavailable

APPS = Path(__file__).parent / "apps"
PACKAGES = (
    "celery[redis]", "rq", "dramatiq[redis]", "huey", "procrastinate", "pgqueuer", "asyncpg",
    "saq[redis]", "greenstalk", "psycopg[binary]", "psycopg-pool",
)  # fmt: skip
POSTGRES = Path("/usr/lib/postgresql/15/bin")
PATIENCE = 20.0

Server = Callable[[Path], "contextlib.AbstractContextManager[tuple[dict[str, str], list[int]]]"]
"""Started in a folder: the variables that lead to it, and its processes."""


@dataclass(frozen=True, kw_only=True)
class System:
    """One system in one configuration."""

    name: str
    app: str
    durability: str
    server: Server
    worker: tuple[str, ...]
    """Words after its Python; a first one without a dot or a dash is a command beside it."""
    workers: int = 1
    """How many times the command is started to have two worker processes."""
    own: bool = False
    """Whether it is atlasd, which runs in this environment."""
    before: tuple[str, ...] = ()
    """What has to be run once before it."""
    variables: Mapping[str, str] = field(default_factory=dict)


def peers_python(cache: Path) -> Path:
    """The Python that has every peer installed, made if it isn't there."""
    place = cache / "peers"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run((sys.executable, "-m", "venv", place), check=True)
        pip = (place / "bin/python", "-m", "pip", "install", "--quiet")
        subprocess.run((*pip, *PACKAGES), check=True, timeout=600)
        (place / "done").touch()
    return place / "bin/python"


def wait_for(what: Callable[[], bool], said: str) -> None:
    """Wait until something is so. Raises Unavailable after `PATIENCE` seconds."""
    until = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > until:
            raise Unavailable(said)
        time.sleep(0.02)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """End a process that was started here."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def redis(fsync: str) -> Server:
    """Redis with an append-only file that is synchronised `always` or `everysec`."""

    @contextlib.contextmanager
    def server(folder: Path) -> Iterator[tuple[dict[str, str], list[int]]]:
        port = free_port()
        words = (
            "redis-server", "--port", str(port), "--dir", str(folder), "--appendonly", "yes",
            "--appendfsync", fsync, "--save", "", "--bind", "127.0.0.1",
        )  # fmt: skip
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        try:
            wait_for(lambda: _answers(port), "redis-server does not answer")
            yield {"BENCH_REDIS": f"redis://127.0.0.1:{port}/0"}, [process.pid]
        finally:
            end(process)

    return server


@contextlib.contextmanager
def nothing(folder: Path) -> Iterator[tuple[dict[str, str], list[int]]]:
    """A file is all that it needs."""
    yield {"BENCH_SQLITE": str(folder / "huey.db")}, []


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[tuple[dict[str, str], list[int]]]:
    """PostgreSQL as it comes: synchronous commits to a disk that is synchronised."""
    if not POSTGRES.exists():
        raise Unavailable("needs PostgreSQL 15")
    place, port = folder / "pg", free_port()
    place.mkdir()
    become = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(place, user.pw_uid, user.pw_gid)
        folder.chmod(0o755)
        become = {"user": user.pw_uid, "group": user.pw_gid}
    subprocess.run(
        (POSTGRES / "initdb", "-D", place / "data", "-A", "trust", "-U", "bench"),
        check=True, stdout=subprocess.DEVNULL, cwd=place, **become,
    )  # fmt: skip
    process = subprocess.Popen(
        (POSTGRES / "postgres", "-D", place / "data", "-p", str(port), "-k", place,
         "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"),
        stderr=subprocess.DEVNULL, cwd=place, **become,
    )  # fmt: skip
    try:
        wait_for(lambda: _answers(port), "PostgreSQL does not answer")
        time.sleep(0.5)
        dsn = f"postgresql://bench@127.0.0.1:{port}/postgres"
        yield {"BENCH_POSTGRES": dsn}, [process.pid]
    finally:
        end(process, signal.SIGINT)


def beanstalkd(cache: Path, *options: str) -> Server:
    """`beanstalkd` with a log, or without."""

    @contextlib.contextmanager
    def server(folder: Path) -> Iterator[tuple[dict[str, str], list[int]]]:
        port = free_port()
        program = (
            shutil.which("beanstalkd") or from_debian(cache, "beanstalkd") / "usr/bin/beanstalkd"
        )
        log = ("-b", str(folder)) if options else ()
        process = subprocess.Popen((program, "-l", "127.0.0.1", "-p", str(port), *log, *options))
        try:
            wait_for(lambda: _answers(port), "beanstalkd does not answer")
            yield {"BENCH_PORT": str(port)}, [process.pid]
        finally:
            end(process)

    return server


@contextlib.contextmanager
def atlasd(folder: Path, config: str = "") -> Iterator[tuple[dict[str, str], list[int]]]:
    """`atlasd run` with a root of its own."""
    root = folder / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/atlasd.toml").write_text(f'[api]\nlisten = "127.0.0.1:{free_port()}"\n{config}')
    log = (folder / "atlasd.log").open("wb")
    words = (sys.executable, "-m", "atlasd", "run", "--root", str(root))
    process = subprocess.Popen(words, stdout=log, stderr=log)
    path = root / "run/jobs.sock"

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    try:
        wait_for(answers, f"atlasd does not answer: {folder}/atlasd.log")
        yield {"ATLASD_JOBS": str(path)}, [process.pid]
    finally:
        end(process)
        log.close()


@contextlib.contextmanager
def atlasd_postgres(folder: Path) -> Iterator[tuple[dict[str, str], list[int]]]:
    """`atlasd run` with its queue in PostgreSQL."""
    with postgres(folder) as (variables, servers):
        dsn = variables["BENCH_POSTGRES"]
        store = f'[jobs]\nstore = "postgres"\n[jobs.stores.postgres]\ndsn = "{dsn}"\n'
        with atlasd(folder, store) as (own, daemon):
            yield own, servers + daemon


def systems(cache: Path) -> list[System]:
    """All of them, ours first."""
    worker = ("-m", "atlasd.worker", "atlasd_app", "--processes", "2")
    found = [
        System(name="atlasd", app="atlasd_app", durability="fsync before each answer",
               server=atlasd, worker=worker, own=True),
        System(name="atlasd on PostgreSQL", app="atlasd_app",
               durability="synchronous_commit on", server=atlasd_postgres, worker=worker, own=True),
        System(name="beanstalkd -b -f0", app="beanstalk_app", durability="fsync each",
               server=beanstalkd(cache, "-f0"), worker=("beanstalk_app.py",), workers=2),
        System(name="beanstalkd", app="beanstalk_app", durability="none: memory",
               server=beanstalkd(cache), worker=("beanstalk_app.py",), workers=2),
    ]  # fmt: skip
    for fsync in ("always", "everysec"):
        server, said = redis(fsync), f"AOF {fsync}"
        if fsync == "everysec":
            said += ": loses up to a second"
        for name, app, words, count in (
            ("Celery", "celery_app", ("-m", "celery", "-A", "celery_app", "worker", "-c", "2",
                                      "--loglevel", "ERROR"), 1),
            ("RQ", "rq_app", ("rq", "worker", "-w", "rq.worker.SimpleWorker", "--quiet",
                              "bench"), 2),
            ("Dramatiq", "dramatiq_app", ("-m", "dramatiq", "dramatiq_app", "--processes", "2",
                                          "--threads", "8"), 1),
            ("Huey", "huey_app", ("-m", "huey.bin.huey_consumer", "huey_app.huey", "-w", "2", "-k",
                                  "process", "-q"), 1),
            ("SAQ", "saq_app", ("-m", "saq", "saq_app.settings", "--workers", "2", "--quiet"), 1),
        ):  # fmt: skip
            found.append(
                System(name=name, app=app, durability=said, server=server, worker=words,
                       workers=count )
            )  # fmt: skip
    found += [
        System(name="Huey, SQLite", app="huey_app", durability="synchronous FULL", server=nothing,
               worker=("-m", "huey.bin.huey_consumer", "huey_app.huey", "-w", "2", "-k", "process",
                       "-q")),
        System(name="Procrastinate", app="procrastinate_app", durability="synchronous_commit on",
               server=postgres, before=("procrastinate_app.py",), workers=2,
               worker=("-m", "procrastinate", "--app=procrastinate_app.app", "worker", "-q",
                       "bench", "--concurrency", "8")),
        System(name="PgQueuer", app="pgqueuer_app", durability="synchronous_commit on",
               server=postgres, before=("pgqueuer_app.py", "install"), worker=("pgqueuer_app.py",),
               workers=2),
    ]  # fmt: skip
    return found
