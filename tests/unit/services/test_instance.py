"""The life of an instance: single moves, and random lives that may never break the rules."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from atlasd.clock import HandClock
from atlasd.services.escalation import stop_steps
from atlasd.services.instance import Machine
from atlasd.services.restart import Exit
from atlasd.services.spec import Backoff, Probe, Reload, Restart, ServiceSpec, Stop
from atlasd.states import LIVE, MOVES, Health, Lifecycle, Reason, Traffic, Wanted

SPEC = ServiceSpec(name="web", command=("web",))
NO_JITTER = Restart(backoff=Backoff(jitter=0.0))


class FakeHands:
    """Records what the machine asks for, and plays a process that does as the test says."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.moves: list[tuple[Lifecycle, Lifecycle]] = []
        self.timers: dict[str, float] = {}
        self.signals: list[tuple[str, bool]] = []
        self.launches = 0
        self.sweeps = 0
        self.reloads = 0
        self.waiting_for: str | None = None
        self.budget = 1_000_000
        self.machine: Machine | None = None

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def moved(self, old: Lifecycle, new: Lifecycle) -> None:
        self.moves.append((old, new))

    def launch(self) -> None:
        self.launches += 1

    def abandon_launch(self) -> None:
        pass

    def prepare_stop(self) -> None:
        assert self.machine is not None
        self.machine.stop_prepared(self.now)

    def signal(self, name: str, everyone: bool) -> None:
        self.signals.append((name, everyone))

    def sweep(self) -> None:
        self.sweeps += 1

    def reload(self) -> None:
        self.reloads += 1

    def arm(self, timer: str, seconds: float) -> None:
        self.timers[timer] = self.now + seconds

    def disarm(self, timer: str) -> None:
        self.timers.pop(timer, None)

    def blocked(self) -> str | None:
        return self.waiting_for

    def take_budget(self) -> float:
        if self.budget > 0:
            self.budget -= 1
            return 0.0
        return 1.0

    def wind(self, seconds: float) -> None:
        """Let time pass, firing what is due in order."""
        assert self.machine is not None
        end = self.now + seconds
        while self.timers:
            name, when = min(self.timers.items(), key=lambda t: t[1])
            if when > end:
                break
            self.clock.wind(max(0.0, when - self.now))
            del self.timers[name]
            self.machine.timer_fired(name, self.now)
        self.clock.wind(max(0.0, end - self.now))


def make(spec: ServiceSpec = SPEC) -> tuple[Machine, FakeHands]:
    hands = FakeHands()
    machine = Machine(replace(spec, restart=replace(spec.restart)), hands)
    hands.machine = machine
    return machine, hands


def running(spec: ServiceSpec = SPEC) -> tuple[Machine, FakeHands]:
    machine, hands = make(spec)
    machine.want(Wanted.UP, hands.now)
    machine.spawned(hands.now)
    if spec.ready is not None:
        machine.ready(hands.now)
    hands.wind(1.5)
    assert machine.state is Lifecycle.RUNNING
    return machine, hands


def die(machine: Machine, hands: FakeHands, exit_: Exit) -> None:
    machine.exited(hands.now, exit_)
    machine.gone(hands.now)


def test_runs_after_the_least_uptime_where_no_readiness_is_declared() -> None:
    machine, hands = make()
    machine.want(Wanted.UP, hands.now)
    machine.spawned(hands.now)
    hands.wind(0.9)
    assert machine.state is Lifecycle.STARTING
    assert machine.meets("started")
    assert not machine.meets("ready")
    hands.wind(0.2)
    assert machine.state is Lifecycle.RUNNING
    assert machine.traffic is Traffic.IN
    assert machine.meets("ready")


def test_runs_when_ready_where_a_readiness_is_declared() -> None:
    spec = replace(SPEC, ready=Probe(kind="notify"))
    machine, hands = make(spec)
    machine.want(Wanted.UP, hands.now)
    machine.spawned(hands.now)
    hands.wind(30)
    assert machine.state is Lifecycle.STARTING
    machine.ready(hands.now)
    assert machine.state is Lifecycle.RUNNING


def test_a_least_uptime_that_is_asked_for_holds_a_ready_program_back() -> None:
    spec = replace(SPEC, ready=Probe(kind="notify"), min_uptime=2.0)
    machine, hands = make(spec)
    machine.want(Wanted.UP, hands.now)
    machine.spawned(hands.now)
    machine.ready(hands.now)
    assert machine.state is Lifecycle.STARTING
    hands.wind(2.1)
    assert machine.state is Lifecycle.RUNNING


