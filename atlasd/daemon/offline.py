"""Operations on the configuration where no daemon runs: the same code, on the files alone."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atlasd.config import history, snapshot
from atlasd.config.editing import EditOperations, Editor
from atlasd.config.history import History
from atlasd.config.questions import Past, Questions
from atlasd.config.restoring import Present, Restorer
from atlasd.control import models
from atlasd.control.wire import BY_NAME
from atlasd.core.engine import SCHEMAS
from atlasd.daemon.ground import Reader, offers
from atlasd.errors import AtlasError, nearest
from atlasd.store import Store

Answer = dict[str, Any]


async def perform(operation: str, request: Mapping[str, object], reader: Reader) -> Answer:
    """The body of the answer, as the control socket gives it. Raises `AtlasError`."""
    editing = EditOperations(
        Editor(reader.paths, reader.load_with), sealing=reader.vault, reload=None
    )
    questions = Questions(
        reader.load, load=reader.of_environment, offers=lambda: offers(reader.host)
    )
    kept = _Kept(reader)
    methods: dict[str, Callable[..., Any]] = {
        "config.show": questions.show,
        "config.explain": questions.explain,
        "config.sources": questions.sources,
        "config.schema": questions.schema,
        "config.diff": questions.diff,
        "config.export": questions.export,
        "config.reveal": questions.reveal,
        "config.set": editing.set,
        "config.unset": editing.unset,
        "config.encrypt": editing.encrypt,
        "config.decrypt": editing.decrypt,
        "config.history": kept.history,
        "config.rollback": kept.rollback,
    }
    if operation not in methods:
        raise AtlasError(
            "operation.unknown",
            f"{operation} needs a daemon",
            hint=nearest(operation, list(methods)),
        )
    row = BY_NAME[operation]
    try:
        asked = getattr(models, row.request).model_validate_json(json.dumps(request))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise AtlasError("request.invalid", f"{operation}: {field}: {first['msg']}") from None
    fields = {name: getattr(asked, name) for name in type(asked).model_fields}
    body = await methods[operation](actor="files", **fields)
    answer: Answer = (
        getattr(models, row.answer).model_validate(body, strict=False).model_dump(mode="json")
    )
    return answer


class _Kept:
    """The generations that an earlier daemon has kept."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[History]:
        path = Path(self._reader.paths.database)
        if not await asyncio.to_thread(path.exists):
            raise AtlasError(
                "config.unknown",
                f"no daemon has kept generations in {path}",
                hint="`atlasd run` begins with the first one",
            )
        schemas = {**SCHEMAS, "generations": history.SCHEMA}
        store = await asyncio.to_thread(Store.open, path, schemas)
        try:
            yield History(store)
        finally:
            await store.close()

    async def history(self, *, actor: str) -> Answer:
        """`config.history`: none of them is in force."""
        async with self._opened() as kept:
            return await Past(kept, lambda: 0).history(actor=actor)

    async def rollback(self, *, generation: int | None, force: bool, actor: str) -> Answer:
        """`config.rollback`: the next daemon begins with what is written back.

        Without a number, edits since the last generation are what is undone, if there are any.
        """
        del actor
        paths = self._reader.paths
        async with self._opened() as kept:
            last = await kept.last()
            if last is None:
                raise AtlasError("config.unknown", "no generation is kept")
            present = Present(
                number=last.number,
                environment=last.environment,
                files=last.files,
                layers=last.files.paths,
            )
            if generation is None and snapshot.edited(last.files, Path(paths.config_parts)):
                generation = last.number
            number, restored = await Restorer(paths, kept, lambda: present).restore(
                generation, force
            )
            try:
                await asyncio.to_thread(self._reader.load)
            except AtlasError:
                await restored.undo()
                raise
        return {
            "generation": last.number if number == last.number else last.number + 1,
            "restored": number,
            "applied": (),
            "pending": (),
            "notes": ("no daemon runs: the next one begins with it",),
        }
