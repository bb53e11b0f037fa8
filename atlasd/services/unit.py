"""One instance with its process: the hands of its state machine."""

import os
import secrets
import signal as signals
import traceback
from typing import TYPE_CHECKING

from atlasd.services import crash, launcher, procinfo, spawn, sweep
from atlasd.services.adopted_exit import AdoptedExit
from atlasd.services.attendants import Attendants
from atlasd.services.cgroup import Cgroup
from atlasd.services.hooks import Hooks
from atlasd.services.instance import Machine
from atlasd.services.instance_output import InstanceOutput
from atlasd.services.loop import Timer
from atlasd.services.records import RecordFile
from atlasd.services.restart import LOOP_WINDOW, Exit
from atlasd.services.signals import signal_number
from atlasd.services.sockets import SocketError
from atlasd.services.spec import ServiceSpec
from atlasd.services.sweep import Sweep
from atlasd.states import Health, Lifecycle, Reason, Traffic, Wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atlasd.services.service import Service
    from atlasd.services.supervisor import Supervisor

UNKILLABLE_AFTER = 5.0
"""Seconds after KILL before what is still there is called unkillable."""


class Unit:
    """One instance. `machine` decides; this does, and tells the machine what came of it."""

    def __init__(self, supervisor: "Supervisor", service: "Service", index: int) -> None:
        self.supervisor = supervisor
        self.service = service
        self.index = index
        self.effects = supervisor.effects
        self.loop = supervisor.loop
        self.machine = Machine(service.spec, self)
        self.asked_down = False
        """Somebody has stopped this very instance, while its service is wanted up."""
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.main_pid = 0
        """Of the last main process, whether it lives or not."""
        self._start_time: int | None = 0
        self.session = 0
        """Of the last process that we have started: its session and group bear its number, also
        when another process has become the main one."""
        self._session_start: int | None = None
        self.is_descendant = False
        """Whether we have started it in this life: what becomes an orphan is handed to us then."""
        self.invocation = ""
        self.started_wall = 0.0
        self.digest = ""
        self.uid: int | None = None
        self.cgroup: Cgroup | None = None
        self.since_wall = supervisor.clock.wall()
        self.since = supervisor.clock.monotonic()
        self.status_text = ""
        self.leftovers: list[int] = []
        self.output = InstanceOutput(self.effects, service.spec.log, service.name, index)
        self.attendants = Attendants(self)
        self._record = RecordFile(self.effects.records_dir, service.name, index)
        self._record_due = False
        self._traffic = Traffic.OUT
        """As it was last told."""
        self._why_traffic = ""
        self._timers: dict[str, Timer] = {}
        self.hooks = Hooks(self)
        self._sweep: Sweep | None = None
        self._oom_kills = 0
        self._restarts = 0
        """Of the machine's restarts, those that the service's counters know."""
        self._limits: tuple[int | None, float | None, int | None] = (None, None, None)
        self.pending_exit = False
        """It ended under a predecessor, and how is still to be found out."""
        self._adopted: AdoptedExit | None = None

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        return self.supervisor.clock.monotonic()

    @property
    def idle(self) -> bool:
        """Whether nothing is known of it and nothing is under way."""
        stopped = self.machine.state is Lifecycle.STOPPED
        return stopped and not self.pending_exit and not self.asked_down

    # ------------------------------------------------------------------ what is wanted

    def want(
        self,
        wanted: Wanted,
        *,
        reason: Reason = Reason.REQUEST,
        detail: str = "",
        actor: str = "",
        manual: bool = False,
    ) -> None:
        """Change what is wanted of this instance."""
        if not self.machine.live:
            self.machine.spec = self.service.spec
        if wanted is Wanted.UP:
            self.asked_down = False
        self.machine.want(
            wanted, self.now, reason=reason, detail=detail, actor=actor, manual=manual
        )
        self.write_record()

    def update(self, spec: ServiceSpec) -> None:
        """Give a running instance what it can have of a new definition while it runs."""
        before, self.machine.spec = self.machine.spec, spec
        self.output.define(spec.log)
        if not self.machine.live:
            return
        if before.limits != spec.limits:
            self.limit(spec)
        self.attendants.updated(before, spec)

    # ------------------------------------------------------------------ Hands: launching

    def launch(self) -> None:
        """Run the pre_start hooks, then the program."""
        self.machine.spec = spec = self.service.spec
        self.invocation = secrets.token_hex(16)
        self.status_text = ""
        self.leftovers = []
        if spec.pre_start:
            self.write_record()  # a successor would have to end what the hooks have begun
            self.hooks.before_start(self._spawn)
        else:
            self._spawn("")

    def abandon_launch(self) -> None:
        """A stop came before the program was started."""
        self.hooks.abandon()

    def _spawn(self, problem: str) -> None:
        spec = self.machine.spec
        if problem:
            self._spawn_failed(problem)
            return
        try:
            self._start_process(spec)
        except (spawn.SpawnError, SocketError) as error:
            self._spawn_failed(str(error))
        except OSError as error:
            self._spawn_failed(f"cannot start: {error.strerror} ({error.filename or 'system'})")
        except ValueError as error:  # a zero byte in an argument or a variable, for example
            self._spawn_failed(f"cannot start: {error}")
        except Exception as error:  # noqa: BLE001  whatever it is, it must not hang in its start
            self.loop.report(f"{self.service.name}: {traceback.format_exc()}")
            self._spawn_failed(f"cannot start: unexpected {type(error).__name__}, see the log")

    def _spawn_failed(self, detail: str) -> None:
        self.attendants.dismiss()
        # A file is not worth more at a failed start than at a real one: told, counted, kept.
        self._note_crash(Reason.SPAWN, detail, Exit(), uptime=None)
        self.machine.spawn_failed(self.now, detail)

    def _start_process(self, spec: ServiceSpec) -> None:
        who = spawn.account(spec.user, spec.group)
        self.uid = who.uid if who is not None else os.geteuid()
        sockets = self.service.listening()
        self.attendants.stored.take_back()
        if spec.ready is None or spec.ready.kind != "fd":  # whose number they could come upon
            sockets += self.attendants.stored.entries()
        self._enter_cgroup(spec)
        self.output.own(self.uid)
        ready_fd = self.attendants.prepare(spec, self.uid)
        env = launcher.environment(
            spec,
            index=self.index,
            invocation=self.invocation,
            account=who,
            notify_path=self.attendants.notify_path,
            socket_names=[name for name, _ in sockets],
        )
        out, err = self.output.child_ends()
        self.pid = None
        self.write_record()  # from here on a successor would look for the invocation
        try:
            pid = spawn.start(
                launcher.launch(
                    spec,
                    index=self.index,
                    env=env,
                    account=who,
                    cgroup=self.cgroup,
                    stdio=(self.effects.null, out, err),
                    sockets=[fd for _, fd in sockets],
                    ready_fd=ready_fd,
                )
            )
        finally:
            os.close(out)
            os.close(err)
        self.supervisor.spawns_total += 1
        self.digest = self.service.digest
        self.started_wall = self.supervisor.clock.wall()
        try:
            self._is_started(pid)
        except OSError:
            # Without a descriptor of it, it could be neither watched nor stopped. It is our child
            # and not waited for: the pid is nobody else's.
            os.kill(pid, signals.SIGKILL)
            self.pid = None
            raise
        self.machine.spawned(self.now)
        self.record_soon()
        self.attendants.attend()
        self.hooks.after_start()

    def _is_started(self, pid: int) -> None:
        self._process_is(pid, os.pidfd_open(pid))
        self.session, self._session_start = pid, None
        self.is_descendant = True

    def _process_is(self, pid: int, pidfd: int) -> None:
        self.pid = self.main_pid = pid
        self._start_time = None
        self.pidfd = pidfd
        self.supervisor.by_pid[pid] = self
        self.effects.held.hold(self._pidfd_name, pidfd)

    @property
    def start_time(self) -> int:
        """When the main process was started, in clock ticks since boot; 0 when none was.

        Looked up when it is first needed: while a program is still executing its first moments,
        the kernel lets nobody look.
        """
        if self._start_time is None:
            stat = procinfo.stat(self.main_pid)
            self._start_time = stat.start_time if stat is not None else 0
        return self._start_time

    @property
    def session_start(self) -> int:
        """When the process was started whose number the session bears; as `start_time`."""
        return self._session_start if self._session_start is not None else self.start_time

    def known_as(
        self, pid: int, start_time: int, session: int | None, session_start: int | None
    ) -> None:
        """Who the process was, by a predecessor's record."""
        self.main_pid, self._start_time = pid, start_time
        self.session, self._session_start = session or pid, session_start

    def main_process_is(self, pid: int, pidfd: int) -> None:
        """The program named another process of its own as its main one (MAINPID=).

        `pidfd`, which becomes ours, has been proven to be of a process of this instance.
        """
        self._session_start = self.session_start  # while it can still be asked for
        self._release_pidfd()
        self._process_is(pid, pidfd)
        self._watch_end()
        self.write_record()

    def adopt_process(self, pid: int, pidfd: int, *, is_child: bool) -> None:
        """Take over a proven process of a predecessor's, `known_as` before."""
        start_time = self._start_time
        self._process_is(pid, pidfd)
        self._start_time = start_time
        self.is_descendant = is_child
        if not is_child:
            self._watch_end()

    def _watch_end(self) -> None:
        # Of a process that is nobody's child here. Should it become ours, both tell of its end,
        # and the first counts.
        assert self.pidfd is not None
        self._adopted = AdoptedExit(
            self.loop, self.pidfd, (self.main_pid, self.start_time), self.process_ended
        )

    @property
    def _pidfd_name(self) -> str:
        return f"pidfd/{self.service.name}/{self.index}"

    def _enter_cgroup(self, spec: ServiceSpec) -> None:
        cgroups = self.effects.cgroups
        if cgroups is None:
            self._say_unmet(
                spec, [n for n in ("memory", "cpu", "tasks") if getattr(spec.limits, n)]
            )
            return
        if self.cgroup is not None and self.cgroup.killed and self.cgroup.remove():
            self.cgroup = None
            self._limits = (None, None, None)
        if self.cgroup is None:
            self.cgroup = cgroups.create(self.service.name, self.index)
        self.limit(spec)
        if spec.limits.memory is not None:
            self._oom_kills = self.cgroup.oom_kills() or 0

    def leave_cgroup(self) -> None:
        """The host's cgroups have changed: the next process starts where they are now."""
        if not self.machine.live and self.cgroup is not None:
            self.cgroup.remove()
            self.cgroup = None

    def limit(self, spec: ServiceSpec) -> None:
        """Give the cgroup the limits of the definition, if they aren't its own already."""
        limits = (spec.limits.memory, spec.limits.cpu, spec.limits.tasks)
        # Most services have none, and looking for files that aren't there costs at every start.
        if self.cgroup is not None and limits != self._limits:
            self._limits = limits
            self._say_unmet(spec, list(self.cgroup.apply_limits(spec.limits)))

    def _say_unmet(self, spec: ServiceSpec, names: "Sequence[str]") -> None:
        if names:
            self.supervisor.journal.add(
                "status",
                service=self.service.name,
                instance=self.index,
                detail=f"limits not applied, as this host has no way to: {', '.join(names)}",
            )

    # ------------------------------------------------------------------ Hands: stopping

    def prepare_stop(self) -> None:
        """Drain and pre_stop commands, each with its limit; then the signals."""
        self.hooks.before_stop(lambda: self.machine.stop_prepared(self.now))

    def signal(self, name: str, *, everyone: bool) -> None:
        """Send a signal to the main process, or to all processes of the instance."""
        number = signal_number(name)
        if everyone and number == signals.SIGKILL and self.cgroup is not None:
            self.cgroup.kill()
        elif everyone:
            Sweep.signal(self, number, but=self.pid)
        if self.pidfd is not None:
            procinfo.send(self.pidfd, number)
            if number in sweep.WAKES:
                procinfo.send(self.pidfd, signals.SIGCONT)
        if number == signals.SIGKILL and self.machine.state is Lifecycle.STOPPING:
            self.arm("unkillable", UNKILLABLE_AFTER)

    def reload(self) -> None:
        """Tell the running program to reload, as its definition says."""
        spec = self.machine.spec
        if spec.reload.kind == "exec":
            self.hooks.reload(self._reload_is_over)
            return
        self.signal(spec.reload.signal, everyone=False)
        if spec.reload.kind == "signal":
            self.machine.reloaded(self.now)

    def _reload_is_over(self, problem: str) -> None:
        if problem:
            self.machine.reload_failed(self.now, problem)
        else:
            self.machine.reloaded(self.now)

    # ------------------------------------------------------------------ Hands: the end

    def process_ended(self, exit_: Exit, *, lost: str = "") -> None:
        """The main process has ended: its output first, then what follows, then the record."""
        pid = self.pid
        self.attendants.hear_out()
        if self.pid != pid:
            return  # its last words were that another process is the main one now
        self.output.drain()
        now = self.now
        before, machine = self.machine.state, self.machine
        uptime = now - machine.started_at
        self._forget_process()
        if exit_.signal == signals.SIGKILL and self.cgroup is not None and self._limits[0]:
            kills = self.cgroup.oom_kills() or 0
            if kills > self._oom_kills:
                self._oom_kills = kills
                exit_ = Exit(
                    signal=exit_.signal,
                    oom=True,
                    max_rss=exit_.max_rss,
                    cpu_seconds=exit_.cpu_seconds,
                )
                self.service.oom_kills_total += 1
        self.service.last_exit = self.supervisor.clock.wall()
        planned = before is Lifecycle.STOPPING and machine.stop_was_asked_for
        cause, detail = machine.reason, machine.detail
        last_output = [] if planned else self.output.tail(crash.LAST_LINES, self.started_wall)
        self.record_soon()
        machine.exited(now, exit_, lost=lost)
        if planned or machine.exit_was_expected:
            pass
        else:
            if before is not Lifecycle.STOPPING:
                cause, detail = machine.exit_reason
            self._note_crash(cause, detail, exit_, uptime=uptime, pid=pid, last=last_output)

    def _forget_process(self) -> None:
        self._release_pidfd()
        self.attendants.dismiss()

    def _release_pidfd(self) -> None:
        if self.pid is not None:
            self.supervisor.by_pid.pop(self.pid, None)
        if self._adopted is not None:
            self._adopted.cancel()
            self._adopted = None
        if self.pidfd is not None:
            self.effects.held.drop(self._pidfd_name)
            os.close(self.pidfd)
        self.pid = self.pidfd = None

    def _note_crash(
        self,
        cause: Reason,
        detail: str,
        exit_: Exit,
        *,
        uptime: float | None,
        pid: int | None = None,
        last: "Sequence[str]" = (),
    ) -> None:
        machine = self.machine

        def write() -> None:
            in_window = machine.window.within(self.now, LOOP_WINDOW)
            record = crash.make(
                wall=self.supervisor.clock.wall(),
                service=self.service.name,
                index=self.index,
                pid=pid,
                cause=cause.value,
                detail=detail,
                exit_=exit_,
                uptime=uptime,
                memory_bytes=None,
                cpu_seconds=None,
                failures=machine.failures,
                in_window=in_window,
                last_output=last,
                next_step=self._next_step(),
            )
            try:
                record = self.service.crashes.add(record)
            except OSError as error:
                record["not_written"] = error.strerror
            self.supervisor.journal.add(
                "crash",
                service=self.service.name,
                instance=self.index,
                reason=cause.value,
                detail=detail,
                pid=pid,
                # The last words stay on disk: facts wait in memory for a core that is away.
                data={k: v for k, v in record.items() if k != "last_output"}
                | {"crash_loop": machine.in_crash_loop(self.now)},
            )

        # The next start comes first; what has happened is written down right after it.
        self.loop.call_soon(write)

    def _next_step(self) -> str:
        machine = self.machine
        if machine.state is Lifecycle.BACKOFF and machine.next_start_at is not None:
            return f"start again in {max(0.0, machine.next_start_at - self.now):.1f} s"
        if machine.state is Lifecycle.FAILED:
            return "given up"
        if machine.state in (Lifecycle.STARTING, Lifecycle.RUNNING):
            return "started again"
        return machine.state.value

    def sweep(self) -> None:
        """End what the main process has left behind."""
        self._sweep = Sweep(self)
        self._sweep.start()

    def swept(self) -> None:
        """Nothing is left of the instance; its post_stop hooks are the last of it."""
        self._sweep = None
        self.leftovers = []
        if self.machine.spec.post_stop:
            self.machine.sweep_takes_time()
        self.hooks.after_stop(self._is_gone)

    def _is_gone(self) -> None:
        self.machine.gone(self.now)
        self.record_soon()

    def orphan_reaped(self) -> None:
        """Some orphan has gone; it may have been the last that a sweep waits for."""
        if self._sweep is not None:
            self._sweep.look()

    def left(self, pids: list[int], why: str) -> None:
        """Processes that will not die: named, and never called stopped."""
        if pids != self.leftovers:
            self.leftovers = pids
            self._name_leftovers(pids, why)

    def spared(self, pids: list[int]) -> None:
        """Processes that live on because the definition wants it: named, and no trouble."""
        if pids:
            mode = self.machine.spec.stop.kill_mode
            self._name_leftovers(pids, f"kill_mode {mode} lets these live on")

    def _name_leftovers(self, pids: list[int], why: str) -> None:
        self.supervisor.journal.add(
            "leftovers",
            service=self.service.name,
            instance=self.index,
            reason=Reason.LEFTOVERS.value,
            detail=f"{why}: " + ", ".join(str(p) for p in pids),
            data={"pids": pids},
        )

    # ------------------------------------------------------------------ Hands: the rest

    def moved(self, old: Lifecycle, new: Lifecycle) -> None:
        """The machine has changed its state."""
        self.since = self.now
        self.since_wall = self.supervisor.clock.wall()
        if new is Lifecycle.STARTING and self.machine.restarts > self._restarts:
            self._restarts = self.machine.restarts
            self.service.count_restart(self.machine.exit_reason[0].value)
        if new is Lifecycle.RUNNING and old is Lifecycle.STARTING:
            self.attendants.is_running()
        self.supervisor.moved(self, old, new)
        self.record_soon()

    def arm(self, timer: str, seconds: float) -> None:
        """Have the machine told after so many seconds."""
        self.disarm(timer)
        self._timers[timer] = self.loop.call_later(seconds, lambda: self._fired(timer))

    def _fired(self, timer: str) -> None:
        self._timers.pop(timer, None)
        if timer == "unkillable":
            if self.pid is not None and self.machine.state is Lifecycle.STOPPING:
                self.left([self.pid], "KILL was sent, but it does not die (state D?)")
            return
        self.machine.timer_fired(timer, self.now)

    def disarm(self, timer: str) -> None:
        """Forget a timer."""
        found = self._timers.pop(timer, None)
        if found is not None:
            found.cancel()

    def blocked(self) -> str | None:
        """What a start would have to wait for."""
        return self.supervisor.dependencies.blocked(self.service.name)

    def take_budget(self) -> float:
        """Take a restart from the host's budget."""
        return self.supervisor.take_budget()

    # ------------------------------------------------------------------ for others

    def health(self) -> Health:
        """By state first, then by what the probes say."""
        machine = self.machine
        if machine.state in (Lifecycle.FAILED, Lifecycle.LOST, Lifecycle.BACKOFF):
            return Health.FAIL
        if machine.state is Lifecycle.EXITED:
            return Health.PASS
        if machine.state not in (Lifecycle.RUNNING, Lifecycle.RELOADING):
            return Health.WARN if machine.in_crash_loop(self.now) else Health.UNKNOWN
        verdict = machine.health if machine.spec.live is not None else Health.PASS
        if verdict is Health.PASS and (not machine.is_ready or machine.in_crash_loop(self.now)):
            return Health.WARN
        return verdict

    def record_soon(self) -> None:
        """Keep what a successor needs at the end of this turn; a start does so by itself before."""
        if not self._record_due:
            self._record_due = True
            self.loop.call_soon(self._write_due)

    def traffic_may_differ(self, why: str) -> None:
        """Readiness has spoken: whether to give it work is looked at once this turn is over."""
        self._why_traffic = why
        self.record_soon()

    def _tell_traffic(self) -> None:
        traffic = self.machine.traffic
        if traffic is not self._traffic:
            self.supervisor.journal.add(
                "traffic",
                service=self.service.name,
                instance=self.index,
                old=self._traffic.value,
                new=traffic.value,
                detail=self._why_traffic or self.machine.detail,
            )
        self._traffic, self._why_traffic = traffic, ""

    def _write_due(self) -> None:
        self._tell_traffic()
        if self._record_due:
            self.write_record()

    def write_record(self) -> None:
        """Keep what a successor needs, now."""
        self._record_due = False
        machine = self.machine
        self.supervisor.keep(
            self._record.write,
            {
                "pid": self.pid,
                "start_time": self.start_time if self.pid is not None else 0,
                "session": self.session,
                "session_start": self.session_start if self.session else 0,
                "boot_id": self.effects.boot_id,
                "invocation": self.invocation,
                "digest": self.digest,
                "state": machine.state.value,
                "reason": machine.reason.value,
                "detail": machine.detail,
                "wanted": machine.wanted.value,
                "asked_down": self.asked_down,
                "after": machine.after,
                "outcome": machine.outcome,
                "ready": machine.is_ready,
                "health": machine.health.value,
                "failures": machine.failures,
                "restarts": machine.restarts,
                "window": [round(t, 1) for t in machine.window.times()[-20:]],
                "started_at": machine.started_at,
                "running_since": machine.running_since,
                "next_start_at": machine.next_start_at,
                "since": self.since,
                "since_wall": self.since_wall,
                "uid": self.uid,
            },
        )

    def close(self) -> None:
        """Give everything back: the instance is no more."""
        for timer in list(self._timers):
            self.disarm(timer)
        self._record_due = False
        self._release_pidfd()
        self.attendants.close()
        self.output.close()
        self._record.close(remove=True)
        if self.cgroup is not None:
            self.cgroup.remove()
