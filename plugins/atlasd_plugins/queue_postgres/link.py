"""One connection to the database, made anew when it broke; the only place that knows psycopg.

A request that finds the connection broken waits for another one for a while, so that a database
that is started anew costs a moment rather than errors. Where the connection broke between `COMMIT`
and its answer, the next one is asked for the mark that the transaction left; where that cannot be
had, the answer is `job.unsure`. (`pg_xact_status` would not do: after a crash the server gives the
number of a transaction that left no trace to another one.)
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from atlasd.errors import AtlasError
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.access import Access

if TYPE_CHECKING:
    from psycopg import AsyncConnection

T = TypeVar("T")

Rows = list[tuple[Any, ...]]
Statement = tuple[str, tuple[str | None, ...]]

PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between attempts to connect again; the last one repeats."""
TRIES = 6
"""How often a transaction is begun anew that lost a conflict with another host's."""


class BrokenError(Exception):
    """The connection is gone, and nothing was done."""


class UnsureError(Exception):
    """The connection is gone, and the transaction may have been committed."""


class ConflictError(Exception):
    """Another transaction was in the way; nothing was done, and it may be tried again."""


class RefusedError(Exception):
    """The server does not take a value or a statement; nothing was done."""


class Link:
    """One connection, used by one transaction at a time."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._connection: AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()
        self._down_since: float | None = None
        self._always: list[str] = []
        self.connects = 0

    async def always(self, text: str) -> None:
        """Have this statement run on every connection, from now on."""
        self._always.append(text)
        await self.run((text, ()))

    # --- connecting

    async def ready(self) -> "AsyncConnection[Any]":
        """A connection that works as far as is known. Raises `AtlasError` `job.store`.

        In an outage the first requests wait for its end for `patience` seconds; when that was in
        vain, later ones are answered after a single attempt.
        """
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            connection = self._connection
            if connection is not None and not connection.closed:
                return connection
            try:
                return await self._connect()
            except AtlasError:
                now = loop.time()
                if self._down_since is None:
                    self._down_since = now
                pause = PAUSES[min(attempt, len(PAUSES) - 1)]
                if now + pause > self._down_since + self._access.patience:
                    raise
                attempt += 1
                await asyncio.sleep(pause)

    async def _connect(self) -> "AsyncConnection[Any]":
        import psycopg
        from psycopg import AsyncConnection

        try:
            connection = await AsyncConnection.connect(
                **dict(self._access.parameters),  # type: ignore[arg-type]
                autocommit=True,
                cursor_factory=psycopg.AsyncRawCursor,
            )
        except (psycopg.Error, OSError, ValueError) as error:
            raise unreachable(self._access, error) from None
        connection.prepare_threshold = 0
        connection.prepared_max = 500
        try:
            for text in self._always:
                await connection.execute(text, prepare=False)
        except psycopg.Error as error:
            await connection.close()
            raise unreachable(self._access, error) from None
        self._connection = connection
        self._down_since = None
        self.connects += 1
        return connection

    @property
    def process(self) -> int:
        """The server's process of this connection; 0 when there is none."""
        connection = self._connection
        if connection is None or connection.closed:
            return 0
        return int(connection.info.backend_pid)

    async def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.close()

    # --- working

    async def run(self, *statements: Statement) -> list[Rows]:
        """Statements of which each is its own transaction, in one round trip.

        They may be sent again when the connection breaks, so they have to bear that.
        """
        async with self._lock:
            return await self._again(lambda: self._each(statements), twice=True)

    async def _each(self, statements: Sequence[Statement]) -> list[Rows]:
        connection = await self.ready()
        async with self._watched(connection, committing=True):
            return await _send(connection, statements)

    async def marked(self, statement: Statement, mark: "Mark") -> Rows | None:
        """The rows of a statement that leaves this mark; None when they were lost.

        Raises as `transact`.
        """
        async with self._lock:
            return await self._again(lambda: self._marked(statement, mark), twice=False)

    async def _marked(self, statement: Statement, mark: "Mark") -> Rows | None:
        try:
            (rows,) = await self._each((statement,))
        except UnsureError:
            if not await self._left(mark):
                raise BrokenError("it was not committed") from None
            return None
        return rows

    async def transact(
        self, work: "Callable[[Transaction], Awaitable[T]]", *, twice: bool = False
    ) -> T:
        """What `work` gives, in a transaction that it may have to begin several times.

        `twice`: it bears being committed twice, so that nothing is ever unsure. Raises `AtlasError`
        `job.store` when nothing was done, `job.unsure` when that is not known, `RefusedError` when
        a value is to blame, and what `work` raises: then nothing was done.
        """
        async with self._lock:
            return await self._again(lambda: self._transact(work), twice=twice)

    async def _transact(self, work: "Callable[[Transaction], Awaitable[T]]") -> T:
        connection = await self.ready()
        transaction = Transaction(self, connection)
        try:
            result = await work(transaction)
            await transaction.commit()
        except BaseException:
            await transaction.undo()
            raise
        return result

    async def _again(self, do: Callable[[], Awaitable[T]], *, twice: bool) -> T:
        for attempt in range(TRIES):
            try:
                return await do()
            except ConflictError:
                await asyncio.sleep(0.002 * 2**attempt)
            except BrokenError:
                # `ready` waits as long as is decent.
                await self.close()
            except UnsureError:
                await self.close()
                if not twice:
                    raise unsure() from None
        raise AtlasError(
            "job.store",
            f"the queue in {self._access.place} is busy: a change was in others' way {TRIES} times",
            hint="nothing was done; try again",
        )

    async def _left(self, mark: "Mark") -> bool:
        """Whether a transaction whose connection broke left its mark. Raises `UnsureError`."""
        for _ in range(TRIES):
            try:
                (rows,) = await self._each(((sql.MARKED, (mark.host,)),))
            except (BrokenError, UnsureError):
                continue
            except (AtlasError, RefusedError) as error:
                raise UnsureError(str(error)) from None
            return bool(rows and rows[0][0] == mark.number)
        raise UnsureError("the connection broke again and again")

    @contextlib.asynccontextmanager
    async def _watched(
        self, connection: "AsyncConnection[Any]", *, committing: bool = False
    ) -> AsyncIterator[None]:
        """Errors of psycopg in the words of this module."""
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            code = error.sqlstate or ""
            lost = connection.closed or connection.broken or code[:2] in ("08", "57")
            said = self._access.clean(str(error))
            if lost:
                await self.close()
                if committing:
                    raise UnsureError(said) from None
                raise BrokenError(said) from None
            if code[:2] == "40" or code == "55P03":
                raise ConflictError(said) from None
            if code[:2] in ("22", "23", "42", "54") or not code:
                raise RefusedError(said) from None
            raise AtlasError(
                "job.store",
                f"the queue in {self._access.place} cannot be used: {said}",
                hint="nothing was done; see the log of the database server",
            ) from None
        except UnicodeError:
            raise RefusedError("a text is not Unicode") from None
        except asyncio.CancelledError:
            # The protocol may be in the middle of an answer.
            await self.close()
            raise


