"""What a handler raises to say what becomes of its job."""


class Outcome(Exception):  # noqa: N818  what all of them are
    """A handler's word on its job."""

    kind = ""
    """What failures are grouped by; empty: the name of the class."""


class Retry(Outcome):
    """Try again later, as for any other exception; `after` seconds at the earliest."""

    def __init__(self, message: str = "", *, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class Discard(Outcome):
    """It is not worth another try, and nobody needs to know: the job is cancelled."""


class Bury(Outcome):
    """No further try would help, a person has to look: the job is dead at once."""


class TargetFailed(Retry):
    """What the job calls is to blame: its circuit breaker hears of it, and the job is retried."""


class Snooze(Exception):  # noqa: N818
    """Not now: the job comes again after `seconds`, and the attempt is not counted."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"snoozed for {seconds:g} s")
        self.seconds = seconds


class LeaseLost(Exception):  # noqa: N818
    """The job is somebody else's by now: stop, and change nothing more."""


class JobTimeout(Exception):  # noqa: N818
    """The handler took longer than the job's time-out."""
