"""Files rendered from Jinja templates: in a sandbox, strictly, within limits."""

import json
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlasd.settings.render import CannotRenderError, quoted, render
from atlasd.settings.tree import plain
from atlasd.settings.typed import as_text
from atlasd.settings.words import clean

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

SECONDS = 5.0
"""Time that a template may take; looked at as often as it has written something."""
LARGEST = 4 * 1024 * 1024
"""Bytes of a rendered file."""


class Template:
    """One template, read and compiled; it may include others beside it."""

    def __init__(self, path: Path) -> None:
        """Raises `CannotRenderError`, the line in its words."""
        from jinja2 import TemplateSyntaxError

        self._path = path
        self.files = [str(path)]
        """Every file that was read so far, the template itself first."""
        source = _read(path)
        self._environment = self._sandbox()
        try:
            self._template = self._environment.from_string(source)
        except TemplateSyntaxError as error:
            raise CannotRenderError(
                f"{path}:{error.lineno}: {error.message}", hint="see jinja.palletsprojects.com"
            ) from None

    def _sandbox(self) -> "SandboxedEnvironment":
        from jinja2 import FunctionLoader, StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        sandbox = ImmutableSandboxedEnvironment(
            autoescape=False,  # it writes configuration files, not HTML
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            loader=FunctionLoader(self._beside),
        )
        sandbox.filters.update(_FILTERS)
        return sandbox

    def _beside(self, name: str) -> str | None:
        folder = self._path.parent.resolve()
        path = (folder / name).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            return None
        self.files.append(str(path))
        return _read(path)

    def render(
        self,
        values: Mapping[str, Any],
        secrets: list[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> str:
        """The text. Raises `CannotRenderError`, which shows none of the `secrets`."""
        from jinja2 import TemplateError

        deadline = clock() + SECONDS
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(values):
                size += len(part)
                parts.append(part)
                if size > LARGEST:
                    raise CannotRenderError(f"{self._path}: it becomes larger than 4 MiB")
                if clock() > deadline:
                    raise CannotRenderError(f"{self._path}: it takes longer than {SECONDS:g} s")
        except CannotRenderError:
            raise
        except TemplateError as error:
            raise self._failed(error, secrets) from None
        except Exception as error:  # noqa: BLE001  a template can do anything with a value
            raise self._failed(error, secrets) from None
        return "".join(parts)

    def _failed(self, error: Exception, secrets: list[str]) -> CannotRenderError:
        line, trace = 0, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename in ("<template>", "<unknown>"):
                line = trace.tb_lineno
            trace = trace.tb_next
        said = clean(str(error) or type(error).__name__, secrets)
        return CannotRenderError(
            f"{self._path}:{line}: {said}" if line else f"{self._path}: {said}"
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CannotRenderError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CannotRenderError(f"{path}: not UTF-8 text") from None


def _as_json(value: object, indent: int | None = None) -> str:
    return json.dumps(plain(value), ensure_ascii=False, indent=indent, allow_nan=False)


_FILTERS: Mapping[str, Callable[..., str]] = {
    # Jinja's own is made for HTML: it writes < as an escape that other readers don't expect.
    "json": _as_json,
    "tojson": _as_json,
    "toml": lambda value: render(value, "toml"),
    "yaml": lambda value: render(value, "yaml"),
    "shell": lambda value: shlex.quote(as_text(plain(value))),
    "env": lambda value, dialect="bash": quoted(as_text(plain(value)), dialect),
}
"""`json`, `toml` and `yaml` of a value; `shell` a word for a shell; `env` for NAME=value lines."""
