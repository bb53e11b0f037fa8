"""Whose turn it is."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from atlasd.contracts.queue import BreakerRow, Lane, Pick, QueueLimits, Turns
from atlasd.jobs.rules import QueueRules

NOW = 1_800_000_000_000


def lane(number: int, *, key: str = "", available: int = 1000, **rest: object) -> Lane:
    known: dict[str, object] = {"queue": "email", "target": "", "head": NOW + number, **rest}
    return Lane(id=number, fair_key=key, available=available, **known)  # type: ignore[arg-type]


def ask(
    lanes: list[Lane],
    limit: int,
    limits: QueueLimits | None = None,
    *,
    turns: Turns | None = None,
    running: dict[str, int] | None = None,
    breakers: dict[str, BreakerRow] | None = None,
    paused: frozenset[str] = frozenset(),
    now: int = NOW,
) -> tuple[dict[int, int], int]:
    picks, wake = QueueRules(otherwise=limits or QueueLimits()).pick(
        lanes,
        limit,
        now,
        paused=paused,
        breakers=breakers or {},
        running=running or {},
        turns=turns or Turns(),
    )
    found: Counter[int] = Counter()
    for pick in picks:
        assert isinstance(pick, Pick)
        found[pick.lane] += pick.jobs
    return dict(found), wake


def test_one_lane_gives_all_that_is_asked() -> None:
    assert ask([lane(1)], 64) == ({1: 64}, 0)
    assert ask([lane(1, available=3)], 64) == ({1: 3}, 0)


def test_the_job_that_ranks_first_decides_among_lanes_of_one_key() -> None:
    assert ask([lane(2), lane(1)], 1) == ({1: 1}, 0)


def test_keys_share_evenly_however_much_they_have() -> None:
    turns = Turns()
    lanes = [lane(1, key="big", available=10**6), lane(2, key="small", available=500)]
    total: Counter[int] = Counter()
    for _ in range(50):
        found, _ = ask(lanes, 10, turns=turns)
        total.update(found)
        for one in lanes:
            one.available -= found.get(one.id, 0)
    assert abs(total[1] - total[2]) <= 10


def test_a_weight_is_a_share() -> None:
    turns = Turns()
    limits = QueueLimits(weights={"gold": 3.0})
    lanes = [lane(1, key="gold", available=10**6), lane(2, key="tin", available=10**6)]
    total: Counter[int] = Counter()
    for _ in range(100):
        total.update(ask(lanes, 8, limits, turns=turns)[0])
    assert 2.7 <= total[1] / total[2] <= 3.3


def test_a_key_gets_no_credit_for_having_been_idle() -> None:
    turns = Turns()
    busy, idle = lane(1, key="busy", available=10**6), lane(2, key="idle", available=10**6)
    for _ in range(100):
        ask([busy], 10, turns=turns)
    total: Counter[int] = Counter()
    for _ in range(20):
        total.update(ask([busy, idle], 10, turns=turns)[0])
    assert 0.8 <= total[1] / total[2] <= 1.25


def test_a_paused_queue_gives_nothing() -> None:
    assert ask([lane(1)], 5, paused=frozenset({"email"})) == ({}, 0)


def test_a_rate_gives_what_is_due_and_says_when_more_is() -> None:
    turns, limits = Turns(), QueueLimits(rate=10.0, burst=3)
    assert ask([lane(1)], 50, limits, turns=turns)[0] == {1: 3}
    assert ask([lane(1)], 50, limits, turns=turns) == ({}, NOW + 100)
    assert ask([lane(1)], 50, limits, turns=turns, now=NOW + 100)[0] == {1: 1}


def test_an_open_breaker_shuts_its_lane_alone_and_says_until_when() -> None:
    lanes = [lane(1, target="bank"), lane(2)]
    row = BreakerRow("bank", state="open", open_until=NOW + 9_000)
    assert ask(lanes, 5, breakers={"bank": row}) == ({2: 5}, NOW + 9_000)
    forced = BreakerRow("bank", state="forced_open")
    assert ask(lanes[:1], 5, breakers={"bank": forced}) == ({}, 0)


def test_a_half_open_breaker_lets_one_probe_through_in_all() -> None:
    lanes = [lane(1, target="bank"), lane(2, target="bank", queue="other")]
    breakers = {"bank": BreakerRow("bank", state="half_open")}
    found, _ = ask(lanes, 50, breakers=breakers)
    assert sum(found.values()) == 1
    assert ask(lanes, 50, breakers=breakers, running={"target:bank": 1}) == ({}, 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["email", "pdf"]),
            st.sampled_from(["", "a", "b", "c"]),
            st.sampled_from(["", "bank"]),
            st.integers(0, 40),
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda one: one[:3],
    ),
    st.integers(1, 60),
    st.integers(0, 30),
    st.integers(0, 10),
    st.dictionaries(
        st.sampled_from(["email", "pdf", "email/a", "pdf/b"]), st.integers(0, 40), max_size=4
    ),
)
def test_no_limit_is_ever_passed_and_no_work_withheld(
    known: list[tuple[str, str, str, int]],
    limit: int,
    concurrency: int,
    by_key: int,
    running: dict[str, int],
) -> None:
    limits = QueueLimits(concurrency=concurrency, key_concurrency=by_key)
    lanes = [
        lane(n, key=key, queue=queue, target=target, available=available)
        for n, (queue, key, target, available) in enumerate(known, 1)
    ]
    by_id = {one.id: one for one in lanes}
    found, _ = ask(lanes, limit, limits, running=running)
    after = Counter(running)
    for number, jobs in found.items():
        one = by_id[number]
        assert 0 < jobs <= one.available
        after[one.queue] += jobs
        if one.fair_key:
            after[f"{one.queue}/{one.fair_key}"] += jobs
    assert sum(found.values()) <= limit

    def room(one: Lane) -> int:
        free = [one.available - found.get(one.id, 0)]
        if concurrency:
            free.append(concurrency - after[one.queue])
        if by_key and one.fair_key:
            free.append(by_key - after[f"{one.queue}/{one.fair_key}"])
        return min(free)

    for one in lanes:
        if found.get(one.id):
            assert not concurrency or after[one.queue] <= concurrency
            assert not (by_key and one.fair_key) or after[f"{one.queue}/{one.fair_key}"] <= by_key
    if sum(found.values()) < limit:
        assert all(room(one) <= 0 for one in lanes)
