"""One instance with its process: the hands of its state machine."""

import os
import secrets
import signal as signals
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

from atlasd.services import crash, launcher, spawn, sweep
from atlasd.services.attendants import Attendants
from atlasd.services.cgroup import Cgroup
from atlasd.services.crash_note import note_crash
from atlasd.services.deliveries import Handed
from atlasd.services.hooks import Hooks
from atlasd.services.instance import Machine
from atlasd.services.instance_cgroup import InstanceCgroup
from atlasd.services.instance_output import InstanceOutput
from atlasd.services.instance_record import record_of
from atlasd.services.loop import Timer
from atlasd.services.main_process import MainProcess
from atlasd.services.records import RecordFile
from atlasd.services.restart import Exit
from atlasd.services.rolling import SETTLING
from atlasd.services.signals import signal_number
from atlasd.services.sockets import SocketError
from atlasd.services.spec import ServiceSpec
from atlasd.services.sweep import Sweep
from atlasd.spellings import as_bytes
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
        self.process = MainProcess(self)
        self.invocation = ""
        self.started_wall = 0.0
        self.digest = ""
        self.handed = Handed(self)
        self._delivering = ""
        """Digest of what a reload under way is about; empty when it is about nothing new."""
        self.delivery_problem = ""
        """Why the last `deliver` did not succeed; empty when it did, or goes on."""
        self.uid: int | None = None
        self.confinement = InstanceCgroup(self.effects, service.name, index, self._say_unmet)
        self.since_wall = supervisor.clock.wall()
        self.since = supervisor.clock.monotonic()
        self.status_text = ""
        self.leftovers: list[int] = []
        self.output = InstanceOutput(self.effects, service.spec.log, service.name, index)
        self.attendants = Attendants(self)
        self._record = RecordFile(self.effects.records_dir, service.name, index)
        self._traffic = Traffic.OUT
        """As it was last told."""
        self._why_traffic = ""
        self._timers: dict[str, Timer] = {}
        self.hooks = Hooks(self)
        self._sweep: Sweep | None = None
        self.counted_restarts = 0
        """Of the machine's restarts, those that the service's counters know."""
        self.pending_exit = False
        """It ended under a predecessor, and how is still to be found out."""

    @property
    def pid(self) -> int | None:
        """Of the main process; null when there is none."""
        return self.process.pid

    @property
    def cgroup(self) -> Cgroup | None:
        """That of its processes; null where this host has none for us, or none was needed yet."""
        return self.confinement.cgroup

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
            self.confinement.limit(spec.limits)
        self.attendants.updated(before, spec)

    # ------------------------------------------------------------------ Hands: launching

    def launch(self) -> None:
        """Run the pre_start hooks, then the program."""
        self.machine.spec = spec = self.service.spec
        self.invocation = secrets.token_hex(16)
        self.status_text = ""
        self.leftovers = []
        self.output.keep_out(spec.secrets, anew=True)
        if spec.pre_start:
            self.write_record()  # a successor would have to end what the hooks have begun
            try:
                self.hand_files()  # which the hooks are told of too
            except (spawn.SpawnError, ValueError) as error:
                self._spawn(str(error))
                return
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
        else:
            self._watch()

    def _spawn_failed(self, detail: str) -> None:
        self.attendants.dismiss()
        detail = self.clean(detail)
        # A file is not worth more at a failed start than at a real one: told, counted, kept.
        note_crash(self, Reason.SPAWN, detail, Exit())
        self.machine.spawn_failed(self.now, detail)

    def hand_files(self) -> None:
        """Have the files that it is handed be the newest. Raises `SpawnError`, `ValueError`."""
        spec = self.service.spec
        self.service.deliveries.hand_files(spawn.account(spec.user, spec.group))

    def _start_process(self, spec: ServiceSpec) -> None:
        who = spawn.account(spec.user, spec.group)
        self.uid = who.uid if who is not None else os.geteuid()
        sockets = self.service.listening()
        self.attendants.stored.take_back()
        if spec.ready is None or spec.ready.kind != "fd":  # whose number they could come upon
            sockets += self.attendants.stored.entries()
        self.confinement.enter(spec.limits)
        self.output.own(self.uid)
        ready_fd = self.attendants.prepare(spec, self.uid)
        self.service.deliveries.hand_files(who)
        numbers = launcher.numbers(spec, len(sockets)) if spec.deliveries else {}
        env = launcher.environment(
            spec,
            index=self.index,
            invocation=self.invocation,
            account=who,
            notify_path=self.attendants.notify_path,
            socket_names=[name for name, _ in sockets],
            secrets_dir=self.service.deliveries.files.path,
            extra={f"{name}_FD": str(number) for name, number in numbers.items()},
        )
        out, err = self.output.child_ends()
        self.handed.everything()
        self.write_record()  # from here on a successor would look for the invocation
        ours: dict[str, int] = {}
        try:
            ours = self.service.deliveries.seal() if numbers else ours
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
                    handed={numbers[name]: fd for name, fd in ours.items()},
                )
            )
        finally:
            for fd in (out, err, *ours.values()):
                os.close(fd)
        self.supervisor.spawns_total += 1
        self.digest = self.service.digest
        self.started_wall = self.supervisor.clock.wall()
        self.process.started(pid)

    def _watch(self) -> None:
        # Whatever goes wrong from here on, the program runs.
        try:
            self.machine.spawned(self.now)
            self.record_soon()
            self.attendants.attend()
            self.hooks.after_start()
        except Exception:  # noqa: BLE001  see above
            self.loop.report(f"{self.service.name}: {traceback.format_exc()}")

    def main_process_is(self, pid: int, pidfd: int) -> None:
        """The program named another process of its own as its main one; see `MainProcess`."""
        self.process.becomes(pid, pidfd)
        self.write_record()

    def leave_cgroup(self) -> None:
        """The host's cgroups have changed: the next process starts where they are now."""
        if not self.machine.live:
            self.confinement.leave()

    def _say_unmet(self, names: "Sequence[str]") -> None:
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
        self.process.send(number)
        if number in sweep.WAKES:
            self.process.send(signals.SIGCONT)
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

    # ------------------------------------------------------------------ what it is handed

    def deliver(self, how: str, detail: str, actor: str) -> None:
        """Tell the running program, by signal or reload, that its files are new."""
        self.delivery_problem = ""
        spec, machine = self.service.spec, self.machine
        try:
            self.hand_files()
        except (spawn.SpawnError, ValueError) as error:
            self.delivery_problem = str(error)
            return
        # Probes that ask at once would find the program as it was.
        self.loop.call_later(SETTLING, self._settled)
        if how == "signal":
            self.signal(spec.on_change.signal, everyone=False)
            self.handed.what_can_be(f"{spec.on_change.signal} was sent", files=True)
        elif spec.reload.kind == "none":
            self.delivery_problem = "the service declares no way to reload"
        else:
            self._delivering = self.service.deliveries.digest
            machine.begin_reload(self.now, reason=Reason.DELIVERY, detail=detail, actor=actor)

    def swap_files(self) -> None:
        """Exchange the files under the running program, and tell it nothing."""
        try:
            self.hand_files()
        except (spawn.SpawnError, ValueError) as error:
            self.supervisor.journal.add(
                "roll-halted",
                service=self.service.name,
                instance=self.index,
                reason=Reason.DELIVERY.value,
                detail=str(error),
            )
        else:
            self.handed.what_can_be("files were exchanged", files=True)

    def _settled(self) -> None:
        self.attendants.ask_again()
        self.supervisor.rolls.step(self.service.name)

    def _reload_ended(self, new: Lifecycle) -> None:
        about, self._delivering = self._delivering, ""
        # What is newer than this reload has a turn of its own.
        if not about or about != self.service.deliveries.digest or new is not Lifecycle.RUNNING:
            return
        self.delivery_problem = self.machine.reload_problem
        if not self.delivery_problem:
            self.handed.what_can_be("reloaded", files=True)

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
        self.process.release()
        self.attendants.dismiss()
        if exit_.signal == signals.SIGKILL and self.confinement.ran_out_of_memory():
            exit_ = replace(exit_, oom=True)
            self.service.oom_kills_total += 1
        self.service.last_exit = self.supervisor.clock.wall()
        planned = before is Lifecycle.STOPPING and machine.stop_was_asked_for
        cause, detail = machine.reason, machine.detail
        last_output = [] if planned else self.output.tail(crash.LAST_LINES, self.started_wall)
        self.record_soon()
        machine.exited(now, exit_, lost=lost)
        self.service.deliveries.sweep_soon()
        if planned or machine.exit_was_expected:
            return
        if before is not Lifecycle.STOPPING:
            cause, detail = machine.exit_reason
        note_crash(self, cause, detail, exit_, uptime=uptime, pid=pid, last=last_output)

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
        self.record_soon()
        self.since = self.now
        self.since_wall = self.supervisor.clock.wall()
        if new is Lifecycle.STARTING and self.machine.restarts > self.counted_restarts:
            self.counted_restarts = self.machine.restarts
            self.service.count_restart(self.machine.exit_reason[0].value)
        if new is Lifecycle.RUNNING and old is Lifecycle.STARTING:
            self.attendants.is_running()
        if old is Lifecycle.RELOADING:
            self._reload_ended(new)
        self.supervisor.moved(self, old, new)

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

    def clean(self, text: str) -> str:
        """The text without the secrets that the instance was given: for all that is told of it."""
        raw = as_bytes(text)
        clean = self.output.redactor.redact(raw)
        return text if clean is raw else clean.decode(errors="replace")

    def record_soon(self) -> None:
        """Keep what a successor needs once this turn is over, before anybody is told of it."""
        self.supervisor.record_soon(self)

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

    def turn_is_over(self) -> None:
        """What came of this turn is written down and told."""
        self.write_record()
        self._tell_traffic()

    def write_record(self) -> None:
        """Keep what a successor needs, now."""
        self.supervisor.keep(self._record.write, record_of(self))

    def close(self) -> None:
        """Give everything back: the instance is no more."""
        for timer in list(self._timers):
            self.disarm(timer)
        self.supervisor.records_due.discard(self)
        self.process.release()
        self.attendants.close()
        self.output.close()
        self._record.close(remove=True)
        self.confinement.leave()
