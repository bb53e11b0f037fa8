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

from atlasd import redaction
from atlasd.clock import isoformat
from atlasd.spellings import as_bytes

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
    (?<!\[)(?<!\$\{)  # what was put in a secret's place, and a reference to one
    \b([a-z0-9_-]*(?:password|passwd|secret|token|api[_-]?key|authorization))
    (["']?\s*[=:]\s*)
    (?!//|["']?\[secret:)
    ("[^"]*"|'[^']*'|(?:bearer|basic)\s+\S+|[^\s,;}&]+)
    """
)
_URL_PASSWORD = re.compile(r"(\w+://[^\s:/@]*:)(?!\[secret:[^\s@/]*\]@)[^\s@/]+(@)")
REDACTED = "[redacted]"


KEPT_VALUES = 4
"""Of each name so many values are known: that of today, and those that it had before."""
KEPT_NAMES = 1000
_RECENT = 32


class Redactor:
    """Takes secrets out of text: values that were named to it, and what looks like a password.

    What is known has a limit, so that a daemon that runs for years does not look for the values
    of years: see `KEPT_VALUES` and `KEPT_NAMES`. It can be used by several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._known: dict[str, list[str | bytes]] = {}
        """Values by name, the newest last; names in the order in which they were learned."""
        # To prepare for a thousand values takes a second, for a few milliseconds: what is new
        # stands apart until it is worth it, and nothing is prepared before something is logged.
        self._settled = redaction.Redactor()
        self._recent: list[tuple[str, str | bytes]] = []
        self._fresh: redaction.Redactor | None = self._settled

    def learn(self, named: Iterable[tuple[str, str | bytes]]) -> None:
        """Never let these values through, each given after its name.

        Values of fewer than six bytes, which would hide too much, are passed over.
        """
        with self._lock:
            for name, value in named:
                values = self._known.pop(name, [])
                self._known[name] = values
                if value in values:
                    values.remove(value)
                else:
                    self._recent.append((name, value))
                    self._fresh = None
                values.append(value)
                del values[:-KEPT_VALUES]
                if len(self._known) > KEPT_NAMES:
                    del self._known[next(iter(self._known))]

    def forget(self, name: str) -> None:
        """Let the values of this name through again: it is no secret any more."""
        with self._lock:
            if self._known.pop(name, None) is not None:
                self._settle()

    def _settle(self) -> None:
        everything = [(name, value) for name, them in self._known.items() for value in them]
        # The newest first: a value that two names share goes by the one that was told last.
        self._settled = redaction.Redactor(reversed(everything))
        self._recent = []
        self._fresh = redaction.Redactor()

    def _ready(self) -> tuple[redaction.Redactor, redaction.Redactor]:
        with self._lock:
            if self._fresh is None:
                if len(self._recent) > _RECENT:
                    self._settle()
                else:
                    self._fresh = redaction.Redactor(reversed(self._recent))
            assert self._fresh is not None
            return self._fresh, self._settled

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        raw = clean = as_bytes(text)
        for known in self._ready():
            clean = known.redact(clean)
        if clean is not raw:
            text = clean.decode(errors="replace")
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
