"""One instance's life as a pure state machine: events come in, moves and wishes for effects go out.

The machine knows no process, no file and no clock. It is told what happened and when
(`now`, monotonic seconds), it moves along `atlasd.states.MOVES`, and it asks its `Hands` for what
has to be done. Whoever owns the hands does it and reports back through the machine's events.
"""

from collections.abc import Callable

from atlasd.services import restart
from atlasd.services.escalation import FOR_EVER, Escalation
from atlasd.services.hands import Hands
from atlasd.services.restart import Exit, FailureWindow, Outcome
from atlasd.services.spec import ServiceSpec
from atlasd.states import LIVE, MOVES, Health, Lifecycle, Reason, Traffic, Wanted


class Machine:
    """The lifecycle of one instance."""

    def __init__(
        self,
        spec: ServiceSpec,
        hands: Hands,
        *,
        uniform: Callable[[float, float], float] | None = None,
    ) -> None:
        self.spec = spec
        self.hands = hands
        self._uniform = uniform
        self.state = Lifecycle.STOPPED
        self.wanted = Wanted.DOWN
        self.reason = Reason.BOOT
        self.detail = ""
        self.actor = ""
        self.has_process = False
        self.is_ready = False
        """The readiness says pass; without one, min_uptime has passed."""
        self.health = Health.UNKNOWN
        self.failures = 0
        self.window = FailureWindow()
        self.restarts = 0
        self.started_at = 0.0
        self.running_since: float | None = None
        self.last_exit: Exit | None = None
        self.next_start_at: float | None = None
        self._notified_ready = False
        self._uptime_passed = False
        self._after = ""
        """What follows a stop: stopped | restart | failure."""
        self._failure: tuple[Reason, str] = (Reason.EXIT_CODE, "")
        self._escalation: Escalation | None = None
        self._sweeping = False
        self._outcome = ""
        self._start_ends: float | None = None
        """When the start must have come to its end; null while nothing limits it."""
        self._awaits_word = False
        """Of the reload under way: READY=1 ends it."""
        self.reload_problem = ""
        """Why the last reload did not succeed; empty when it did, or goes on."""
        self._has_budget = False

    # ------------------------------------------------------------------ what others may ask

    @property
    def live(self) -> bool:
        """Whether a process exists."""
        return self.state in LIVE

    @property
    def traffic(self) -> Traffic:
        """Whether the instance should be given work."""
        if self.state is Lifecycle.STOPPING:
            return Traffic.DRAINING
        if self.state in (Lifecycle.RUNNING, Lifecycle.RELOADING) and self.is_ready:
            return Traffic.IN
        return Traffic.OUT

    def meets(self, condition: str) -> bool:
        """Whether a dependency on this instance with the condition is met."""
        if condition == "completed":
            return self.state is Lifecycle.EXITED
        if self.state is Lifecycle.EXITED:
            return self.spec.type == "oneshot"
        if condition == "started":
            return self.has_process and self.state is not Lifecycle.STOPPING
        up = self.state in (Lifecycle.RUNNING, Lifecycle.RELOADING) and self.is_ready
        if condition == "healthy":
            return up and (self.spec.live is None or self.health in (Health.PASS, Health.WARN))
        return up

    @property
    def after(self) -> str:
        """What follows the stop under way: stopped | restart | failure | outcome; else empty."""
        return self._after

    @property
    def returns(self) -> bool:
        """Whether the end that is under way will be followed by a new start."""
        if self.wanted is not Wanted.UP:
            return False
        if self.state is Lifecycle.STOPPING:
            again = self._outcome in (Outcome.RESTART, Outcome.AGAIN)
            return self._after in ("restart", "failure") or (self._after == "outcome" and again)
        return self.state in (Lifecycle.BACKOFF, Lifecycle.WAITING, Lifecycle.STARTING)

    @property
    def stop_was_asked_for(self) -> bool:
        """Whether the stop under way was asked for, and is no answer to a failure."""
        return self._after in ("stopped", "restart") and self.reason not in (
            Reason.LIVENESS,
            Reason.WATCHDOG,
            Reason.START_TIMEOUT,
            Reason.RESOURCE,
        )

    @property
    def exit_was_expected(self) -> bool:
        """Whether the last exit was an expected end."""
        return self._outcome in (Outcome.DONE, Outcome.AGAIN)

    @property
    def exit_reason(self) -> tuple[Reason, str]:
        """The last unasked exit in a reason code and in words."""
        return self._failure

    def consecutive_failures(self, now: float) -> int:
        """Failures since the last stable run."""
        return 0 if self._stable(now) else self.failures

    def in_crash_loop(self, now: float) -> bool:
        """Whether it has failed so often of late that something is wrong with it."""
        return self.window.within(now, restart.LOOP_WINDOW) >= restart.LOOP_FAILURES

    # ------------------------------------------------------------------ what is wanted

    def want(
        self,
        wanted: Wanted,
        now: float,
        *,
        reason: Reason = Reason.REQUEST,
        detail: str = "",
        actor: str = "",
        manual: bool = False,
    ) -> None:
        """Change what is wanted. `manual` starts what has failed or finished, counters cleared."""
        self.wanted = wanted
        if wanted is Wanted.UP:
            self._want_up(now, reason, detail, actor, manual=manual)
        elif wanted is Wanted.DOWN:
            self._want_down(now, reason, detail, actor)
        elif self.state in (Lifecycle.WAITING, Lifecycle.BACKOFF):
            self.hands.disarm("backoff")
            self._move(Lifecycle.STOPPED, reason, detail or "paused", actor)

    def _want_up(
        self, now: float, reason: Reason, detail: str, actor: str, *, manual: bool
    ) -> None:
        if self.state is Lifecycle.STOPPING:
            if manual:
                self.clear_counters()
            if self._after == "stopped" or manual:
                self._after = "restart"
            return
        if self.health is Health.FAIL and self.live:
            self.unhealthy(now, Reason.LIVENESS, "the liveness probe failed while it was paused")
            return
        if manual and not self.live:
            self.clear_counters()
            self.hands.disarm("backoff")
        startable = self.state is Lifecycle.STOPPED or (
            manual
            and self.state
            in (
                Lifecycle.EXITED,
                Lifecycle.FAILED,
                Lifecycle.LOST,
                Lifecycle.BACKOFF,
                Lifecycle.WAITING,
            )
        )
        if startable:
            self._start(now, reason, detail, actor)

    def _want_down(self, now: float, reason: Reason, detail: str, actor: str) -> None:
        if self.state is Lifecycle.STOPPING:
            self._after = "stopped"
        elif self.live:
            self._stop(now, reason, detail, actor, after="stopped")
        elif self.state is not Lifecycle.STOPPED:
            self.hands.disarm("backoff")
            self._move(Lifecycle.STOPPED, reason, detail, actor)

    def restart(
        self, now: float, *, reason: Reason = Reason.REQUEST, detail: str = "", actor: str = ""
    ) -> None:
        """Stop and start again; starts what isn't running. Counters are cleared."""
        self.wanted = Wanted.UP
        self.clear_counters()
        if self.state is Lifecycle.STOPPING:
            self._after = "restart"
        elif self.live:
            self._stop(now, reason, detail, actor, after="restart")
        else:
            self.hands.disarm("backoff")
            self._start(now, reason, detail, actor)

    def clear_counters(self) -> None:
        """Forget past failures: somebody intervened."""
        self.failures = 0
        self.window.clear()

    def hurry(self, now: float, timeout: float) -> None:
        """A second stop request: may shorten what is left before KILL, never lengthen it."""
        if self.state is Lifecycle.STOPPING and self._escalation is not None:
            wait = self._escalation.hurry(now, timeout)
            if wait is not None:
                self.hands.arm("stop", wait)

    # ------------------------------------------------------------------ starting

    def _start(self, now: float, reason: Reason, detail: str, actor: str) -> None:
        waiting_for = self.hands.blocked()
        self.next_start_at = None
        self._has_budget = False
        if waiting_for is not None:
            if self.state is not Lifecycle.WAITING:
                self._move(Lifecycle.WAITING, Reason.DEPENDENCY, waiting_for, actor)
            else:
                self.detail = waiting_for
            return
        self.has_process = False
        self.is_ready = False
        self._notified_ready = False
        self._uptime_passed = False
        self.running_since = None
        self.health = Health.UNKNOWN
        self.started_at = now
        self._move(Lifecycle.STARTING, reason, detail, actor)
        self.hands.launch()

    def dependency_changed(self, now: float) -> None:
        """A dependency's state has changed: look again whether a start may go on."""
        if self.state is Lifecycle.WAITING:
            self._start(now, Reason.DEPENDENCY, "dependencies met", "")
        elif (
            self.state is Lifecycle.FAILED
            and self.reason is Reason.DEPENDENCY
            and self.wanted is Wanted.UP
            and self.hands.blocked() is None
        ):
            self._start(now, Reason.DEPENDENCY, "dependencies met again", "")

    def dependency_failed(self, detail: str) -> None:
        """A required dependency was given up."""
        if self.state in (Lifecycle.WAITING, Lifecycle.BACKOFF):
            self.hands.disarm("backoff")
            self._move(Lifecycle.FAILED, Reason.DEPENDENCY, detail, "")

    def spawned(self, now: float) -> None:
        """The program runs."""
        self.has_process = True
        self.started_at = now
        if self.state is not Lifecycle.STARTING:
            return
        if self.spec.type == "oneshot":
            self._limit_start(now, self.spec.start_timeout)
            return
        wait = self.min_uptime
        if wait > 0:
            self.hands.arm("uptime", wait)
        else:
            self._uptime_passed = True
        if self.spec.ready is not None:
            self._limit_start(now, self.spec.start_timeout)
        self._check_running(now)

    def _limit_start(self, now: float, seconds: float) -> None:
        self._start_ends = now + seconds
        self.hands.arm("start", seconds)

    @property
    def min_uptime(self) -> float:
        """Seconds of life before the instance counts as running."""
        if self.spec.min_uptime is not None:
            return self.spec.min_uptime
        return 1.0 if self.spec.ready is None else 0.0

    def spawn_failed(self, now: float, detail: str) -> None:
        """The program could not be started: a failed hook, a missing file, no such user."""
        self.has_process = False
        if self.state is Lifecycle.STARTING:
            self._failed(now, Reason.SPAWN, detail)
        elif self.state is Lifecycle.STOPPING:
            self._finish_stop(now)

    def ready(self, now: float, *, told: bool = False) -> None:
        """The readiness says pass; `told` by the program itself, which ends its reload too."""
        self._notified_ready = True
        if self.state is Lifecycle.STARTING:
            self._check_running(now)
        elif self.state in (Lifecycle.RUNNING, Lifecycle.RELOADING):
            self.is_ready = True
            if told and self._awaits_word:
                self.reloaded(now)

    def unready(self) -> None:
        """The readiness says fail: out of traffic, but alive."""
        self._notified_ready = False
        if self.state in (Lifecycle.RUNNING, Lifecycle.RELOADING):
            self.is_ready = False

    def _check_running(self, now: float) -> None:
        if self._uptime_passed and (self.spec.ready is None or self._notified_ready):
            self.hands.disarm("start")
            self.is_ready = True
            self.running_since = now
            self._move(Lifecycle.RUNNING, Reason.READY, "", "")

    def extend_timeout(self, now: float, seconds: float) -> None:
        """The program asks for more time (EXTEND_TIMEOUT_USEC): may lengthen, never shorten."""
        if self.state is Lifecycle.STARTING:
            if self._start_ends is not None and now + seconds > self._start_ends:
                self._limit_start(now, seconds)
        elif self.state is Lifecycle.STOPPING and self._escalation is not None:
            wait = self._escalation.extend(now, seconds)
            if wait is not None:
                self.hands.arm("stop", wait)

    # ------------------------------------------------------------------ reload

    def begin_reload(
        self, now: float, *, reason: Reason = Reason.REQUEST, detail: str = "", actor: str = ""
    ) -> None:
        """Tell the running program to reload. The caller has checked that it can be."""
        if self.state is Lifecycle.RUNNING:
            self.reload_problem = ""
            self._move(Lifecycle.RELOADING, reason, detail, actor)
            self._awaits_word = self.spec.reload.kind == "notify"
            self.hands.arm("reload", self.spec.reload.timeout)
            self.hands.reload()

    def begin_own_reload(self, now: float) -> None:
        """The program says RELOADING=1 by itself; READY=1 ends it."""
        if self.state is Lifecycle.RUNNING:
            self._move(Lifecycle.RELOADING, Reason.REQUEST, "the program reloads itself", "")
            self._awaits_word = True
            self.hands.arm("reload", self.spec.reload.timeout)

    def reloaded(self, now: float) -> None:
        """The reload is done."""
        if self.state is Lifecycle.RELOADING:
            self.hands.disarm("reload")
            self._move(Lifecycle.RUNNING, Reason.READY, "reloaded", "")

    def reload_failed(self, now: float, detail: str) -> None:
        """The reload did not succeed; the instance goes on with what it had."""
        if self.state is Lifecycle.RELOADING:
            self.hands.disarm("reload")
            self.reload_problem = detail
            self._move(Lifecycle.RUNNING, Reason.REQUEST, detail, "")

    # ------------------------------------------------------------------ failing while alive

    def unhealthy(self, now: float, reason: Reason, detail: str) -> None:
        """A liveness probe, the watchdog or a resource rule says that it must be restarted."""
        if self.state in (Lifecycle.STARTING, Lifecycle.RUNNING, Lifecycle.RELOADING):
            if self.wanted is Wanted.PAUSED:
                return
            self._failure = (reason, detail)
            self._stop(now, reason, detail, "", after="failure")

    def timer_fired(self, timer: str, now: float) -> None:
        """A timer that was armed has run down."""
        if timer == "uptime" and self.state is Lifecycle.STARTING:
            self._uptime_passed = True
            self._check_running(now)
        elif timer == "start" and self.state is Lifecycle.STARTING:
            what = "finished" if self.spec.type == "oneshot" else "ready"
            self.unhealthy(
                now,
                Reason.START_TIMEOUT,
                f"not {what} within {now - self.started_at:.3g} s",
            )
        elif timer == "stop" and self.state is Lifecycle.STOPPING:
            self._next_step(now)
        elif timer == "backoff" and self.state is Lifecycle.BACKOFF:
            self._after_backoff(now)
        elif timer == "reload":
            self.reload_failed(now, f"reload not done within {self.spec.reload.timeout:g} s")

    # ------------------------------------------------------------------ stopping

    def _stop(self, now: float, reason: Reason, detail: str, actor: str, *, after: str) -> None:
        self._after = after
        for timer in ("start", "uptime", "reload"):
            self.hands.disarm(timer)
        # As systemd does: ABRT, so that a hung program can leave a trace of where it hung.
        first = "ABRT" if reason is Reason.WATCHDOG else ""
        self._escalation = Escalation(self.spec.stop, first=first)
        had_process = self.has_process
        self._move(Lifecycle.STOPPING, reason, detail, actor)
        if not had_process:
            self.hands.abandon_launch()
            self._finish_stop(now)
        elif self._sweeping:
            return
        else:
            self.hands.prepare_stop()

    def stop_prepared(self, now: float) -> None:
        """Drain and pre_stop commands are done, or took too long."""
        if self.state is Lifecycle.STOPPING and self.has_process:
            self._next_step(now)

    def _next_step(self, now: float) -> None:
        step = self._escalation.next(now) if self._escalation is not None else None
        if step is None:
            return
        name, everyone, wait = step
        if wait != FOR_EVER:
            self.hands.arm("stop", wait)
        self.hands.signal(name, everyone=everyone)

    def _finish_stop(self, now: float) -> None:
        self.hands.disarm("stop")
        self._escalation = None
        after, self._after = self._after, ""
        if after == "failure":
            self._failed(now, *self._failure)
        elif after == "restart" and self.wanted is Wanted.UP:
            self._start(now, self.reason, self.detail, self.actor)
        else:
            self._move(Lifecycle.STOPPED, self.reason, self.detail, self.actor)

    # ------------------------------------------------------------------ ends

    @property
    def outcome(self) -> str:
        """What the last exit calls for, one of `Outcome`; empty when it was asked for."""
        return self._outcome

    def exited(self, now: float, exit_: Exit, *, lost: str = "") -> None:
        """The main process has ended. What is left of the instance is swept away next.

        `lost` says in words that nobody knows what became of it; it counts as down then.
        """
        self.has_process = False
        self.last_exit = exit_
        self.is_ready = False
        self._outcome = ""
        for timer in ("start", "uptime", "reload", "stop"):
            self.hands.disarm(timer)
        if self.state is not Lifecycle.STOPPING:
            self._failure = self._judge(exit_, lost)
        self._sweeping = True
        self.hands.sweep()

    def _judge(self, exit_: Exit, lost: str) -> tuple[Reason, str]:
        if lost:
            self._outcome = Outcome.LOST
            return Reason.ADOPTED, lost
        reason, detail = restart.reason_of(exit_), restart.describe(exit_, self.spec.restart)
        self._outcome = restart.judge(exit_, self.spec.restart, self.spec.type)
        early = (
            self.state is Lifecycle.STARTING
            and self.spec.type != "oneshot"
            and self.spec.restart.policy != "never"
        )
        if early and self._outcome in (Outcome.DONE, Outcome.AGAIN):
            self._outcome = Outcome.RESTART
            detail += (
                " before it was ready"
                if self.spec.ready is not None
                else f" after less than {self.min_uptime:g} s"
                ' (a program that does its work and ends is of type = "oneshot")'
            )
        return reason, detail

    def sweep_takes_time(self) -> None:
        """Something of the instance is still alive: until it is gone, it is stopping."""
        if self.state is not Lifecycle.STOPPING:
            self._after = "outcome"
            self._move(Lifecycle.STOPPING, *self._failure, "")

    def gone(self, now: float) -> None:
        """No process of the instance is left."""
        if not self._sweeping:
            return
        self._sweeping = False
        if self.state is Lifecycle.STOPPING and self._after != "outcome":
            self._finish_stop(now)
            return
        self._after = ""
        reason, detail = self._failure
        if self._outcome == Outcome.DONE:
            self._move(Lifecycle.EXITED, Reason.COMPLETED, detail, "")
        elif self.wanted is Wanted.PAUSED:
            self._move(Lifecycle.STOPPED, reason, f"{detail}; paused, so not restarted", "")
        elif self._outcome == Outcome.AGAIN:
            self.restarts += 1
            self._start(now, reason, detail, "")
        elif self._outcome == Outcome.LOST:
            self._move(Lifecycle.LOST, reason, detail, "")
            if self.wanted is Wanted.UP:
                self.restarts += 1
                self._start(now, reason, detail, "")
            elif self.wanted is Wanted.DOWN:
                self._move(Lifecycle.STOPPED, reason, detail, "")
        elif self._outcome == Outcome.GIVE_UP:
            self.failures += 1
            self._move(Lifecycle.FAILED, reason, detail, "")
        else:
            self._failed(now, reason, detail)

    def _stable(self, now: float) -> bool:
        return (
            self.running_since is not None
            and now - self.running_since >= self.spec.restart.backoff.stable_for
        )

    def _failed(self, now: float, reason: Reason, detail: str) -> None:
        if self._stable(now):
            self.failures = 0
        self.running_since = None
        self._failure = (reason, detail)
        self.failures += 1
        self.window.add(now)
        policy = self.spec.restart
        if self.wanted is not Wanted.UP:
            paused = "; paused, so not restarted" if self.wanted is Wanted.PAUSED else ""
            self._move(Lifecycle.STOPPED, reason, detail + paused, "")
            return
        if policy.policy == "never":
            self._move(Lifecycle.FAILED, reason, detail, "")
            return
        if restart.limit_reached(policy, self.window, now):
            text = f"{detail}; {policy.limit_count} failures in {policy.limit_window:g} s"
            self._move(Lifecycle.FAILED, Reason.LIMIT, text, "")
            return
        if self._uniform is None:
            seconds = restart.delay(self.failures, policy.backoff)
        else:
            seconds = restart.delay(self.failures, policy.backoff, self._uniform)
        self.next_start_at = now + seconds
        self._move(Lifecycle.BACKOFF, reason, detail, "")
        if seconds > 0 or reason is Reason.SPAWN:
            # What fails before it runs would be tried again within itself, without an end.
            self.hands.arm("backoff", seconds)
        else:
            self._after_backoff(now)

    def _after_backoff(self, now: float) -> None:
        # What it waits for comes first: a start that is held back must not use up the budget.
        if not self._has_budget and self.hands.blocked() is None:
            wait = self.hands.take_budget()
            if wait > 0:
                self._has_budget = True
                self.next_start_at = now + wait
                self.hands.arm("backoff", wait)
                return
        self.restarts += 1
        self._start(now, self.reason, self.detail, "")

    # ------------------------------------------------------------------ adoption

    def adopt(self, now: float, *, state: Lifecycle, uptime: float, ready: bool) -> None:
        """Take over a process that was proven to be ours, `uptime` seconds old."""
        self.has_process = True
        self.started_at = now - uptime
        self._notified_ready = ready
        self._uptime_passed = uptime >= self.min_uptime
        self.reason, self.detail = Reason.ADOPTED, ""
        if state in (Lifecycle.RUNNING, Lifecycle.RELOADING):
            self.is_ready = ready
            self.running_since = now - uptime
            self._jump(Lifecycle.RUNNING)
            return
        self._jump(Lifecycle.STARTING)
        if self.spec.ready is not None or self.spec.type == "oneshot":
            self._limit_start(now, max(0.0, self.spec.start_timeout - uptime))
        if self.spec.type == "oneshot":
            return
        if not self._uptime_passed:
            self.hands.arm("uptime", self.min_uptime - uptime)
        self._check_running(now)

    def restore(self, state: Lifecycle, reason: Reason, detail: str) -> None:
        """Take over a state without a process from a predecessor, without telling anybody."""
        self.state, self.reason, self.detail = state, reason, detail

    def take_over_dead(
        self, state: Lifecycle, *, started_at: float, running_since: object, after: str
    ) -> None:
        """A process of ours has ended while nobody watched; `exited` is to follow.

        `state` is what it was in, `after` what was to follow the stop that was under way.
        """
        self.has_process = True
        self.started_at = started_at
        self.running_since = running_since if isinstance(running_since, float) else None
        self._after = after
        if after in ("failure", "outcome"):
            self._failure = (self.reason, self.detail)
        self.state = Lifecycle.RUNNING if state is Lifecycle.RELOADING else state

    def take_over_sweep(self, why: tuple[Reason, str], *, after: str, outcome: str) -> None:
        """A stop was under way whose main process has ended; `gone` is to follow."""
        self.reason, self.detail = self._failure = why
        self.state, self._after, self._outcome = Lifecycle.STOPPING, after, outcome
        self._sweeping = True

    def _jump(self, new: Lifecycle) -> None:
        # A fresh machine takes over what a predecessor left: no move of its own.
        old, self.state = self.state, new
        if old is not new:
            self.hands.moved(old, new)

    def _move(self, new: Lifecycle, reason: Reason, detail: str, actor: str) -> None:
        old = self.state
        if new not in MOVES[old]:
            raise AssertionError(
                f"{self.spec.name}: illegal move {old} → {new} ({reason}: {detail})"
            )
        self.state = new
        self.reason, self.detail, self.actor = reason, detail, actor
        if new is not Lifecycle.RUNNING and old in (Lifecycle.RUNNING, Lifecycle.RELOADING):
            self.is_ready = self.is_ready and new is Lifecycle.RELOADING
        self.hands.moved(old, new)
