"""Operations on secrets where no daemon runs: the same engine, under the daemon's own lock."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atlasd.config.load import Config
from atlasd.control import models
from atlasd.control.wire import BY_NAME
from atlasd.daemon.ground import Reader, folder_of, lock, plugins
from atlasd.daemon.secret_desk import ANSWERS, STREAMS, SecretDesk
from atlasd.daemon.secrets import Vault
from atlasd.errors import AtlasError, nearest
from atlasd.paths import Paths

Body = dict[str, Any]

BESIDE = ("secret.keygen", "secret.rotate-keys")
"""What may be done while a daemon runs: its user may be unable to write the keys, which are made to
be changed beside it."""


async def perform(
    operation: str, request: Mapping[str, object], paths: Paths, env: str | None
) -> AsyncIterator[Body]:
    """The bodies of the answer, as the control socket gives them. Raises `AtlasError`.

    References of the configuration need not stand for anything: this is how they come to.
    """
    if operation not in ANSWERS and operation not in STREAMS:
        raise AtlasError(
            "operation.unknown",
            f"{operation} is no operation on secrets",
            hint=nearest(operation, [*ANSWERS, *STREAMS]),
        )
    fields = _fields(operation, request)
    paths.prepare()
    held = None if operation in BESIDE else _lock(paths)
    host = plugins(paths, [])
    vault = Vault(host, paths, "atlasctl")
    try:
        with _owned_as_before(paths):
            config = _config(Reader(role="api", paths=paths, env=env, host=host, vault=vault))
            host.setting.environment = config.environment
            method = SecretDesk(vault, host, lambda: config).methods()[operation]
            given = await method(actor=f"uid:{os.getuid()}", **fields)
            answer = getattr(models, BY_NAME[operation].answer)
            if operation in ANSWERS:
                yield answer.model_validate(given, strict=False).model_dump(mode="json")
                return
            async for item in given:
                yield answer.model_validate(item, strict=False).model_dump(mode="json")
    finally:
        await asyncio.to_thread(vault.close)
        host.close()
        if held is not None:
            os.close(held)


def _lock(paths: Paths) -> int:
    try:
        return lock(paths, "core")
    except AtlasError as error:
        raise AtlasError(
            error.code,
            "a daemon runs, and does not answer on its control socket",
            hint="if it is only just starting, try again; else see its log",
        ) from None


def _config(reader: Reader) -> Config:
    """The configuration without the values of its secrets, which may not be there yet."""
    config = reader.load()
    try:
        # For an environment that is named, settings of applications are looked into as well.
        return reader.load_with({}, config.environment)
    except AtlasError:
        return config  # what is wrong with them is no reason to keep no secrets


def _fields(operation: str, request: Mapping[str, object]) -> Body:
    model = getattr(models, BY_NAME[operation].request)
    try:
        asked = model.model_validate_json(json.dumps(request))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise AtlasError("request.invalid", f"{operation}: {field}: {first['msg']}") from None
    return {name: getattr(asked, name) for name in model.model_fields}


@contextlib.contextmanager
def _owned_as_before(paths: Paths) -> Iterator[None]:
    """What root makes here belongs to the daemon's user, who would not get at it otherwise."""
    owner = Path(paths.state).stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    folders = (Path(paths.state), folder_of(paths))
    roots = {path for folder in folders for path in _files(folder) if path.lstat().st_uid == 0}
    try:
        yield
    finally:
        for path in {path for folder in folders for path in _files(folder)} - roots:
            with contextlib.suppress(OSError):
                status = path.lstat()
                # A name that somebody gave to another file of root's is none of ours.
                if status.st_uid == 0 and (path.is_dir() or status.st_nlink == 1):
                    os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _files(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from folder.rglob("*")