def test_the_first_failure_since_a_stable_run_restarts_at_once() -> None:
    machine, hands = running(replace(SPEC, restart=NO_JITTER))
    hands.wind(60)
    die(machine, hands, Exit(signal=9))
    assert machine.state is Lifecycle.STARTING
    assert hands.launches == 2
    assert hands.moves[-2:] == [
        (Lifecycle.RUNNING, Lifecycle.BACKOFF),
        (Lifecycle.BACKOFF, Lifecycle.STARTING),
    ]
    assert machine.restarts == 1
    assert machine.reason is Reason.SIGNAL
    assert machine.detail == "killed by signal KILL"


def test_further_failures_wait_longer_and_longer() -> None:
    machine, hands = running(replace(SPEC, restart=NO_JITTER))
    waits = []
    for _ in range(9):
        die(machine, hands, Exit(code=1))
        before = hands.now
        if machine.state is Lifecycle.BACKOFF:
            waits.append(round(hands.timers["backoff"] - before, 6))
            hands.wind(waits[-1])
        assert machine.state is Lifecycle.STARTING
        machine.spawned(hands.now)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert machine.in_crash_loop(hands.now)


def test_a_stable_run_clears_the_count() -> None:
    machine, hands = running(replace(SPEC, restart=NO_JITTER))
    die(machine, hands, Exit(code=1))
    machine.spawned(hands.now)
    hands.wind(1.1 + SPEC.restart.backoff.stable_for)
    assert machine.consecutive_failures(hands.now) == 0
    die(machine, hands, Exit(code=1))
    assert machine.state is Lifecycle.STARTING
    assert machine.failures == 1


def test_a_wrong_configuration_is_not_tried_again() -> None:
    machine, hands = running()
    die(machine, hands, Exit(code=78))
    assert machine.state is Lifecycle.FAILED
    assert "configuration is wrong" in machine.detail
    machine.want(Wanted.UP, hands.now)
    assert machine.state is Lifecycle.FAILED
    machine.want(Wanted.UP, hands.now, manual=True)
    assert machine.state is Lifecycle.STARTING


def test_a_limit_gives_up_and_a_manual_start_forgives() -> None:
    policy = replace(NO_JITTER, on_limit="fail", limit_count=3, limit_window=600.0)
    machine, hands = running(replace(SPEC, restart=policy))
    for _ in range(3):
        die(machine, hands, Exit(code=1))
        hands.wind(5)
        if machine.state is Lifecycle.STARTING:
            machine.spawned(hands.now)
    assert machine.state is Lifecycle.FAILED
    assert machine.reason is Reason.LIMIT
    machine.want(Wanted.UP, hands.now, manual=True)
    assert machine.failures == 0
    assert machine.state is Lifecycle.STARTING


def test_an_expected_end_is_exited_or_starts_again_by_the_policy() -> None:
    machine, hands = running()
    die(machine, hands, Exit(code=0))
    assert machine.state is Lifecycle.EXITED

    machine, hands = running(replace(SPEC, restart=replace(NO_JITTER, policy="always")))
    die(machine, hands, Exit(code=0))
    assert machine.state is Lifecycle.STARTING
    assert machine.failures == 0


def test_an_early_good_end_of_no_oneshot_is_a_failure_that_says_so() -> None:
    machine, hands = make(replace(SPEC, restart=NO_JITTER))
    machine.want(Wanted.UP, hands.now)
    machine.spawned(hands.now)
    die(machine, hands, Exit(code=0))
    assert machine.failures == 1
    assert 'type = "oneshot"' in machine.detail


def test_a_oneshot_completes() -> None:
    machine, hands = make(replace(SPEC, type="oneshot"))
    machine.want(Wanted.UP, hands.now)
    machine.spawned(hands.now)
    assert not machine.meets("completed")
    die(machine, hands, Exit(code=0))
    assert machine.state is Lifecycle.EXITED
    assert machine.meets("completed")
    assert machine.meets("ready")


def test_waiting_stops_at_once_and_spawns_nothing() -> None:
    machine, hands = make()
    hands.waiting_for = "waiting for db to be ready"
    machine.want(Wanted.UP, hands.now)
    assert machine.state is Lifecycle.WAITING
    assert machine.detail == "waiting for db to be ready"
    machine.want(Wanted.DOWN, hands.now)
    assert machine.state is Lifecycle.STOPPED
    assert hands.launches == 0


