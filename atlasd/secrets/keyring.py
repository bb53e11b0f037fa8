"""Operations on the keys that protect secrets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta

from atlasd.contracts.secrets import Capability, KeyInfo, KeyProgress, KeyRing, SecretStore
from atlasd.errors import AtlasError
from atlasd.secrets.desk import Asker, Body, Desk, Use

REWRAP_LIMIT = timedelta(hours=6)
"""What a re-wrapping of all records may take."""


class KeyOperations(Desk):
    """Those on key rings; see `SecretOperations` for the manner."""

    async def keys(self, asker: Asker, *, backend: str = "") -> Body:
        """`secret.keys`."""
        del asker
        use = self._use()
        backend = self._demand(use, backend, Capability.KEYS)
        keys: Sequence[KeyInfo] = await self._call(
            use, backend, lambda store: _ring(store).keys(), (list, tuple)
        )
        return {"keys": [_key(backend, one) for one in keys]}

    async def keygen(self, asker: Asker, *, backend: str = "") -> Body:
        """`secret.keygen`."""
        use = self._use()
        backend = self._demand(use, backend, Capability.KEYS)
        async with self._entered(use, asker, "keygen", backend, "") as entry:
            made: KeyInfo = await self._call(
                use, backend, lambda store: _ring(store).keygen(), KeyInfo
            )
            entry.version = made.id
        return _key(backend, made)

    async def rotate_keys(
        self, asker: Asker, *, backend: str = "", retire: bool = True
    ) -> AsyncIterator[Body]:
        """`secret.rotate-keys`: how far it has come, again and again; the last one is the end."""
        use = self._use()
        backend = self._demand(use, backend, Capability.KEYS)
        seen: list[KeyProgress] = []
        progress = _Progress()
        async with self._entered(use, asker, "rotate-keys", backend, "") as entry:
            work = progress.work(
                lambda tell: self._call(
                    use,
                    backend,
                    lambda store: _ring(store).rotate_keys(tell, retire=retire),
                    KeyProgress,
                    limit=REWRAP_LIMIT,
                )
            )
            async for one in work:
                seen.append(one)
                yield {
                    "done": one.done,
                    "total": one.total,
                    "retired": list(one.retired),
                    "finished": False,
                }
            last = seen[-1]
            entry.reason = f"{last.done} records; retired: {', '.join(last.retired) or 'none'}"
        yield {
            "done": last.done,
            "total": last.total,
            "retired": list(last.retired),
            "finished": True,
        }

    async def _rings(self, use: Use) -> Sequence[Body]:
        rows = []
        for backend in self._engine.backends.able(use.policy, Capability.KEYS):
            try:
                keys: Sequence[KeyInfo] = await self._call(
                    use, backend, lambda store: _ring(store).keys(), (list, tuple)
                )
            except AtlasError as error:
                rows.append(_no_key(backend, error))
            else:
                rows += [_key(backend, one) for one in keys]
        return rows


class _Progress:
    """Progress that a callback tells, as something to iterate over."""

    async def work(
        self, begin: Callable[[Callable[[KeyProgress], None]], Awaitable[KeyProgress]]
    ) -> AsyncIterator[KeyProgress]:
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[KeyProgress | None] = asyncio.Queue()

        def tell(progress: KeyProgress) -> None:
            # A store may tell from one of its threads.
            loop.call_soon_threadsafe(told.put_nowait, progress)

        async def all_of_it() -> KeyProgress:
            try:
                return await begin(tell)
            finally:
                told.put_nowait(None)

        task = asyncio.create_task(all_of_it())
        try:
            while (one := await told.get()) is not None:
                yield one
            yield await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _ring(store: SecretStore) -> KeyRing:
    if not isinstance(store, KeyRing):
        raise AtlasError("secret.unsupported", "the backend says that it has keys, and has none")
    return store


def _key(backend: str, key: KeyInfo) -> Body:
    return {
        "backend": backend,
        "id": key.id,
        "primary": key.primary,
        "source": key.source,
        "warning": key.warning,
        "records": key.records,
    }


def _no_key(backend: str, error: AtlasError) -> Body:
    return {
        "backend": backend,
        "id": "",
        "primary": False,
        "source": "",
        "warning": f"{error.message}; {error.hint}" if error.hint else error.message,
        "records": 0,
    }
