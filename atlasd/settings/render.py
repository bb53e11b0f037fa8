"""Settings as text: TOML, JSON, YAML, or lines of variables, quoted for whoever reads them."""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any

from atlasd.contracts.config import KeyPath
from atlasd.settings.tree import dotted, nodes, plain
from atlasd.settings.typed import as_text


class CannotRenderError(Exception):
    """The settings cannot be said in this format; the reason in words, without a value."""

    def __init__(self, why: str, *, hint: str = "", key: str = "") -> None:
        super().__init__(why)
        self.hint = hint
        self.key = key


def render(data: Mapping[str, Any], form: str) -> str:
    """The settings as `toml`, `json` or `yaml`. Raises `CannotRenderError`."""
    return _FORMATS[form](data)


def _toml(data: Mapping[str, Any]) -> str:
    import tomli_w

    for path, value in nodes(data):
        if isinstance(value, list) and None in value:
            raise CannotRenderError(
                "a list with null in it, which TOML does not have",
                hint="render it as json or yaml, or leave the item out",
                key=dotted(path),
            )
        if isinstance(value, time) and value.tzinfo is not None:
            raise CannotRenderError("a time with a zone, which TOML has not", key=dotted(path))
    return tomli_w.dumps(_without_nulls(data))


def _without_nulls(value: Any) -> Any:
    """The same without keys that are null: for TOML, as for nobody, is what is not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _json(data: Mapping[str, Any]) -> str:
    for path, value in nodes(data):
        if isinstance(value, float) and not math.isfinite(value):
            raise CannotRenderError(f"{value}, which JSON does not have", key=dotted(path))
    return json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _yaml(data: Mapping[str, Any]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes a value out each time it occurs, and text such that it is read as text."""

        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    # A time of day would be read as a number in sixties, and a date with a zone may be shifted.
    Dumper.add_representer(time, lambda dumper, value: dumper.represent_str(value.isoformat()))
    Dumper.add_representer(str, _yaml_text)
    return yaml.dump(
        dict(data), Dumper=Dumper, allow_unicode=True, sort_keys=False, width=4096, indent=2
    )


_READ_OTHERWISE = re.compile(r"[yYnN]|[-+]?0o[0-7]+|\d[\d_:.]*")
"""Text that some reader of YAML takes for a truth or a number, though PyYAML does not."""


_BREAKS = re.compile("[\x85\u2028\u2029\ufeff]")


def _yaml_text(dumper: Any, text: str) -> Any:
    style = "'" if _READ_OTHERWISE.fullmatch(text) else None
    if _BREAKS.search(text):
        style = '"'  # the only style in which these are not turned into line breaks
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_FORMATS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "toml": _toml,
    "json": _json,
    "yaml": _yaml,
}


def env_lines(variables: Mapping[str, str], dialect: str) -> str:
    """`NAME=value` lines that a reader of the dialect takes back. Raises `CannotRenderError`."""
    lines = []
    for name, value in variables.items():
        try:
            lines.append(f"{name}={quoted(value, dialect)}\n")
        except CannotRenderError as error:
            raise CannotRenderError(str(error), hint=error.hint, key=name) from None
    return "".join(lines)


_BARE = re.compile(r"[A-Za-z0-9_@%+=:,./-]*")


def quoted(value: str, dialect: str) -> str:
    """A value as it stands after the `=` of a line. Raises `CannotRenderError`."""
    if "\0" in value:
        raise CannotRenderError("a NUL character, which no variable can hold")
    if dialect == "docker":
        # It knows no quotes: what stands after the = is the value, to the end of the line.
        if "\n" in value or "\r" in value:
            raise CannotRenderError(
                "a line break, which a file for docker cannot have",
                hint="render it for another dialect, or as JSON",
            )
        return value
    if _BARE.fullmatch(value):
        return value
    return _QUOTED[dialect](value)


def _bash(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _systemd(value: str) -> str:
    return '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'


def _compose(value: str) -> str:
    if "'" not in value and "\\" not in value and "\n" not in value and "\r" not in value:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r") + '"'


_QUOTED: Mapping[str, Callable[[str], str]] = {
    "bash": _bash,
    "systemd": _systemd,
    "compose": _compose,
}


def env_text(value: object, path: KeyPath) -> str:
    """A setting as a variable's text. Raises `CannotRenderError` for what no variable can hold."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    try:
        text = as_text(plain(value))
    except ValueError:
        raise CannotRenderError("a number that JSON does not have", key=dotted(path)) from None
    if "\0" in text:
        raise CannotRenderError("a NUL character, which no variable can hold", key=dotted(path))
    if len(text.encode(errors="surrogatepass")) > LONGEST_VARIABLE:
        raise CannotRenderError(
            f"more than {LONGEST_VARIABLE // 1024} KiB, which the kernel does not pass on",
            hint="hand the settings over in a file: settings_file",
            key=dotted(path),
        )
    return text


LONGEST_VARIABLE = 120 * 1024
"""Bytes of a variable; the kernel's limit, with the name, is 128 KiB."""
