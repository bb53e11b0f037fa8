"""What a store keeps of time: what falls due, expires, is forgotten, and when to ask again."""

from atlasd.contracts.queue import Held, JobState
from atlasd.jobs.rules import Retention
from atlasd.testing.queue.bench import LEASE, Bench, a_job, ids

DAY = 86_400_000


class Timing:
    """Maintenance."""

    async def test_a_delayed_job_falls_due(self, bench: Bench) -> None:
        """To the millisecond, and the store says when."""
        (number,) = await bench.put(delay=5_000)
        due = (await bench.row(number)).run_at
        assert (await bench.store.maintain()).next_due == due
        assert (await bench.after(4_999)).promoted == 0
        assert await bench.claim() == []
        assert (await bench.after(1)).promoted == 1
        assert (await bench.one()).id == number

    async def test_what_falls_due_goes_by_when_it_was_due(self, bench: Bench) -> None:
        """Not by when it was enqueued, nor by when it was promoted."""
        late, soon = await bench.put(a_job(delay=2_000), a_job(delay=1_000))
        await bench.advance(1_500)
        (now,) = await bench.put()
        await bench.after(1_000)
        assert ids(await bench.claim()) == [soon, now, late]

    async def test_maintenance_goes_in_steps(self, bench: Bench) -> None:
        """No more at once than it is told to."""
        await bench.put(*[a_job(delay=10)] * 25)
        await bench.advance(10)
        assert [(await bench.store.maintain(10)).promoted for _ in range(4)] == [10, 10, 5, 0]
        assert len(await bench.claim(100)) == 25
        await bench.advance(LEASE)
        assert [(await bench.store.maintain(10)).lost for _ in range(4)] == [10, 10, 5, 0]

    async def test_it_says_when_something_is_due(self, bench: Bench) -> None:
        """The first of what is scheduled, of leases, and of what expires; nothing when idle."""
        assert (await bench.store.maintain()).next_due == 0
        now = await bench.store.now()
        await bench.put(a_job(delay=90_000), a_job(delay=95_000, expires_in=80_000))
        assert (await bench.store.maintain()).next_due == now + 80_000
        await bench.put()
        await bench.one(lease=LEASE)
        due = (await bench.store.maintain()).next_due
        assert now + LEASE <= due <= now + LEASE + 1
        await bench.advance(LEASE + 1)
        assert (await bench.store.maintain()).lost == 1

    # --- expiry

    async def test_what_nobody_began_in_time_is_cancelled(self, bench: Bench) -> None:
        """Available, scheduled or waiting for another try; what runs goes on."""
        waiting, scheduled, running, failed, other = await bench.put(
            a_job(expires_in=60_000, priority=9),
            a_job(expires_in=60_000, delay=90_000),
            a_job(expires_in=60_000, priority=0),
            a_job(expires_in=60_000, priority=0),
            a_job(),
        )
        jobs = await bench.claim(2)
        assert ids(jobs) == [running, failed]
        await bench.fail(jobs[1], retry_after=70_000)
        await bench.store.extend("w", [Held(id=jobs[0].id, token=jobs[0].token)], 600_000)
        assert (await bench.after(59_999)).expired == 0
        assert (await bench.after(1)).expired == 3
        for number in (waiting, scheduled, failed):
            assert await bench.state(number) == (JobState.CANCELLED, "expired")
        assert await bench.state(running) == (JobState.RUNNING, "")
        assert ids(await bench.claim()) == [other]

    async def test_what_has_expired_is_not_given_to_anybody(self, bench: Bench) -> None:
        """Though maintenance has not come round yet; what stands behind it is."""
        await bench.put(*[a_job(expires_in=1_000)] * 3)
        (other,) = await bench.put()
        await bench.advance(1_000)
        assert ids(await bench.claim()) == [other]
        assert (await bench.store.maintain()).expired == 3

    async def test_expiry_goes_in_steps(self, bench: Bench) -> None:
        """No more at once than it is told to."""
        await bench.put(*[a_job(expires_in=10)] * 15)
        await bench.advance(10)
        assert [(await bench.store.maintain(10)).expired for _ in range(3)] == [10, 5, 0]

    # --- retention

    async def test_what_has_ended_is_forgotten_after_its_time(self, bench: Bench) -> None:
        """Each state has its own; what waits is never forgotten."""
        bench.rule(retention=Retention(completed=DAY, cancelled=2 * DAY, dead=3 * DAY))
        numbers = await bench.put(*[a_job()] * 3, a_job(delay=90 * DAY))
        done, discarded, dead = await bench.claim()
        await bench.finish(done)
        await bench.fail(discarded, "discard")
        await bench.fail(dead, "bury")
        assert (await bench.after(DAY - 1)).pruned == 0
        for left, wait in ((3, 1), (2, DAY), (1, DAY)):
            assert (await bench.after(wait)).pruned == 1
            assert len(await bench.rows()) == left
        assert [row.id for row in await bench.rows()] == numbers[3:]

    async def test_forgetting_goes_in_steps(self, bench: Bench) -> None:
        """No more at once than it is told to, all states together."""
        await bench.put(*[a_job()] * 24)
        for number, job in enumerate(await bench.claim(24)):
            await (bench.finish(job) if number % 2 else bench.fail(job, "discard"))
        await bench.advance(8 * DAY)
        pruned = [(await bench.store.maintain(10)).pruned for _ in range(5)]
        assert max(pruned) <= 12
        assert sum(pruned) == 24
        assert await bench.rows() == []

    async def test_only_so_many_are_kept(self, bench: Bench) -> None:
        """Of each queue and state, the last ones."""
        bench.rule(retention=Retention(most=5))
        await bench.put(*[a_job(queue=queue) for _ in range(8) for queue in ("a", "b")])
        jobs = await bench.claim(20, queues=("a",))
        last = ids(jobs)[3:]
        for job in jobs:
            await bench.finish(job)
            await bench.advance(1)
        for job in (await bench.claim(20, queues=("b",)))[:5]:
            await bench.finish(job)
        assert (await bench.store.maintain()).pruned == 3
        kept = await bench.rows(queue="a")
        assert [row.id for row in kept] == last
        assert len(await bench.rows(queue="b", states=(JobState.COMPLETED,))) == 5
