from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.cli.outcome import Goal, Result, judge
from atlasd.states import Lifecycle

PENDING, DONE, FAILED = Result.PENDING, Result.DONE, Result.FAILED


def instance(state: str, **more: Any) -> dict[str, Any]:
    alive = state in {"starting", "running", "reloading", "stopping"}
    fields: dict[str, Any] = {
        "state": state,
        "pid": 100 if alive else None,
        "since": "2026-11-23T17:00:00Z",
        "reason": "exit-code",
        "detail": "exit code 3",
        "invocation": "run-1",
        "leftovers": [],
        "delivery": "",
        "next_start_in": None,
    }
    return fields | more


LATER = {"since": "2026-11-23T17:00:09Z"}
ANEW = {"invocation": "run-2", "pid": 200, **LATER}
GONE = {"pid": None, **LATER}


@pytest.mark.parametrize(
    ("goal", "before", "now", "expected"),
    [
        (Goal.STARTED, instance("stopped"), instance("stopped"), PENDING),
        (Goal.STARTED, instance("stopped"), instance("waiting", **LATER), PENDING),
        (Goal.STARTED, instance("stopped"), instance("running", **ANEW), DONE),
        (Goal.STARTED, instance("running"), instance("running"), DONE),
        (Goal.STARTED, None, None, PENDING),
        (Goal.STARTED, None, instance("running"), DONE),
        (Goal.STARTED, instance("exited"), instance("exited"), PENDING),
        (Goal.STARTED, instance("exited"), instance("exited", **LATER), DONE),
        # A failure from before is no answer; a new one is.
        (Goal.STARTED, instance("failed"), instance("failed"), PENDING),
        (Goal.STARTED, instance("failed"), instance("failed", **LATER), FAILED),
        # Its first failure is retried at once; a delay says it failed again.
        (Goal.STARTED, instance("stopped"), instance("backoff", **LATER), PENDING),
        (
            Goal.STARTED,
            instance("stopped"),
            instance("backoff", next_start_in=1.5, **LATER),
            FAILED,
        ),
        (Goal.RESTARTED, instance("running"), instance("running"), PENDING),
        (Goal.RESTARTED, instance("running"), instance("stopping", **LATER), PENDING),
        (Goal.RESTARTED, instance("running"), instance("running", **ANEW), DONE),
        (Goal.RESTARTED, instance("stopped", invocation=None), instance("running"), DONE),
        (Goal.RESTARTED, instance("running"), instance("failed", **{**ANEW, "pid": None}), FAILED),
        (Goal.DELIVERED, instance("running"), instance("running", delivery="due"), PENDING),
        (Goal.DELIVERED, instance("running"), instance("stopping", **LATER), PENDING),
        (Goal.DELIVERED, instance("running"), instance("starting", **ANEW), PENDING),
        (Goal.DELIVERED, instance("running"), instance("running", **ANEW), DONE),
        (Goal.DELIVERED, instance("running"), instance("running"), DONE),
        (Goal.DELIVERED, instance("running"), instance("running", delivery="halted"), FAILED),
        (Goal.DELIVERED, instance("running"), instance("failed", **GONE), FAILED),
        (Goal.STOPPED, instance("running"), instance("running"), PENDING),
        (Goal.STOPPED, instance("running"), instance("stopping", **LATER), PENDING),
        (Goal.STOPPED, instance("running"), instance("stopped", **GONE), DONE),
        (Goal.STOPPED, instance("running"), None, DONE),
        (Goal.STOPPED, instance("running"), instance("stopped", leftovers=[7], **GONE), FAILED),
        (Goal.RELOADED, instance("running"), instance("reloading", **LATER), PENDING),
        (Goal.RELOADED, instance("running"), instance("running"), DONE),
        (Goal.RELOADED, instance("running"), instance("backoff", **LATER), FAILED),
        # It runs on, but not with what it was to read.
        (Goal.RELOADED, instance("running"), instance("running", reason="request"), FAILED),
        (Goal.RELOADED, instance("running"), instance("running", reason="ready"), DONE),
    ],
)
def test_what_became_of_it(goal: Goal, before: Any, now: Any, expected: Result) -> None:
    assert judge(goal, before, now).result is expected


def test_a_verdict_says_why() -> None:
    late = instance("backoff", next_start_in=1.5, **LATER)
    assert judge(Goal.STARTED, instance("stopped"), late).text == (
        "backoff (exit code 3); next try in 1.5 s"
    )
    stuck = instance("stopped", leftovers=[7, 8], **GONE)
    assert "7, 8" in judge(Goal.STOPPED, instance("running"), stuck).text


instances = st.builds(
    lambda state, **more: instance(state.value, **more),
    st.sampled_from(Lifecycle),
    since=st.sampled_from(["a", "b"]),
    invocation=st.sampled_from([None, "run-1", "run-2"]),
    leftovers=st.sampled_from([[], [7]]),
    next_start_in=st.sampled_from([None, 0.0, 2.0]),
)


@given(goal=st.sampled_from(Goal), before=st.none() | instances, now=st.none() | instances)
def test_done_means_done(goal: Goal, before: Any, now: Any) -> None:
    verdict = judge(goal, before, now)
    if verdict.result is not DONE:
        return
    if goal is Goal.STOPPED:
        assert now is None or (now["pid"] is None and not now["leftovers"])
    else:
        assert now["state"] in {"running", "exited"}
    if goal is Goal.RESTARTED and before is not None:
        assert (before["invocation"] or before["pid"]) != (now["invocation"] or now["pid"])