def test_a_met_dependency_lets_it_start_and_a_failed_one_fails_it_until_it_is_back() -> None:
    machine, hands = make()
    hands.waiting_for = "db"
    machine.want(Wanted.UP, hands.now)
    machine.dependency_failed("it requires db, which has failed")
    assert machine.state is Lifecycle.FAILED
    assert machine.reason is Reason.DEPENDENCY
    hands.waiting_for = None
    machine.dependency_changed(hands.now)
    assert machine.state is Lifecycle.STARTING


def test_stopping_escalates_and_a_second_stop_only_shortens() -> None:
    stop = Stop(signal="INT", timeout=10, escalation=(("TERM", 5.0),))
    machine, hands = running(replace(SPEC, stop=stop))
    machine.want(Wanted.DOWN, hands.now)
    assert machine.traffic is Traffic.DRAINING
    assert hands.signals == [("INT", False)]
    machine.hurry(hands.now, 60.0)
    hands.wind(10.1)
    assert hands.signals[-1] == ("TERM", False)
    machine.hurry(hands.now, 1.0)
    hands.wind(1.1)
    assert hands.signals[-1] == ("KILL", True)
    machine.exited(hands.now, Exit(signal=9))
    assert machine.state is Lifecycle.STOPPING, "what it has left behind is not yet swept"
    machine.gone(hands.now)
    assert machine.state is Lifecycle.STOPPED


def test_hurry_never_lengthens() -> None:
    machine, hands = running(replace(SPEC, stop=Stop(timeout=2)))
    machine.want(Wanted.DOWN, hands.now)
    machine.hurry(hands.now, 1.0)
    machine.hurry(hands.now, 30.0)
    hands.wind(1.1)
    assert hands.signals[-1] == ("KILL", True)


@pytest.mark.parametrize(
    ("mode", "steps"),
    [
        ("mixed", [("TERM", False, 15.0), ("KILL", True, float("inf"))]),
        ("control-group", [("TERM", True, 15.0), ("KILL", True, float("inf"))]),
        ("process", [("TERM", False, 15.0), ("KILL", False, float("inf"))]),
        ("none", [("TERM", False, float("inf"))]),
    ],
)
def test_stop_steps_by_kill_mode(mode: str, steps: list[tuple[str, bool, float]]) -> None:
    assert stop_steps(Stop(kill_mode=mode)) == steps


def test_liveness_failure_stops_then_starts_anew() -> None:
    machine, hands = running(replace(SPEC, restart=NO_JITTER))
    machine.unhealthy(hands.now, Reason.LIVENESS, "liveness probe failed 3 times")
    assert machine.state is Lifecycle.STOPPING
    die(machine, hands, Exit(signal=15))
    assert machine.state is Lifecycle.STARTING
    assert machine.reason is Reason.LIVENESS


def test_a_missed_watchdog_is_answered_with_abrt() -> None:
    machine, hands = running()
    machine.unhealthy(hands.now, Reason.WATCHDOG, "no WATCHDOG=1 for 5 s")
    assert hands.signals == [("ABRT", False)]


def test_not_ready_in_time_is_stopped_and_tried_again() -> None:
    spec = replace(SPEC, ready=Probe(kind="notify"), start_timeout=5.0, restart=NO_JITTER)
    machine, hands = make(spec)
    machine.want(Wanted.UP, hands.now)
    machine.spawned(hands.now)
    hands.wind(5.1)
    assert machine.state is Lifecycle.STOPPING
    assert machine.reason is Reason.START_TIMEOUT
    die(machine, hands, Exit(signal=15))
    assert machine.state is Lifecycle.STARTING


def test_unready_takes_it_out_of_traffic_and_does_not_restart_it() -> None:
    machine, hands = running(replace(SPEC, ready=Probe(kind="http", target="http://x/")))
    machine.unready()
    assert machine.traffic is Traffic.OUT
    assert machine.state is Lifecycle.RUNNING
    assert hands.launches == 1
    machine.ready(hands.now)
    assert machine.traffic is Traffic.IN


def test_reload_never_restarts_even_when_it_fails() -> None:
    machine, hands = running(replace(SPEC, reload=Reload(kind="notify", timeout=3.0)))
    machine.begin_reload(hands.now)
    assert machine.state is Lifecycle.RELOADING
    assert machine.traffic is Traffic.IN
    hands.wind(3.1)
    assert machine.state is Lifecycle.RUNNING
    assert "not done within" in machine.detail
    assert hands.launches == 1


