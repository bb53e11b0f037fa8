"""The kit for tests of an application's jobs, itself tested."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from atlasd.contracts.queue import QueueLimits
from atlasd.errors import AtlasError
from atlasd.jobs.circuit import CircuitPolicy
from atlasd.jobs.rules import QueueRules
from atlasd.states import JobState
from atlasd.testing.jobs import JobKit
from atlasd.worker import Bury, Discard, Retry, Snooze, TargetFailed, context
from atlasd.worker.client import shared
from atlasd.worker.registry import Handler

Declare = Callable[..., Handler[..., Any]]


@pytest.fixture
def handlers() -> dict[str, Handler[..., Any]]:
    return {}


@pytest.fixture
def declare(handlers: dict[str, Handler[..., Any]]) -> Declare:
    """Declares a handler that no other test sees."""

    def declare(function: Callable[..., Any], kind: str = "work", **options: Any) -> Any:
        handlers[kind] = Handler(function, kind, options)
        return handlers[kind]

    return declare


@pytest.fixture
def kit(handlers: dict[str, Handler[..., Any]]) -> Iterator[JobKit]:
    with JobKit(handlers=handlers) as kit:
        yield kit


def test_what_is_enqueued_meanwhile_goes_to_the_kit(kit: JobKit, declare: Declare) -> None:
    work = declare(lambda n: n * 2)
    made = work.enqueue(n=21, priority=1, tags=["a"])
    assert (made.state, made.outcome) == ("available", "created")
    (waits,) = kit.jobs()
    assert (waits.state, waits.args) == (JobState.AVAILABLE, {"n": 21})
    (done,) = kit.drain().completed
    assert (done.id, done.result, done.attempts) == (made.id, 42, 1)


def test_afterwards_it_goes_where_it_went_before(declare: Declare) -> None:
    before = shared()
    with JobKit() as outer:
        assert shared() is outer.client
        with JobKit() as inner:
            assert shared() is inner.client
        assert shared() is outer.client
    assert shared() is before


def test_delays_and_retries_cost_no_time(kit: JobKit, declare: Declare) -> None:
    attempts: list[float] = []

    def fails_twice() -> None:
        attempts.append(kit.clock.wall())
        if len(attempts) < 3:
            raise ValueError("not yet")

    began = kit.clock.wall()
    declare(fails_twice).enqueue(delay="10m")
    drained = kit.drain()
    (done,) = drained.completed
    assert (done.attempts, drained.runs) == (3, 3)
    assert [error["message"] for error in done.errors] == ["not yet", "not yet"]
    assert [round(at - began) for at in attempts] == [600, 605, 615]
    assert drained.waited == timedelta(seconds=615)


def test_without_winding_only_what_is_due_runs(kit: JobKit, declare: Declare) -> None:
    work = declare(lambda: None)
    work.enqueue(delay=5)
    work.enqueue()
    assert kit.drain(wind=False).runs == 1
    kit.wind(timedelta(seconds=5))
    assert kit.drain(wind=False).runs == 1


@pytest.mark.parametrize(
    ("error", "state", "reason", "runs"),
    [
        (ValueError("no"), "dead", "exhausted", 2),
        (Retry("later", after=60), "dead", "exhausted", 2),
        (Bury("look at it"), "dead", "buried", 1),
        (Discard("never mind"), "cancelled", "discarded", 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_handler_raises_decides(
    kit: JobKit, declare: Declare, error: Exception, state: str, reason: str, runs: int
) -> None:
    def fail() -> None:
        raise error

    declare(fail, max_attempts=2).enqueue()
    drained = kit.drain()
    (ended,) = [*drained.dead, *drained.cancelled]
    assert (ended.state, ended.reason, drained.runs) == (state, reason, runs)


def test_a_snooze_is_no_attempt(kit: JobKit, declare: Declare) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(context().attempt)
        if len(runs) < 3:
            raise Snooze(60)

    declare(work).enqueue()
    drained = kit.drain()
    assert (runs, drained.waited) == ([1, 1, 1], timedelta(seconds=120))


def test_one_job_leads_to_another(kit: JobKit, declare: Declare) -> None:
    order: list[str] = []
    last = declare(lambda: order.append("last"), "last")

    def first() -> None:
        order.append("first")
        last.enqueue(delay=5)

    declare(first, "first").enqueue(then=[{"kind": "then"}])
    declare(lambda: order.append("then"), "then")
    assert [done.kind for done in kit.drain().completed] == ["first", "then", "last"]
    assert order == ["first", "then", "last"]


def test_coroutine_handlers_share_a_loop(kit: JobKit, declare: Declare) -> None:
    loops: list[object] = []

    async def work(n: int) -> int:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        if n:
            handler.enqueue(n=n - 1)
        return n

    handler = declare(work)
    handler.enqueue(n=2)
    assert [done.result for done in kit.drain().completed] == [2, 1, 0]
    assert len(set(map(id, loops))) == 1


async def test_in_a_coroutine_test_they_run_in_its_loop(kit: JobKit, declare: Declare) -> None:
    async def work() -> None:
        seen.append(asyncio.get_running_loop())

    seen: list[object] = []
    declare(work).enqueue()
    declare(lambda: None, "plain").enqueue()
    assert len((await kit.drain_async()).completed) == 2
    assert seen == [asyncio.get_running_loop()]


def test_progress_and_the_context_are_as_in_a_worker(kit: JobKit, declare: Declare) -> None:
    def work() -> list[object]:
        here = context()
        here.progress({"done": 1})
        here.progress({"done": 2})
        return [here.attempt, here.fence, here.queue]

    declare(work, queue="q").enqueue()
    (done,) = kit.drain().completed
    assert (done.progress, done.result) == ({"done": 2}, [1, 1, "q"])


def test_mistakes_are_found_where_they_are_made(kit: JobKit, declare: Declare) -> None:
    work = declare(lambda n: n)
    with pytest.raises(TypeError):
        work.enqueue(m=1)
    with pytest.raises(TypeError):
        work.enqueue(n=object())
    with pytest.raises(AtlasError) as caught:
        work.enqueue(n=1, delay="soon")
    assert caught.value.code == "job.invalid"
    work.enqueue(n=1, unique={"key": "k", "on_conflict": "reject"})
    with pytest.raises(AtlasError) as caught:
        work.enqueue(n=1, unique={"key": "k", "on_conflict": "reject"})
    assert caught.value.code == "job.rejected"
    assert kit.drain().runs == 1


def test_an_unknown_kind_is_named(kit: JobKit, declare: Declare) -> None:
    declare(lambda: None, "known")
    kit.client.enqueue("unknown", max_attempts=1)
    (dead,) = kit.drain().dead
    assert "unknown" in dead.errors[0]["message"]
    assert "known" in dead.errors[0]["message"]


def test_many_at_once(kit: JobKit, declare: Declare) -> None:
    made = declare(lambda n: n).enqueue_many([{"n": n} for n in range(50)])
    assert len(made) == 50
    assert [done.result for done in kit.drain().completed] == list(range(50))


def test_an_unexpected_error_can_be_seen_as_it_is(kit: JobKit, declare: Declare) -> None:
    def work() -> None:
        raise ZeroDivisionError

    declare(work).enqueue()
    with pytest.raises(ZeroDivisionError):
        kit.drain(reraise=True)
    (waits,) = kit.jobs(JobState.SCHEDULED)
    assert waits.errors[0]["error"] == "ZeroDivisionError"

    def meant() -> None:
        raise Bury("as it should be")

    declare(meant, "meant").enqueue()
    assert len(kit.drain(reraise=True, wind=False).dead) == 1


def test_pytests_own_failures_are_no_jobs(kit: JobKit, declare: Declare) -> None:
    declare(lambda: pytest.fail("seen")).enqueue()
    with pytest.raises(pytest.fail.Exception, match="seen"):
        kit.drain()


def test_a_job_that_enqueues_itself_for_ever_is_noticed(kit: JobKit, declare: Declare) -> None:
    def again() -> None:
        work.enqueue()

    work: Handler[..., Any] = declare(again)
    work.enqueue()
    with pytest.raises(RuntimeError, match="work is still to be run"):
        kit.drain(limit=20)


def test_limits_and_breakers_are_waited_for() -> None:
    failed: list[int] = []

    def work(n: int) -> None:
        if n < 4:
            failed.append(n)
            raise TargetFailed("down")

    handlers = {"work": Handler(work, "work", {"target": "api", "max_attempts": 1})}
    rules = QueueRules(
        queues={"slow": QueueLimits(rate=0.1)}, circuit=CircuitPolicy(minimum_calls=4, successes=1)
    )
    with JobKit(handlers=handlers, rules=rules) as kit:
        for n in range(6):
            handlers["work"].enqueue(n=n)
        drained = kit.drain()
        assert (len(drained.dead), len(drained.completed)) == (4, 2)
        assert drained.waited >= timedelta(seconds=13)
        for n in range(5, 8):
            handlers["work"].enqueue(n=n, queue="slow", target="other")
        assert kit.drain().waited == timedelta(seconds=20)


def test_what_cannot_run_is_left(kit: JobKit, declare: Declare) -> None:
    declare(lambda: None).enqueue()
    kit.at_once(kit.store.pause("default", paused=True))
    assert kit.drain().runs == 0
    kit.at_once(kit.store.pause("default", paused=False))
    kit.at_once(kit.store.set_breaker("api", "forced_open"))
    declare(lambda: None, "other").enqueue(target="api")
    assert kit.drain().runs == 1
    assert [job.kind for job in kit.jobs("available")] == ["other"]


def test_threads_of_the_application_may_enqueue(kit: JobKit, declare: Declare) -> None:
    work = declare(lambda: None)
    threads = [threading.Thread(target=work.enqueue) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kit.drain().runs == 8
