"""Drop-in plugins: files and folders in a folder that nobody else may write to."""

import ast
import importlib.util
import os
import pwd
import re
import stat
import sys
import types
from collections.abc import Iterator
from pathlib import Path

from atlasd.hookspecs import HOOK_API
from atlasd.pluginhost.candidates import Candidate, Refusal

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def find_drop_ins(folder: Path, *, uid: int | None = None) -> list[Candidate]:
    """What lies in a `plugins.d` folder, in the order of names; none when there is no folder.

    Hidden files, `__pycache__` and files that don't end in `.py` are passed over. `uid` is the
    daemon's user unless given.
    """
    owner = os.geteuid() if uid is None else uid
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        reason = f"the folder cannot be read: {error.strerror}"
        return [_refused(folder, reason)]
    found = []
    for path in entries:
        if path.name.startswith((".", "__")):
            continue
        if path.suffix == ".py" or (path.suffix == "" and path.is_dir()):
            found.append(_candidate(path, folder, owner))
    return found


def _candidate(path: Path, folder: Path, owner: int) -> Candidate:
    if not _NAME.fullmatch(path.stem):
        return _refused(
            path,
            f"{path.name!r} is no name for a plugin: use small letters, digits and underscores",
        )
    try:
        is_folder = _safe(path, folder, owner)
    except Refusal as refusal:
        return _refused(path, refusal.reason)
    source = path / "__init__.py" if is_folder else path
    return Candidate(
        name=path.stem,
        origin=str(path),
        load=lambda: _load(path.stem, source, is_folder=is_folder),
        sources=tuple(sorted(path.rglob("*.py"))) if is_folder else (path,),
    )


def _refused(path: Path, reason: str) -> Candidate:
    def load() -> object:
        raise Refusal(reason)

    return Candidate(name=path.stem, origin=str(path), load=load)


# --- who may have written it


def _safe(path: Path, folder: Path, owner: int) -> bool:
    """Whether `path` is a folder; raises `Refusal` if anybody else could have written to it."""
    _only_ours(folder, folder.stat(), owner)
    status = path.lstat()
    _only_ours(path, status, owner)
    if not stat.S_ISDIR(status.st_mode):
        return False
    if not (path / "__init__.py").is_file():
        raise Refusal(f"the folder has no {path.name}/__init__.py")
    for below in _everything_in(path):
        _only_ours(below, below.lstat(), owner)
    return True


def _everything_in(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(parent) / name


def _only_ours(path: Path, status: os.stat_result, owner: int) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise Refusal(f"{path} is a symbolic link: what it leads to may be anybody's; copy it here")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise Refusal(f"{path} is neither a file nor a folder")
    if status.st_uid not in {0, owner}:
        mine = "root" if owner == 0 else f"root or {_user(owner)}"
        raise Refusal(
            f"{path} belongs to {_user(status.st_uid)}, and plugins run as the daemon: "
            f"it must belong to {mine} (chown root {path})"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "anybody" if status.st_mode & stat.S_IWOTH else "its group"
        raise Refusal(
            f"{path} can be written by {who}, and plugins run as the daemon: "
            f"only its owner may (chmod go-w {path})"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


# --- loading


def _load(name: str, source: Path, *, is_folder: bool) -> object:
    """The module, run; raises `Refusal` if it does not say for which atlasd it was written."""
    # The check went by name, and so does this: nobody else may write to the folder, so nobody else
    # can have given the name to another file in between.
    text = source.read_bytes()
    try:
        tree = ast.parse(text, filename=str(source))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        words = error.msg if isinstance(error, SyntaxError) else str(error)
        raise Refusal(f"{source}{line}: {words}") from error
    # Read before anything of it runs: a plugin for a later atlasd may fail in any way.
    check_api(stated_api(tree), must_say=True)
    module_name = f"atlasd_dropin_{name}"
    spec = importlib.util.spec_from_file_location(
        module_name, source, submodule_search_locations=[str(source.parent)] if is_folder else None
    )
    if spec is None:
        raise Refusal(f"{source}: Python does not know how to load it")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(module_name)
    sys.modules[module_name] = module
    try:
        exec(compile(tree, str(source), "exec"), module.__dict__)  # noqa: S102  to run it is the aim
    except BaseException:
        _forget(module_name, before)
        raise
    return module


def _forget(module_name: str, before: types.ModuleType | None) -> None:
    sys.modules.pop(module_name, None)
    if before is not None:
        sys.modules[module_name] = before


def stated_api(tree: ast.Module) -> object:
    """The value that a module's text gives `ATLASD_API`; None when it gives none."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets: list[ast.expr] = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == "ATLASD_API" for target in targets):
            value = statement.value
            return value.value if isinstance(value, ast.Constant) else ast.unparse(value or tree)
    return None


def check_api(stated: object, *, must_say: bool) -> None:
    """Raise `Refusal` unless `stated` is a version of the hooks that this atlasd has."""
    if stated is None:
        if must_say:
            raise Refusal(f"it does not say ATLASD_API = {HOOK_API}, as a drop-in must")
        return
    if not isinstance(stated, int) or isinstance(stated, bool) or stated < 1:
        raise Refusal(f"ATLASD_API must be the number {HOOK_API}, not {stated!r}")
    if stated > HOOK_API:
        raise Refusal(
            f"it was written for hooks of version {stated}, and this atlasd has version "
            f"{HOOK_API}: it needs a newer atlasd"
        )
