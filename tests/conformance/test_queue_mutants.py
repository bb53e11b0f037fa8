"""The suite of queue stores catches a store that breaks a promise, one promise at a time."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import HypothesisException
from hypothesis.stateful import run_state_machine_as_test

from atlasd.clock import HandClock
from atlasd.contracts.context import PluginContext
from atlasd.contracts.queue import (
    BreakerRow,
    ClaimAsk,
    Claimed,
    Enqueued,
    Extended,
    Filter,
    Finish,
    Held,
    JobState,
    Maintained,
    NewJob,
    QueueStoreType,
    Release,
    Row,
    Rules,
    Settlement,
    SlotClaim,
    Transition,
)
from atlasd.contracts.settings import NoSettings
from atlasd.testing.context import PlainContext
from atlasd.testing.memory_queue import MemoryQueue
from atlasd.testing.memory_rows import Kept, Lease
from atlasd.testing.queue import QueueStoreSuite
from atlasd.testing.queue.bench import Bench
from atlasd.testing.queue.machine import QueueMachine


class LosesPriority(MemoryQueue):
    def _put(self, row: Row) -> None:
        super()._put(row._replace(rank_at=row.run_at))


class KeepsNoOptions(MemoryQueue):
    def _put(self, row: Row) -> None:
        super()._put(row._replace(options=""))


class GivesIdsAgain(MemoryQueue):
    async def purge(self, which: Filter, *, limit: int) -> int:
        done = await super().purge(which, limit=limit)
        self.kept.last_id = max(self.kept.rows, default=0)
        return done


class TakesPartOfABatch(MemoryQueue):
    async def enqueue(
        self, jobs: Sequence[NewJob], *, idempotency_key: str = ""
    ) -> Sequence[Enqueued]:
        made: list[Enqueued] = []
        for job in jobs:
            made += await super().enqueue([job], idempotency_key=idempotency_key)
        return made


class ForgetsAnswers(MemoryQueue):
    async def enqueue(
        self, jobs: Sequence[NewJob], *, idempotency_key: str = ""
    ) -> Sequence[Enqueued]:
        return await super().enqueue(jobs)


class FreesTheKeyOfARetry(MemoryQueue):
    def _put(self, row: Row) -> None:
        retries = row.state is JobState.SCHEDULED and row.attempt > 0
        super()._put(row._replace(unique_key="") if retries else row)


class KeepsTheKeyOfTheDead(MemoryQueue):
    def _put(self, row: Row) -> None:
        super()._put(row)
        if row.state is JobState.DEAD:
            self.kept.rows[row.id] = row


class EndsWindowsWithTheJob(MemoryQueue):
    def _put(self, row: Row) -> None:
        super()._put(row._replace(unique_key="") if row.state is JobState.COMPLETED else row)


class ReplacesWhatRuns(MemoryQueue):
    def _collide(self, row: Row, job: NewJob, run_at: int, state: JobState) -> Enqueued:
        if job.on_conflict == "replace_args":
            self._put(row._replace(args=job.args, options=job.options))
            return Enqueued(row.id, row.state, "replaced")
        return super()._collide(row, job, run_at, state)


class MovesByTheNewPriority(MemoryQueue):
    def _collide(self, row: Row, job: NewJob, run_at: int, state: JobState) -> Enqueued:
        made = super()._collide(row, job, run_at, state)
        if made.outcome == "moved":
            rank = self._rules.rank(job.queue, job.priority, run_at)
            self._put(self.kept.rows[row.id]._replace(rank_at=rank))
        return made


class GivesMoreThanAsked(MemoryQueue):
    def _claim(self, ask: ClaimAsk, now: int) -> tuple[list[Claimed], int]:
        return super()._claim(replace(ask, limit=ask.limit + 1), now)


class IgnoresPauses(MemoryQueue):
    def _claim(self, ask: ClaimAsk, now: int) -> tuple[list[Claimed], int]:
        paused, self.kept.paused = self.kept.paused, frozenset()
        try:
            return super()._claim(ask, now)
        finally:
            self.kept.paused = paused


class CountsNoneRunning(MemoryQueue):
    def _running(self) -> Mapping[str, int]:
        return {}


class ForgetsRates(MemoryQueue):
    def _claim(self, ask: ClaimAsk, now: int) -> tuple[list[Claimed], int]:
        self.kept.turns.rates.clear()
        return super()._claim(ask, now)


class ForgetsTurns(MemoryQueue):
    def _claim(self, ask: ClaimAsk, now: int) -> tuple[list[Claimed], int]:
        self.kept.turns.virtual = 0.0
        for lane in self.kept.lanes.values():
            lane.tag = 0.0
        return super()._claim(ask, now)


class GivesTheExpired(MemoryQueue):
    def _claim(self, ask: ClaimAsk, now: int) -> tuple[list[Claimed], int]:
        return super()._claim(ask, 1)


class TakesAnyToken(MemoryQueue):
    def _settle(self, one: Settlement) -> bool:
        row = self.kept.rows.get(one.id)
        return super()._settle(one._replace(token=row.token) if row is not None else one)


class BeginsTokensAnew(MemoryQueue):
    async def requeue(self, which: Filter, *, args: str = "", limit: int) -> Sequence[int]:
        done = await super().requeue(which, args=args, limit=limit)
        for job in done:
            self._put(self.kept.rows[job]._replace(token=0))
        return done


class CountsWhatWasGivenBack(MemoryQueue):
    def _leave(self, row: Row, to: Transition) -> None:
        super()._leave(row, Transition(state=to.state, run_at=to.run_at, reason=to.reason))


class ForgetsErrors(MemoryQueue):
    def _put(self, row: Row) -> None:
        super()._put(row._replace(errors=""))


class EnqueuesWhatComesAfterALostLease(MemoryQueue):
    def _settle(self, one: Settlement) -> bool:
        held = super()._settle(one)
        if not held and isinstance(one, Finish):
            for job in one.then:
                self._add(job)
        return held


class KeepsLeasesForEver(MemoryQueue):
    async def maintain(self, limit: int = 1000) -> Maintained:
        for job, lease in self.kept.leases.items():
            self.kept.leases[job] = Lease(1e18, lease.epoch)
        return await super().maintain(limit)


class EndsLeasesTooSoon(MemoryQueue):
    def _mono(self) -> float:
        return super()._mono() + 5 * (self._now() % 2)


class TakesFromOthers(MemoryQueue):
    async def lose(self, worker: str, ids: Sequence[int], *, why: str) -> int:
        return sum(
            [
                await super(TakesFromOthers, self).lose(name, ids, why=why)
                for name in {row.worker for row in self.kept.rows.values()} | {worker}
            ]
        )


class TellsNobodyOfCancels(MemoryQueue):
    async def extend(self, worker: str, held: Sequence[Held], lease: int) -> Extended:
        return Extended(lost=(await super().extend(worker, held, lease)).lost)


class RetriesTheCancelled(MemoryQueue):
    def _leave(self, row: Row, to: Transition) -> None:
        if to.state is JobState.CANCELLED and to.reason == "user":
            to = Transition(state=JobState.AVAILABLE)
        super()._leave(row, to)


class WakesNobody(MemoryQueue):
    async def enqueue(
        self, jobs: Sequence[NewJob], *, idempotency_key: str = ""
    ) -> Sequence[Enqueued]:
        waiting, self._waiting = self._waiting, []
        made = await super().enqueue(jobs, idempotency_key=idempotency_key)
        self._waiting = waiting
        return made


class NudgesEverybody(MemoryQueue):
    def nudge(self, worker: str) -> None:
        for waiting in self._waiting:
            super().nudge(waiting.ask.worker)


class PromotesTooMuch(MemoryQueue):
    async def maintain(self, limit: int = 1000) -> Maintained:
        return await super().maintain(limit * 10)


class ForgetsNothing(MemoryQueue):
    def _surplus(self) -> list[Row]:
        return []


class KeepsOnlyByAge(MemoryQueue):
    def _surplus(self) -> list[Row]:
        return [row for row in super()._surplus() if row.finalized_at < self._now() - 60_000]


class SaysNothingIsDue(MemoryQueue):
    def _next_due(self) -> int:
        return 0


class HearsOldResults(MemoryQueue):
    def _hear(self, target: str, result: tuple[bool, int, int]) -> None:
        breaker = self.kept.breakers.get(target, BreakerRow(target))
        super()._hear(target, (*result[:2], breaker.epoch))


class NeverHalfOpens(MemoryQueue):
    def _claim(self, ask: ClaimAsk, now: int) -> tuple[list[Claimed], int]:
        breakers = {
            target: row._replace(open_until=1 << 60) for target, row in self.kept.breakers.items()
        }
        self.kept.breakers.update(breakers)
        return super()._claim(ask, now)


class ForcesNothing(MemoryQueue):
    async def set_breaker(self, target: str, state: str) -> BreakerRow:
        row = await super().set_breaker(target, state)
        self.kept.breakers[target] = row._replace(state="closed")
        return row


class CountsTheUnable(MemoryQueue):
    def _those(self, which: Filter, able: Any = frozenset(JobState)) -> list[Row]:
        rows = super()._those(which)
        return [row for row in rows[:2] if row.state in able] if which == Filter() else rows


class IgnoresTags(MemoryQueue):
    async def select(self, which: Filter, limit: int) -> Sequence[Row]:
        return await super().select(replace(which, tag=""), limit)


class PurgesWhatRuns(MemoryQueue):
    async def purge(self, which: Filter, *, limit: int) -> int:
        rows = await self.select(which, limit)
        for row in rows:
            del self.kept.rows[row.id]
        return len(rows)


class RequeuesWithoutAttempts(MemoryQueue):
    async def requeue(self, which: Filter, *, args: str = "", limit: int) -> Sequence[int]:
        before = {row.id: row.attempt for row in self.kept.rows.values()}
        done = await super().requeue(which, args=args, limit=limit)
        for job in done:
            self._put(self.kept.rows[job]._replace(attempt=before[job]))
        return done


class FiresAgain(MemoryQueue):
    async def fire(self, claims: Sequence[SlotClaim]) -> Sequence[int]:
        self.kept.ledger.rows.clear()
        return await super().fire(claims)


class ForgetsSlotsWhenClosed(MemoryQueue):
    def close(self) -> None:
        super().close()
        self.kept.ledger.rows.clear()


class LosesWhatRuns(MemoryQueue):
    def close(self) -> None:
        super().close()
        for row in list(self.kept.rows.values()):
            if row.state is JobState.RUNNING:
                self._settle(Release(row.id, row.token))


class LeavesWaiters(MemoryQueue):
    def close(self) -> None:
        pass


class CountsWrongly(MemoryQueue):
    async def count(self) -> Any:
        return [one for one in await super().count() if one.state is not JobState.CANCELLED]


CAUGHT: dict[type[MemoryQueue], str] = {
    LosesPriority: "the_urgent_go_first",
    KeepsNoOptions: "a_job_is_kept_as_it_was_enqueued",
    GivesIdsAgain: "an_id_is_never_given_twice",
    TakesPartOfABatch: "a_full_queue_takes_all_of_a_batch_or_none",
    ForgetsAnswers: "a_repeated_request_has_the_answer_of_the_first_time",
    FreesTheKeyOfARetry: "a_key_is_held_in_every_state_before_the_last",
    KeepsTheKeyOfTheDead: "a_key_is_free_after_every_way_out",
    EndsWindowsWithTheJob: "a_window_is_longer_than_its_job",
    ReplacesWhatRuns: "replace_args_has_the_waiting_job_run_with_the_new_ones",
    MovesByTheNewPriority: "move_run_at_moves_the_waiting_job",
    GivesMoreThanAsked: "only_what_was_asked_for_is_given",
    IgnoresPauses: "a_paused_queue_gives_nothing",
    CountsNoneRunning: "only_so_many_run_at_once",
    ForgetsRates: "claims_keep_to_a_rate",
    ForgetsTurns: "shares_go_by_weight",
    GivesTheExpired: "what_has_expired_is_not_given_to_anybody",
    TakesAnyToken: "a_lease_that_ran_out_is_taken_back",
    BeginsTokensAnew: "a_token_only_grows",
    CountsWhatWasGivenBack: "a_job_that_is_given_back_has_lost_no_attempt",
    ForgetsErrors: "the_last_failures_are_remembered",
    EnqueuesWhatComesAfterALostLease: "nothing_comes_after_a_lost_lease",
    KeepsLeasesForEver: "a_lease_that_ran_out_is_taken_back",
    EndsLeasesTooSoon: "a_lease_that_ran_out_is_taken_back",
    TakesFromOthers: "a_worker_that_is_gone_holds_nothing",
    TellsNobodyOfCancels: "a_running_job_is_asked_to_end",
    RetriesTheCancelled: "a_job_that_is_to_be_cancelled_ends_so",
    WakesNobody: "a_new_job_wakes_who_waits",
    NudgesEverybody: "a_nudge_answers_a_worker",
    PromotesTooMuch: "maintenance_goes_in_steps",
    ForgetsNothing: "what_has_ended_is_forgotten_after_its_time",
    KeepsOnlyByAge: "only_so_many_are_kept",
    SaysNothingIsDue: "it_says_when_something_is_due",
    HearsOldResults: "what_began_before_says_nothing_of_now",
    NeverHalfOpens: "after_a_while_one_probe_at_a_time_is_let_through",
    ForcesNothing: "forced_open_nothing_goes_through",
    CountsTheUnable: "what_has_not_ended_cannot_be_requeued",
    IgnoresTags: "a_filter_means_what_fits_it",
    PurgesWhatRuns: "whatever_does_not_run_can_be_deleted",
    RequeuesWithoutAttempts: "a_requeued_job_has_all_its_attempts",
    FiresAgain: "a_slot_fires_once",
    ForgetsSlotsWhenClosed: "keys_and_slots_and_answers_are_remembered",
    LosesWhatRuns: "who_held_a_job_still_does",
    LeavesWaiters: "who_waits_when_it_is_closed_is_answered",
    CountsWrongly: "a_verdict_decides",
}
"""Each way to break a promise, and the test that has to notice."""

BY_CHANCE = (TakesAnyToken, LosesWhatRuns)
"""What random operations have to come upon, too."""


def kind_of(mutant: type[MemoryQueue]) -> QueueStoreType:
    kept = Kept()

    @asynccontextmanager
    async def open_mutant(
        settings: NoSettings, context: PluginContext, rules: Rules
    ) -> AsyncIterator[MemoryQueue]:
        del settings
        queue = mutant(context.clock, rules, kept)
        try:
            yield queue
        finally:
            queue.close()

    return QueueStoreType(name="mutant", summary="broken", open=open_mutant)


def bench_of(mutant: type[MemoryQueue], folder: Path) -> Bench:
    clock = HandClock()

    async def advance(milliseconds: int) -> None:
        clock.wind(milliseconds / 1000)

    return Bench(kind_of(mutant), {}, PlainContext(folder, clock=clock), advance)


def cases_of(test: Any) -> list[dict[str, Any]]:
    """The arguments of each case of a test, as its marks have them."""
    cases: list[dict[str, Any]] = [{}]
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            names, values = mark.args
            names = [names] if isinstance(names, str) else list(names)
            rows = [(value,) if len(names) == 1 else value for value in values]
            cases = [
                {**case, **dict(zip(names, row, strict=True))} for case in cases for row in rows
            ]
    return cases


async def run(test: str, mutant: type[MemoryQueue], folder: Path) -> None:
    """One test of the suite, all of its cases, as pytest would call it."""
    method = getattr(QueueStoreSuite(), f"test_{test}")
    assert "bench" in inspect.signature(method).parameters
    for case in cases_of(method):
        bench = bench_of(mutant, folder)
        try:
            async with asyncio.timeout(5), bench:
                await method(bench=bench, **case)
                await bench.assert_sound()
        finally:
            bench.context.close()


@pytest.mark.parametrize("mutant", CAUGHT, ids=lambda mutant: mutant.__name__)
async def test_a_broken_promise_is_noticed(mutant: type[MemoryQueue], tmp_path: Path) -> None:
    with pytest.raises(
        (AssertionError, KeyError, ValueError, TimeoutError, pytest.fail.Exception)
    ) as caught:
        await run(CAUGHT[mutant], mutant, tmp_path)
    assert not isinstance(caught.value, pytest.skip.Exception)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@pytest.mark.parametrize("test", sorted(set(CAUGHT.values())))
async def test_who_keeps_it_passes_the_same_way(test: str, tmp_path: Path) -> None:
    await run(test, MemoryQueue, tmp_path)


@pytest.mark.parametrize("mutant", BY_CHANCE, ids=lambda mutant: mutant.__name__)
def test_random_operations_come_upon_it(mutant: type[MemoryQueue], tmp_path: Path) -> None:
    class Machine(QueueMachine):
        def bench(self) -> Bench:
            return bench_of(mutant, tmp_path)

    bounded = settings(
        max_examples=60,
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises((AssertionError, KeyError, HypothesisException)):
        run_state_machine_as_test(Machine, settings=bounded)