def test_paused_keeps_what_runs_and_does_not_restart_what_dies() -> None:
    machine, hands = running()
    machine.want(Wanted.PAUSED, hands.now)
    assert machine.state is Lifecycle.RUNNING
    die(machine, hands, Exit(code=1))
    assert machine.state is Lifecycle.STOPPED
    assert hands.launches == 1


def test_a_spent_budget_holds_a_restart_back_but_not_an_asked_for_start() -> None:
    machine, hands = running(replace(SPEC, restart=NO_JITTER))
    hands.budget = 0
    die(machine, hands, Exit(code=1))
    assert machine.state is Lifecycle.BACKOFF
    machine.want(Wanted.UP, hands.now, manual=True)
    assert machine.state is Lifecycle.STARTING


def test_start_during_stop_means_start_again_afterwards() -> None:
    machine, hands = running()
    machine.want(Wanted.DOWN, hands.now)
    machine.want(Wanted.UP, hands.now)
    die(machine, hands, Exit(signal=15))
    assert machine.state is Lifecycle.STARTING


def test_a_stop_during_the_sweep_of_a_crash_ends_stopped() -> None:
    machine, hands = running()
    machine.exited(hands.now, Exit(code=1))
    machine.sweep_takes_time()
    assert machine.state is Lifecycle.STOPPING
    machine.want(Wanted.DOWN, hands.now)
    machine.gone(hands.now)
    assert machine.state is Lifecycle.STOPPED
    assert hands.launches == 1


def test_more_time_to_start_may_be_asked_for_but_it_never_shortens() -> None:
    spec = replace(SPEC, ready=Probe(kind="notify"), start_timeout=10.0)
    machine, hands = make(spec)
    machine.want(Wanted.UP, hands.now)
    machine.spawned(hands.now)
    machine.extend_timeout(hands.now, 1.0)
    hands.wind(9.0)
    assert machine.state is Lifecycle.STARTING
    machine.extend_timeout(hands.now, 20.0)
    hands.wind(19.0)
    assert machine.state is Lifecycle.STARTING
    hands.wind(2.0)
    assert machine.state is Lifecycle.STOPPING
    assert machine.detail == "not ready within 29 s"


def test_more_time_is_not_a_limit_where_there_was_none() -> None:
    machine, hands = make()
    machine.want(Wanted.UP, hands.now)
    machine.spawned(hands.now)
    machine.extend_timeout(hands.now, 0.1)
    hands.wind(2.0)
    assert machine.state is Lifecycle.RUNNING


def test_more_time_to_stop_is_given_unless_somebody_is_in_a_hurry() -> None:
    machine, hands = running(replace(SPEC, stop=Stop(timeout=5)))
    machine.want(Wanted.DOWN, hands.now)
    machine.extend_timeout(hands.now, 1.0)
    hands.wind(4.0)
    machine.extend_timeout(hands.now, 10.0)
    hands.wind(9.0)
    assert hands.signals == [("TERM", False)]
    machine.hurry(hands.now, 0.5)
    machine.extend_timeout(hands.now, 60.0)
    hands.wind(0.6)
    assert hands.signals[-1] == ("KILL", True)


def test_only_the_program_itself_ends_a_reload_by_its_word() -> None:
    machine, hands = running(replace(SPEC, reload=Reload(kind="notify")))
    machine.begin_reload(hands.now)
    machine.ready(hands.now)  # a probe that passes says nothing of the reload
    assert machine.state is Lifecycle.RELOADING
    machine.ready(hands.now, told=True)
    assert machine.state is Lifecycle.RUNNING

    machine, hands = running(replace(SPEC, reload=Reload(kind="exec")))
    machine.begin_reload(hands.now)
    machine.ready(hands.now, told=True)
    assert machine.state is Lifecycle.RELOADING


def test_a_oneshot_that_is_adopted_is_not_ready_before_it_has_finished() -> None:
    machine, hands = make(replace(SPEC, type="oneshot"))
    machine.wanted = Wanted.UP
    machine.adopt(hands.now, state=Lifecycle.STARTING, uptime=5.0, ready=False)
    hands.wind(10)
    assert machine.state is Lifecycle.STARTING
    assert not machine.meets("ready")
    die(machine, hands, Exit(code=0))
    assert machine.meets("completed")


def test_a_program_that_cannot_be_started_is_not_tried_within_itself() -> None:
    machine, hands = make(replace(SPEC, restart=Restart(backoff=Backoff(base=0.0, jitter=0.0))))
    machine.want(Wanted.UP, hands.now)
    for launches in range(2, 5):
        machine.spawn_failed(hands.now, "no such program")
        assert machine.state is Lifecycle.BACKOFF
        hands.wind(0.01)
        assert (machine.state, hands.launches) == (Lifecycle.STARTING, launches)


