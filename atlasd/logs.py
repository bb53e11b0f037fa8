"""Atlasd's own log: one formatter (text, JSON, journal), context fields, redaction."""

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from atlasd.clock import isoformat

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
STYLES = ("text", "json", "journal")

_PRIORITIES = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}
"""Severities as syslog, and so the journal, counts them."""

_context: ContextVar[tuple[tuple[str, object], ...]] = ContextVar("atlasd_log_context", default=())

_SECRET_NAME = re.compile(r"(?i)(password|passwd|secret|token|api_?key|credential)s?$")
_NAMED_SECRET = re.compile(
    r"""(?ix)
    \b([a-z0-9_-]*(?:password|passwd|secret|token|api[_-]?key|authorization))
    (["']?\s*[=:]\s*)
    ("[^"]*"|'[^']*'|(?:bearer|basic)\s+\S+|[^\s,;}&]+)
    """
)
_URL_PASSWORD = re.compile(r"(\w+://[^\s:/@]*:)[^\s@/]+(@)")
REDACTED = "[redacted]"


class Redactor:
    """Takes secrets out of text: values that were named to it, and what looks like a password."""

    def __init__(self) -> None:
        self._values: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def learn(self, values: Iterable[str]) -> None:
        """Never let these values through; those shorter than six characters would hide too much."""
        with self._lock:
            known = {*self._values, *(value for value in values if len(value) >= 6)}
            # The longest first: one that contains another must not leave its rest behind.
            self._values = tuple(sorted(known, key=lambda value: (-len(value), value)))

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        for value in self._values:
            text = text.replace(value, REDACTED)
        text = _NAMED_SECRET.sub(rf"\1\2{REDACTED}", text)
        return _URL_PASSWORD.sub(rf"\1{REDACTED}\2", text)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret, by all that is usual: `DB_PASSWORD`."""
    return _SECRET_NAME.search(name) is not None


@contextmanager
def context(**fields: object) -> Iterator[None]:
    """Put these fields on every record that is logged meanwhile, by this task or thread."""
    token = _context.set((*_context.get(), *fields.items()))
    try:
        yield
    finally:
        _context.reset(token)


class Formatter(logging.Formatter):
    """A record as one entry: text for people, JSON for programs, priorities for the journal."""

    def __init__(self, style: str, *, role: str, redact: Redactor | None = None) -> None:
        """`style` is one of `STYLES`. Raises `ValueError` for another."""
        if style not in STYLES:
            raise ValueError(f"unknown log style {style!r}: {', '.join(STYLES)}")
        super().__init__()
        self._style_name = style
        self._role = role
        self._redact = redact or Redactor()

    def format(self, record: logging.LogRecord) -> str:
        """The entry, without its newline."""
        message = self._redact(record.getMessage())
        trouble = ""
        if record.exc_info:
            trouble = self._redact(self.formatException(record.exc_info))
        fields = dict(_context.get())
        plugin = getattr(record, "plugin", None)
        if plugin:
            fields["plugin"] = plugin
        if self._style_name == "json":
            return self._json(record, message, trouble, fields)
        told = "".join(f" {key}={self._redact(str(value))}" for key, value in fields.items())
        source = record.name.removeprefix("atlasd.")
        text = f"{source}: {message}{told}"
        if trouble:
            text += "\n" + trouble
        if self._style_name == "text":
            return f"{isoformat(record.created)} {record.levelname.lower():7} {text}"
        # systemd takes the priority from the front of each line, and has the time itself.
        priority = _PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines())

    def _json(
        self, record: logging.LogRecord, message: str, trouble: str, fields: dict[str, object]
    ) -> str:
        body: dict[str, object] = {
            "time": isoformat(record.created),
            "level": record.levelname.lower(),
            "role": self._role,
            "source": record.name,
            "message": message,
        }
        body.update({key: self._redact(str(value)) for key, value in fields.items()})
        if trouble:
            body["traceback"] = trouble
        return json.dumps(body, ensure_ascii=False)


def style_for(configured: str, stream: TextIO) -> str:
    """The style that `auto` stands for: journal when the stream is systemd's, else text."""
    if configured != "auto":
        return configured
    wanted = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return "text"
    return "journal" if wanted == f"{status.st_dev}:{status.st_ino}" else "text"


def configure(
    *,
    role: str,
    level: str = "info",
    style: str = "auto",
    stream: TextIO | None = None,
    redact: Redactor | None = None,
) -> None:
    """Have everything that is logged go to `stream` (default: standard error), in one form.

    Can be called again, as when the configuration says otherwise.
    """
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    handler.setFormatter(Formatter(style_for(style, target), role=role, redact=redact))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h.formatter, Formatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("atlasd").setLevel(LEVELS[level])
    logging.raiseExceptions = False


class _OneLine(logging.Filter):
    """Takes tracebacks off: what is no HTTP is the peer's mistake and not atlasd's."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            fault = record.exc_info[1]
            record.msg, record.args = "a request that is no HTTP: %s", (type(fault).__name__,)
            record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def protocol_log(name: str) -> logging.Logger:
    """The log for a library that serves HTTP, of what it refuses before any handler of ours."""
    log = logging.getLogger(name)
    if not log.filters:
        log.addFilter(_OneLine())
    return log