class Mark(NamedTuple):
    """What a transaction leaves in the database."""

    host: str
    number: int
    """Grows with each transaction of the host."""


class Transaction:
    """A transaction under way: begun with its first statement."""

    mark: "Mark | None" = None
    """What it leaves when it is committed, if it has anything to commit."""

    def __init__(self, link: Link, connection: "AsyncConnection[Any]") -> None:
        self._link = link
        self._connection = connection
        self._begun = False
        self._over = False

    async def ask(self, *statements: Statement) -> list[Rows]:
        """The rows of each statement, all in one round trip."""
        todo = list(statements)
        if not self._begun:
            self._begun = True
            todo.insert(0, BEGIN)
        async with self._link._watched(self._connection):  # noqa: SLF001  one module
            rows = await _send(self._connection, todo)
        return rows[len(todo) - len(statements) :]

    async def rows(self, text: str, *values: str | None) -> Rows:
        """The rows of one statement."""
        (found,) = await self.ask((text, values))
        return found

    async def script(self, text: str) -> None:
        """Several statements without values."""
        await self.ask()
        async with self._link._watched(self._connection):  # noqa: SLF001
            await self._connection.execute(text.encode(), prepare=False)

    async def copy(self, text: str, data: str) -> None:
        """Send rows in the text format of COPY."""
        if not self._begun:
            await self.ask()
        async with (
            self._link._watched(self._connection),  # noqa: SLF001
            self._connection.cursor() as cursor,
            cursor.copy(text) as into,
        ):
            await into.write(data)

    async def commit(self, *statements: Statement) -> list[Rows] | None:
        """The rows of the last statements; they and the commit share a round trip.

        None when it is committed, but the rows were lost with the connection: see `after`.
        """
        if self._over:
            return []
        if not self._begun and not statements:
            self._over = True
            return []
        marks = self._marks()
        todo = [*statements, *marks, COMMIT]
        if not self._begun:
            todo.insert(0, BEGIN)
            self._begun = True
        try:
            async with self._link._watched(self._connection, committing=True):  # noqa: SLF001
                rows = await _send(self._connection, todo)
        except UnsureError:
            self._over = True
            if self.mark is None:
                raise
            if not await self._link._left(self.mark):  # noqa: SLF001
                raise BrokenError("it was not committed") from None
            return None
        self._over = True
        first = len(todo) - len(statements) - len(marks) - 1
        return rows[first : first + len(statements)]

    def _marks(self) -> list[Statement]:
        if self.mark is None:
            return []
        return [(sql.MARK, (self.mark.host, str(self.mark.number)))]

    async def after(self, statement: Statement) -> Rows:
        """The rows of a statement after the commit, on whatever connection there is then."""
        (rows,) = await self._link._each((statement,))  # noqa: SLF001
        return rows

    async def undo(self) -> None:
        """Roll back, if there is something."""
        if self._begun and not self._over and not self._connection.closed:
            self._over = True
            try:
                async with asyncio.timeout(5):
                    await _send(self._connection, (ROLLBACK,))
            except Exception:  # noqa: BLE001  a connection that cannot do that is of no use
                await self._link.close()


