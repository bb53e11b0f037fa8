from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.core import why
from atlasd.events import (
    Delivered,
    Event,
    HealthChanged,
    InstanceMoved,
    OperationPerformed,
    ServiceScaled,
)
from atlasd.states import MOVES, Lifecycle, Reason
from tests.unit.core.snapshots import NOW, instance, service


def moved(old: str, new: str, reason: str = "", detail: str = "", **values: Any) -> InstanceMoved:
    return InstanceMoved(
        time=NOW - 60,
        service="web",
        instance=0,
        old=old,
        new=new,
        reason=reason,
        detail=detail,
        **values,
    )


def crash(**values: Any) -> dict[str, Any]:
    return {
        "time": "2027-01-15T07:59:00.000Z",
        "service": "web",
        "instance": 0,
        "pid": 7,
        "cause": "signal",
        "detail": "killed by signal KILL",
        "exit_code": None,
        "signal": "KILL",
        "oom": False,
        "uptime_seconds": 12.0,
        "memory_bytes": 35_651_584,
        "cpu_seconds": 0.2,
        "restarts_in_window": 1,
        "fingerprint": "abc",
        "count": 1,
        "last_output": ["ready", "serving"],
        "next": "started again",
        **values,
    }


def test_a_kill_and_its_recovery_are_told_from_first_to_last() -> None:
    events: list[Event] = [
        moved("running", "backoff", "signal", "killed by signal KILL"),
        moved("backoff", "starting", "signal", "killed by signal KILL"),
        moved("starting", "running", "ready"),
    ]
    one = service("web", instance(restarts=1, since=NOW - 60))
    assert why.story(one, events, [crash()], now=NOW) == [
        "07:59:00Z: it ended (killed by signal KILL).",
        "07:59:00Z: it was started again.",
        "07:59:00Z: it was up and ready.",
        (
            "The last crash, 07:59:00Z: killed by signal KILL after 12 s, with 34.0 MiB of memory; "
            "this kind of crash was seen once. Its last words: 'serving'."
        ),
        "web is running, and wanted up.",
        "It has been running (pid 100) for 1 min, 1 restart after failures so far.",
    ]
    assert why.advice(one, [crash()]) == []


def test_backoff_says_what_comes_and_what_can_be_done() -> None:
    one = service(
        "web",
        instance(state="backoff", failures=3, next_start_in=3.5, detail="exit code 3"),
    )
    assert why.story(one, [], [], now=NOW)[-1] == (
        "It is in backoff after 3 failures in a row (exit code 3); the next try is in 3.5 s."
    )
    advice = why.advice(one, [])
    assert advice[0].startswith("`atlasctl logs web")
    assert any("atlasctl restart web" in line for line in advice)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (service("web", instance(state="stopped"), wanted="down"), "atlasctl start web"),
        (service("web", instance(state="failed", reason="spawn")), "exists and may be executed"),
        (
            service(
                "web", instance(state="backoff", reason="spawn", detail="pre_start sh: code 4")
            ),
            "pre_start commands",
        ),
        (
            service("web", instance(state="backoff", reason="spawn", detail="socket a: in use")),
            "ss -lptn",
        ),
        (service("web", instance(state="backoff", reason="oom-kill")), "limits.memory"),
        (
            service("web", instance(state="waiting"), waiting_for=["db"]),
            "`atlasctl why db` tells why db",
        ),
        (service("web", instance(state="lost")), "what became of its process"),
        (service("web", instance(leftovers=[7, 8])), "ps -o pid,stat,wchan:30,args 7 8"),
        (service("web", wanted="paused"), "It is paused"),
        (service("web", instance(state="failed", reason="start-timeout")), "readiness"),
    ],
)
def test_advice_fits_the_trouble(made: Any, words: str) -> None:
    assert any(words in line for line in why.advice(made, []))


def test_exit_code_78_is_named_for_what_it_is() -> None:
    one = service("web", instance(state="failed"))
    assert any("configuration is wrong" in a for a in why.advice(one, [crash(exit_code=78)]))


def test_a_request_names_who_made_it_and_whether_it_was_refused() -> None:
    asked = OperationPerformed(
        time=NOW - 60, operation="service.restart", actor="uid:0", service="web"
    )
    assert why.tell(asked, now=NOW, many=False) == "07:59:00Z: uid:0 asked for service.restart."
    refused = OperationPerformed(
        time=NOW - 60,
        operation="service.reload",
        actor="uid:7",
        service="web",
        error="service.reload",
        detail="it declares no way to reload",
    )
    assert "refused (it declares no way to reload)" in why.tell(refused, now=NOW, many=False)


