"""What became of an operation: judged from what an instance was and what it is; pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

Detail = Mapping[str, Any]
"""An instance in the answer to `service`."""


class Goal(StrEnum):
    """What an operation wants of an instance."""

    STARTED = "started"
    STOPPED = "stopped"
    RESTARTED = "restarted"
    RELOADED = "reloaded"
    DELIVERED = "delivered"


class Result(StrEnum):
    """Where an operation stands for one instance."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


class Verdict(NamedTuple):
    """A result with its reason in plain words."""

    result: Result
    text: str


def judge(goal: Goal, before: Detail | None, now: Detail | None) -> Verdict:
    """Whether an instance is there yet, or will not get there by itself.

    `before` is how it was when it was asked for (None: there was no such instance), `now` how it
    is (None: there is none any more).
    """
    if goal is Goal.STOPPED:
        return _stopped(before, now)
    if now is None:
        return Verdict(Result.PENDING, "is not there yet")
    if goal is Goal.RELOADED:
        return _reloaded(now)
    if goal is Goal.DELIVERED:
        return _delivered(now)
    same_run = before is not None and _run(before) == _run(now)
    if goal is Goal.RESTARTED and same_run:
        return Verdict(Result.PENDING, _state(now))
    if before is not None and same_run and not _moved(before, now) and now["state"] != "running":
        # What is seen is still what was there before: a failure of yesterday is no answer.
        return Verdict(Result.PENDING, _state(now))
    return _started(now)


def left_alone(before: Detail | None, now: Detail | None) -> bool:
    """Whether it runs on as it was, as instances do when a restart one by one was given up."""
    if before is None or now is None:
        return False
    return _run(before) == _run(now) and now["state"] == "running"


def _started(now: Detail) -> Verdict:
    state = now["state"]
    if state == "running":
        return Verdict(Result.DONE, f"running, pid {now['pid']}")
    if state == "exited":
        return Verdict(Result.DONE, "finished")
    if state in ("failed", "lost", "stopped"):
        return Verdict(Result.FAILED, _state(now))
    if state == "backoff" and now["next_start_in"]:
        # The first restart is immediate and deserves a second look; a delay means it failed twice.
        return Verdict(Result.FAILED, f"{_state(now)}; next try in {now['next_start_in']:.1f} s")
    return Verdict(Result.PENDING, _state(now))


def _stopped(before: Detail | None, now: Detail | None) -> Verdict:
    if now is None:
        return Verdict(Result.DONE, "stopped")
    if now["leftovers"]:
        pids = ", ".join(map(str, now["leftovers"]))
        return Verdict(Result.FAILED, f"processes that would not die: {pids}")
    if now["state"] in ("stopped", "exited", "failed", "lost") and now["pid"] is None:
        return Verdict(Result.DONE, now["state"])
    del before
    return Verdict(Result.PENDING, _state(now))


def _delivered(now: Detail) -> Verdict:
    state = now["state"]
    if now["delivery"] == "halted":
        return Verdict(Result.FAILED, "keeps what it was handed before")
    if now["delivery"] == "due" or state in ("starting", "stopping", "reloading", "waiting"):
        return Verdict(Result.PENDING, _state(now))
    return _started(now)


def _reloaded(now: Detail) -> Verdict:
    state = now["state"]
    if state == "running" and now["reason"] == "request":
        # It runs on with what it had: the move back says so.
        return Verdict(Result.FAILED, str(now["detail"]))
    if state == "running":
        return Verdict(Result.DONE, f"reloaded, pid {now['pid']}")
    if state == "reloading":
        return Verdict(Result.PENDING, _state(now))
    return Verdict(Result.FAILED, _state(now))


def _run(instance: Detail) -> object:
    return instance["invocation"] or instance["pid"]


def _moved(before: Detail, now: Detail) -> bool:
    return (before["state"], before["since"]) != (now["state"], now["since"])


def _state(instance: Detail) -> str:
    detail = instance["detail"] or instance["reason"]
    return f"{instance['state']} ({detail})" if detail else str(instance["state"])
