"""Changing one setting in the text of a TOML file: all else stays as it was written; pure."""

import tomllib
from typing import TYPE_CHECKING, Any

from atlasd.config.problems import dotted
from atlasd.contracts.config import KeyPath
from atlasd.errors import AtlasError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


def set_value(text: str, path: KeyPath, value: Any) -> str:
    """The text with `value` at `path`; comments, order and spaces stay.

    Tables on the way are made. Raises `config.conflict` where something on the way is no table, or
    a list has no such item.
    """
    wanted = _changed(_read(text), path, value, remove=False)
    document = _parsed(text)
    around = _walk(document, path[:-1], make=True)
    key = path[-1]
    if isinstance(around, list):
        around[int(key)] = _item(value)
    elif key in around:
        _exchange(around, str(key), value)
    else:
        around[str(key)] = _item(value)
    return _proved(document, wanted, path)


def remove(text: str, path: KeyPath) -> str:
    """The text without what stands at `path`. Raises `config.unknown` where nothing does."""
    wanted = _changed(_read(text), path, None, remove=True)
    document = _parsed(text)
    around = _walk(document, path[:-1], make=False)
    del around[path[-1] if isinstance(around, list) else str(path[-1])]
    return _proved(document, wanted, path)


def value_in(text: str, path: KeyPath) -> Any:
    """What stands at `path` in a TOML text. Raises `config.unknown` where nothing does."""
    value: Any = _read(text)
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            raise _absent(path) from None
    return value


def _read(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AtlasError(
            "config.invalid",
            f"the file is no TOML: {str(error)[:1].lower()}{str(error)[1:]}",
            hint="mend it first: `atlasctl config check` says where it is broken",
        ) from None


def _changed(data: Any, path: KeyPath, value: Any, *, remove: bool) -> Any:
    """The plain data as it is to be afterwards."""
    around = data
    for depth, key in enumerate(path[:-1]):
        if isinstance(around, dict) and isinstance(key, str):
            if key not in around and remove:
                raise _absent(path)
            around = around.setdefault(key, {})
        elif isinstance(around, list) and isinstance(key, int) and key < len(around):
            around = around[key]
        else:
            raise _no_table(path, depth)
    key = path[-1]
    if isinstance(around, list) and isinstance(key, int):
        if key >= len(around):
            raise _absent(path) if remove else _no_table(path, len(path) - 1)
    elif not isinstance(around, dict) or not isinstance(key, str):
        raise _no_table(path, len(path) - 1)
    elif remove and key not in around:
        raise _absent(path)
    if remove:
        del around[key]
    else:
        around[key] = value
    return data


def _parsed(text: str) -> "TOMLDocument":
    import tomlkit

    return tomlkit.parse(text)


def _item(value: Any) -> Any:
    import tomlkit

    if isinstance(value, dict):
        table = tomlkit.inline_table()
        for key, item in value.items():
            table[key] = _item(item)
        return table
    return tomlkit.item(value)


def _exchange(around: Any, key: str, value: Any) -> None:
    """Put a value in the place of another one, the comment behind it included."""
    old = around.item(key) if hasattr(around, "item") else around[key]
    new = _item(value)
    trivia = getattr(old, "trivia", None)
    if trivia is not None and not isinstance(old, dict) and not isinstance(new, dict):
        new.trivia.comment_ws = trivia.comment_ws
        new.trivia.comment = trivia.comment
        new.trivia.trail = trivia.trail
    around[key] = new


def _walk(document: Any, path: KeyPath, *, make: bool) -> Any:
    import tomlkit
    from tomlkit.items import InlineTable

    here = document
    for depth, key in enumerate(path):
        if isinstance(here, list):
            here = here[int(key)]
            continue
        name = str(key)
        if name not in here:
            assert make
            if isinstance(here, InlineTable):
                made: Any = tomlkit.inline_table()
            else:
                # A heading of its own for the innermost one only: [services.web.env].
                made = tomlkit.table(is_super_table=depth < len(path) - 1)
            here.append(name, made) if not isinstance(here, InlineTable) else here.update(
                {name: made}
            )
        here = here[name]
    return here


def _proved(document: "TOMLDocument", wanted: Any, path: KeyPath) -> str:
    """The document's text, once it is certain that it says what it is to say, and nothing else."""
    text = document.as_string()
    try:
        same = tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        raise AtlasError(
            "config.conflict",
            f"{dotted(path)} cannot be changed without writing the rest of the file anew",
            hint="edit the file by hand",
        )
    return text


def _absent(path: KeyPath) -> AtlasError:
    return AtlasError("config.unknown", f"{dotted(path)} does not stand in this file")


def _no_table(path: KeyPath, depth: int) -> AtlasError:
    where = dotted(path[:depth]) or "the file"
    return AtlasError(
        "config.conflict",
        f"{dotted(path)} cannot stand here: {where} has no place for {path[depth]!r}",
        hint="`atlasctl config explain KEY` says what a setting takes",
    )