def test_instances_are_told_apart_only_when_there_are_several() -> None:
    event = HealthChanged(time=NOW, service="web", instance=1, old="pass", new="fail")
    assert "instance 1 went from pass to fail" in why.tell(event, now=NOW, many=True)
    assert ": it went from pass to fail" in why.tell(event, now=NOW, many=False)


def test_what_is_handed_over_is_told_and_what_is_still_to_come() -> None:
    events: list[Event] = [
        moved("running", "reloading", "delivery", "changed: CERT, KEY"),
        Delivered(
            time=NOW - 60,
            service="web",
            instance=0,
            reason="delivery",
            detail="CERT: reloaded; KEY: the next start has it",
        ),
        moved("stopping", "starting", "delivery", "changed: CERT"),
    ]
    one = service("web", instance(outdated=["KEY"]))
    told = why.story(one, events, [], now=NOW)
    assert told[:3] == [
        "07:59:00Z: it was told to reload (changed: CERT, KEY).",
        "07:59:00Z: what it is handed changed (CERT: reloaded; KEY: the next start has it).",
        "07:59:00Z: it was started as what it is handed has changed.",
    ]
    assert told[-1].endswith("; it has an older KEY than is configured.")
    assert why.advice(one, []) == ["`atlasctl restart web` gives it what is configured now."]


def test_another_day_is_told_with_its_date() -> None:
    event = moved("starting", "running", "ready")
    assert why.tell(event, now=NOW + 86400, many=False).startswith("2027-01-15 07:59:00Z")


@given(
    st.sampled_from([(old, new) for old, moves in MOVES.items() for new in moves]),
    st.sampled_from(Reason),
    st.text(max_size=20),
    st.sampled_from(["", "uid:0"]),
)
def test_every_legal_move_can_be_told(
    move: tuple[Lifecycle, Lifecycle], reason: Reason, detail: str, actor: str
) -> None:
    event = moved(move[0].value, move[1].value, reason.value, detail, actor=actor)
    sentence = why.tell(event, now=NOW, many=False)
    assert sentence.startswith("07:59:00Z: it ")
    assert sentence.endswith(".")


@given(st.sampled_from(Lifecycle), st.sampled_from(["up", "down", "paused"]), st.integers(0, 9))
def test_every_state_has_a_present(state: Lifecycle, wanted: str, failures: int) -> None:
    one = service("web", instance(state=state.value, failures=failures), wanted=wanted)
    told = why.story(one, [], [], now=NOW)
    assert told[0].startswith("web is ")
    assert told[-1].startswith("It ")
    why.advice(one, [])


def test_equal_crashes_are_counted_and_the_latest_kind_comes_first() -> None:
    records = [
        crash(time="2027-01-15T07:00:00.000Z", count=1),
        crash(time="2027-01-15T07:10:00.000Z", count=2),
        crash(fingerprint="other", time="2027-01-15T07:20:00.000Z"),
    ]
    groups = why.grouped(records)
    assert [(g["fingerprint"], g["count"]) for g in groups] == [("other", 1), ("abc", 2)]
    assert groups[1]["first"] < groups[1]["last"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 ms"),
        (0.35, "350 ms"),
        (0.9999, "1 s"),
        (3.25, "3.2 s"),
        (12, "12 s"),
        (59.7, "1 min"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (7800, "2 h 10 min"),
        (86400 * 4 + 3 * 3600, "4 d 3 h"),
    ],
)
def test_durations_are_for_people(seconds: float, told: str) -> None:
    assert why.duration(seconds) == told


@given(st.floats(0, 1e9))
def test_a_duration_is_never_empty(seconds: float) -> None:
    assert why.duration(seconds)[0].isdigit()


def test_a_record_of_another_shape_breaks_nothing() -> None:
    odd = {"cause": "signal", "time": "yesterday"}
    assert why.crash_time(odd) == 0.0
    assert why.grouped([odd])[0]["count"] == 1
    assert why.story(service("web"), [], [odd], now=NOW)


def test_a_change_by_the_backlog_has_its_reason() -> None:
    scaled = ServiceScaled(
        time=NOW - 60, service="web", old="2", new="5", actor="backlog",
        detail="oldest job of email waits 42 s, target 10 s",
    )  # fmt: skip
    told = why.story(service("web", instance(since=NOW - 60)), [scaled], [], now=NOW)
    assert told[0] == "07:59:00Z: scale 2 → 5: oldest job of email waits 42 s, target 10 s."