BEGIN: Statement = ("BEGIN", ())
COMMIT: Statement = ("COMMIT", ())
ROLLBACK: Statement = ("ROLLBACK", ())


async def _send(connection: "AsyncConnection[Any]", statements: Sequence[Statement]) -> list[Rows]:
    if len(statements) == 1:
        ((text, values),) = statements
        cursor = await connection.execute(text, values)
        return [await cursor.fetchall() if cursor.description else []]
    async with connection.pipeline():
        cursors = [await connection.execute(text, values) for text, values in statements]
    return [await one.fetchall() if one.description else [] for one in cursors]


def unsure() -> AtlasError:
    """Of what the server cannot tell either."""
    return AtlasError(
        "job.unsure",
        "the connection to the queue was lost while it committed: whether that was done is not "
        "known",
        hint="look before you do it again; what has an idempotency key, or jobs with unique keys, "
        "can just be enqueued again",
    )


def unreachable(access: Access, error: Exception) -> AtlasError:
    """Why the database cannot be reached, and what may help."""
    said = access.clean(str(error))
    hint = "nothing was done; check that the server runs, and jobs.stores.postgres.dsn"
    if "startup parameter" in said:
        hint = "connect to the server itself: a pooler in between does not keep what a session sets"
    elif "password" in said or "authentication" in said or "no pg_hba.conf entry" in said:
        hint = "check dsn and password in [jobs.stores.postgres], and pg_hba.conf of the server"
    elif "does not exist" in said:
        hint = "create it (`createdb`), or correct jobs.stores.postgres.dsn"
    return AtlasError(
        "job.store", f"the queue in {access.place} cannot be reached: {said}", hint=hint
    )


async def listen(access: Access, channel: str) -> AsyncIterator[int]:
    """Processes that have notified, as they do; 0 once when it begins, for what was missed.

    Raises `AtlasError` `job.store` when the connection breaks.
    """
    import psycopg

    link = Link(access)
    try:
        connection = await link.ready()
        await connection.execute(f"LISTEN {channel}")
        yield 0
        async for notice in connection.notifies():
            yield notice.pid
    except psycopg.Error as error:
        raise unreachable(access, error) from None
    finally:
        await link.close()
