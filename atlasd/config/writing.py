"""Writing configuration files: one or several, whole or not at all, whenever the process dies."""

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from atlasd.config.snapshot import FileText, Snapshot, read
from atlasd.errors import AtlasError

JOURNAL = ".atlasd-rollback.json"
"""In the folder of the main file while several files are being replaced: what is still to be
done. It is there from the moment at which the new state is certain."""
BACKUP = ".bak"
"""What is added to the name under which a file that a rollback replaced or removed is kept."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep all others who write or read the configuration by our rules out, meanwhile.

    Waits for them. Raises `config.write` for a folder that is not there.
    """
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(str(folder), error) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def write(
    path: Path, content: bytes, *, expected: FileText | None, like: Path | None = None
) -> FileText:
    """Replace a file by way of a temporary one beside it; mode and owner stay.

    One that is new gets those of the file `like`.

    `expected` is the file as it was when `content` was made from it (None: there was none); what
    a symbolic link points to is replaced, the link stays. Raises `config.conflict` when somebody
    has changed the file since, and `config.write`; then the file is as it was.
    """
    target = Path(os.path.realpath(path))
    new = _beside(target)
    try:
        model = like if like is not None and expected is None else target
        mode = _prepare(new, content, like=model)
        if _changed(str(path), expected):
            new.unlink()
            raise AtlasError(
                "config.conflict",
                f"{path}: somebody has changed it meanwhile; nothing was written",
                hint="look at the change, then try again",
            )
        new.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise _unwritable(str(path), error) from error
    return FileText(path=str(path), content=content, mode=mode)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One file of several that are replaced together."""

    path: str
    new: str
    """The temporary file that takes its place; empty: it is removed."""


def replace_all(folder: Path, now: Snapshot, wanted: Snapshot) -> None:
    """Have exactly the files `wanted` in place of those of `now`; call it with `folder` locked.

    Either all of it is done, by us or by whoever calls `finish` next, or nothing. What is replaced
    or removed stays under its name with `.bak` added. Raises `config.write` before anything has
    changed.
    """
    steps: list[Step] = []
    try:
        for path in sorted(now.paths | wanted.paths):
            old, new = now.get(path), wanted.get(path)
            if old == new or (old is not None and new is not None and old.content == new.content):
                continue
            # What a link leads to is written, but not removed: it may be no file of ours.
            link = new is None and os.path.islink(path)  # noqa: PTH114  a text, as all here
            target = Path(path if link else os.path.realpath(path))
            if old is not None:
                _keep(target)
            if new is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                _prepare(_beside(target), new.content, like=target, mode=new.mode)
            steps.append(
                Step(path=str(target), new=str(_beside(target)) if new is not None else "")
            )
        if not steps:
            return
        text = json.dumps([{"path": step.path, "new": step.new} for step in steps])
        journal = folder / JOURNAL
        _prepare(_beside(journal), text.encode(), like=journal, mode=0o600)
        _beside(journal).replace(journal)
        sync_folder(folder)
    except OSError as error:
        for step in steps:
            if step.new:
                with suppress(OSError):
                    Path(step.new).unlink()
        raise _unwritable(str(folder), error) from error
    _carry_out(folder, steps)


def finish(folder: Path) -> bool:
    """Carry out what a process that died while it replaced files has left; whether there was any.

    Raises `config.write` when that is not possible.
    """
    if not os.path.lexists(folder / JOURNAL):
        return False
    with locked(folder):
        found = read(str(folder / JOURNAL))
        if found is None:
            return False  # whoever held the lock before has finished it
        try:
            steps = [Step(path=one["path"], new=one["new"]) for one in json.loads(found.content)]
        except (ValueError, KeyError, TypeError) as error:
            raise AtlasError(
                "config.write",
                f"{folder / JOURNAL}: it does not say what is to be done",
                hint="look at the configuration's files, then remove it",
            ) from error
        _carry_out(folder, steps)
    return True


def _carry_out(folder: Path, steps: Sequence[Step]) -> None:
    try:
        for step in steps:
            with suppress(FileNotFoundError):  # it was done before somebody died
                if step.new:
                    os.replace(step.new, step.path)  # noqa: PTH105  both are texts
                else:
                    os.unlink(step.path)  # noqa: PTH108
        for parent in {os.path.dirname(step.path) for step in steps}:  # noqa: PTH120
            sync_folder(Path(parent))
        (folder / JOURNAL).unlink()
        sync_folder(folder)
    except OSError as error:
        raise _unwritable(str(folder), error) from error


def sync_folder(folder: Path) -> None:
    """Have the kernel write out which names the folder has. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(target: Path) -> Path:
    # Always the same name: what a killed process leaves is overwritten by the next one. It begins
    # with a dot, so that no layer is made of it.
    return target.with_name(f".{target.name}.atlasd-new")


def _prepare(new: Path, content: bytes, *, like: Path, mode: int | None = None) -> int:
    """Write the temporary file, durably, with the mode and owner of what it is to replace."""
    try:
        found = os.stat(like)  # noqa: PTH116
    except FileNotFoundError:
        found = None
    kept = stat.S_IMODE(found.st_mode) if found is not None else mode if mode is not None else 0o640
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123  it is open already
        if found is not None and (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, found.st_uid, found.st_gid)
        os.fchmod(descriptor, kept)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    return kept


def _keep(target: Path) -> None:
    """Have the file under its backup's name too."""
    backup = target.with_name(target.name + BACKUP)
    spare = _beside(backup)
    with suppress(FileNotFoundError):
        spare.unlink()
    os.link(target, spare)
    spare.replace(backup)


def _changed(path: str, expected: FileText | None) -> bool:
    now = read(path)
    if now is None or expected is None:
        return now is not expected
    return now.content != expected.content


def _unwritable(path: str, error: OSError) -> AtlasError:
    return AtlasError(
        "config.write",
        f"{path}: cannot be written: {error.strerror}",
        hint="do it as the user whose files they are, or edit them by hand",
        details=_details(error),
    )


def _details(error: OSError) -> Mapping[str, object]:
    return {"errno": error.errno or 0}
