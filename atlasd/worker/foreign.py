"""What handlers that are no Python have in common: one for every kind, and how a run is judged."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from atlasd.worker.context import Context, context
from atlasd.worker.errors import Bury
from atlasd.worker.registry import Handler

RESULTS = ("json", "text", "none")
RESULT_LIMIT = 1_048_576
"""Bytes of a result that are kept: what is larger belongs into a file or a table."""
LONGEST = 366 * 86_400.0
"""Seconds of a Retry-After; what asks for more doesn't know what it says."""

_log = logging.getLogger("atlasd.worker")


class EveryKind(Mapping[str, Handler[..., Any]]):
    """Handlers of a worker that runs every job in the same way, whatever its kind."""

    def __init__(self, run: Callable[[Context], Any]) -> None:
        """`run` is called with the job's context; what it gives is the result."""

        def function(**_arguments: Any) -> Any:
            return run(context())

        self._handler: Handler[..., Any] = Handler(function, "", {})

    def __getitem__(self, kind: str) -> Handler[..., Any]:
        """The handler, for any kind."""
        return self._handler

    def __iter__(self) -> Iterator[str]:
        """No kind is known by name."""
        return iter(())

    def __len__(self) -> int:
        """See `__iter__`."""
        return 0


def result_of(raw: bytes, how: str, what: str, *, whole: bool = True) -> Any:
    """The result that a program or a server gave in `raw`, as `how` (one of `RESULTS`) reads it.

    `whole` tells whether all of it was kept. Raises `Bury` where JSON is expected and is not there:
    the job was done, so nothing is gained by doing it again.
    """
    if how == "none":
        return None
    if not whole:
        _log.warning("%s gave more than %d bytes: its result is not kept", what, RESULT_LIMIT)
        return None
    text = raw.decode(errors="replace")
    if how == "text":
        return text or None
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise Bury(
            f"{what} succeeded, but what it gave is no JSON ({error}); --result text keeps it as "
            "it is, --result none drops it"
        ) from None


def retry_after(text: str, now: float) -> float:
    """Seconds that a Retry-After asks for, given as such or as an HTTP date; 0 for anything else.

    `now` is the wall time in seconds since the epoch.
    """
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return seconds if 0.0 < seconds < LONGEST else 0.0