def test_a_manual_start_while_its_failure_is_cleared_away_starts_at_once() -> None:
    machine, hands = running(replace(SPEC, restart=replace(NO_JITTER, policy="never")))
    machine.exited(hands.now, Exit(code=1))
    machine.sweep_takes_time()
    machine.want(Wanted.UP, hands.now, manual=True)
    machine.gone(hands.now)
    assert machine.state is Lifecycle.STARTING
    assert machine.failures == 0


def test_an_expected_end_says_nothing_of_a_later_stop_for_its_health() -> None:
    machine, hands = running(replace(SPEC, restart=replace(NO_JITTER, policy="always")))
    die(machine, hands, Exit(code=0))
    assert machine.exit_was_expected
    machine.spawned(hands.now)
    hands.wind(1.5)
    machine.unhealthy(hands.now, Reason.LIVENESS, "liveness probe failed 3 times")
    machine.exited(hands.now, Exit(signal=15))
    assert not machine.exit_was_expected


def test_a_crash_loop_is_over_once_its_failures_are_old() -> None:
    machine, hands = running(replace(SPEC, restart=NO_JITTER))
    for _ in range(5):
        die(machine, hands, Exit(code=1))
        hands.wind(60)
        machine.spawned(hands.now)
    hands.wind(100)
    assert machine.in_crash_loop(hands.now)
    hands.wind(400)
    assert not machine.in_crash_loop(hands.now)


def test_what_was_found_dead_while_paused_is_restarted_afterwards() -> None:
    machine, hands = running(replace(SPEC, restart=NO_JITTER))
    machine.want(Wanted.PAUSED, hands.now)
    machine.health = Health.FAIL
    machine.unhealthy(hands.now, Reason.LIVENESS, "liveness probe failed 3 times")
    assert machine.state is Lifecycle.RUNNING
    machine.want(Wanted.UP, hands.now)
    assert machine.state is Lifecycle.STOPPING
    die(machine, hands, Exit(signal=15))
    assert machine.state is Lifecycle.STARTING


def test_a_promised_token_is_waited_for_once() -> None:
    machine, hands = running(replace(SPEC, restart=NO_JITTER))
    hands.budget = 0
    die(machine, hands, Exit(code=1))
    assert machine.state is Lifecycle.BACKOFF
    hands.wind(1.1)
    assert machine.state is Lifecycle.STARTING


class Lives(RuleBasedStateMachine):
    """Random lives of one instance against a process that exists or doesn't."""

    targets = Bundle("targets")

    @initialize(
        kind=st.sampled_from(["simple", "oneshot"]),
        policy=st.sampled_from(["on-failure", "always", "never"]),
        ready=st.booleans(),
        limit=st.booleans(),
    )
    def begin(self, kind: str, policy: str, ready: bool, limit: bool) -> None:
        restart = Restart(policy=policy)
        if limit:
            restart = replace(restart, on_limit="fail", limit_count=3)
        self.spec = replace(
            SPEC,
            type=kind,
            restart=restart,
            ready=Probe(kind="notify") if ready and kind == "simple" else None,
            reload=Reload(kind="notify"),
        )
        self.machine, self.hands = make(self.spec)
        self.launched = 0
        self.process = False
        self.sweeping = False

    def _launches(self) -> bool:
        return self.hands.launches > self.launched

    @rule(manual=st.booleans())
    def up(self, manual: bool) -> None:
        self.machine.want(Wanted.UP, self.hands.now, manual=manual)

    @rule()
    def down(self) -> None:
        self.machine.want(Wanted.DOWN, self.hands.now)

    @rule()
    def pause(self) -> None:
        self.machine.want(Wanted.PAUSED, self.hands.now)

    @rule()
    def restart(self) -> None:
        self.machine.restart(self.hands.now)

    @rule(timeout=st.floats(0, 30))
    def hurry(self, timeout: float) -> None:
        self.machine.hurry(self.hands.now, timeout)

    @precondition(lambda self: self._launches())
    @rule()
    def the_program_starts(self) -> None:
        self.launched = self.hands.launches
        if self.machine.state is Lifecycle.STARTING:
            self.process = True
            self.machine.spawned(self.hands.now)

    @precondition(lambda self: self._launches())
    @rule()
    def the_program_cannot_be_started(self) -> None:
        self.launched = self.hands.launches
        if self.machine.state is Lifecycle.STARTING:
            self.machine.spawn_failed(self.hands.now, "no such program")

    @precondition(lambda self: self.process)
    @rule(
        exit_=st.one_of(
            st.builds(Exit, code=st.sampled_from([0, 1, 78, 255])),
            st.builds(Exit, signal=st.sampled_from([6, 9, 11, 15])),
            st.just(Exit()),
            st.just(Exit(signal=9, oom=True)),
        ),
        leftovers=st.booleans(),
    )
    def it_ends(self, exit_: Exit, leftovers: bool) -> None:
        self.process = False
        self.machine.exited(self.hands.now, exit_)
        if leftovers:
            self.machine.sweep_takes_time()
            self.sweeping = True
        else:
            self.machine.gone(self.hands.now)

    @precondition(lambda self: self.sweeping)
    @rule()
    def the_rest_is_gone(self) -> None:
        self.sweeping = False
        self.machine.gone(self.hands.now)

    @precondition(lambda self: self.process)
    @rule()
    def says_ready(self) -> None:
        self.machine.ready(self.hands.now)

    @precondition(lambda self: self.process)
    @rule()
    def says_unready(self) -> None:
        self.machine.unready()

    @rule(reason=st.sampled_from([Reason.LIVENESS, Reason.WATCHDOG]))
    def is_found_unhealthy(self, reason: Reason) -> None:
        self.machine.unhealthy(self.hands.now, reason, "unhealthy")

    @rule(seconds=st.floats(0, 200))
    def asks_for_more_time(self, seconds: float) -> None:
        self.machine.extend_timeout(self.hands.now, seconds)

    @rule(told=st.booleans())
    def says_ready_at_any_time(self, told: bool) -> None:
        self.machine.ready(self.hands.now, told=told)

    @rule()
    def reloads_itself(self) -> None:
        self.machine.begin_own_reload(self.hands.now)

    @rule()
    def is_told_to_reload(self) -> None:
        self.machine.begin_reload(self.hands.now)

    @rule(blocked=st.booleans())
    def a_dependency_changes(self, blocked: bool) -> None:
        self.hands.waiting_for = "db" if blocked else None
        self.machine.dependency_changed(self.hands.now)

    @rule()
    def a_dependency_fails(self) -> None:
        self.machine.dependency_failed("db has failed")

    @rule(budget=st.integers(0, 2))
    def the_budget_changes(self, budget: int) -> None:
        self.hands.budget = budget

    @rule(seconds=st.floats(0.01, 120))
    def time_passes(self, seconds: float) -> None:
        self.hands.wind(seconds)

    @invariant()
    def every_move_was_legal_and_told(self) -> None:
        if not hasattr(self, "hands"):
            return
        state = Lifecycle.STOPPED
        for old, new in self.hands.moves:
            assert old is state
            assert new in MOVES[old]
            state = new
        assert state is self.machine.state

    @invariant()
    def a_process_exists_only_in_live_states(self) -> None:
        if not hasattr(self, "hands"):
            return
        assert self.machine.has_process == self.process
        if self.process or self.sweeping:
            assert self.machine.state in LIVE
        if self.machine.state is Lifecycle.RUNNING:
            assert self.process

    @invariant()
    def never_two_launches_at_once(self) -> None:
        if not hasattr(self, "hands"):
            return
        if self.process or self.sweeping:
            assert self.hands.launches == self.launched

    @invariant()
    def traffic_only_to_what_is_up_and_ready(self) -> None:
        if not hasattr(self, "hands"):
            return
        if self.machine.traffic is Traffic.IN:
            assert self.machine.state in (Lifecycle.RUNNING, Lifecycle.RELOADING)
            assert self.machine.is_ready

    @invariant()
    def what_is_wanted_down_is_not_started(self) -> None:
        if not hasattr(self, "hands"):
            return
        if self.machine.wanted is Wanted.DOWN:
            assert self.machine.state not in (
                Lifecycle.WAITING,
                Lifecycle.BACKOFF,
                Lifecycle.STARTING,
                Lifecycle.RUNNING,
            )

    @invariant()
    def somebody_will_move_what_waits(self) -> None:
        if not hasattr(self, "hands"):
            return
        if self.machine.state is Lifecycle.BACKOFF:
            assert "backoff" in self.hands.timers
        if self.machine.state is Lifecycle.STOPPING and self.process:
            last = self.hands.signals[-1][0]
            assert "stop" in self.hands.timers or last == "KILL"


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
