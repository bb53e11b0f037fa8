"""Those who watch one running instance: readiness, liveness, watchdog, and its notify socket."""

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from atlasd.services import launcher, procinfo
from atlasd.services.loop import Timer
from atlasd.services.notifysock import Message, NotifySocket
from atlasd.services.probes import Prober
from atlasd.services.probing import OnVerdict, Verdict
from atlasd.services.readiness import LogProbe, ReadyPipe, UptimeProbe
from atlasd.services.spec import Probe, ServiceSpec
from atlasd.services.stored import Stored
from atlasd.states import Health, Lifecycle, Reason, Wanted

if TYPE_CHECKING:
    from atlasd.services.unit import Unit

LOOK_BACK = 200
"""Lines of output in which an adopted instance is looked for the one that says it is ready."""
ASKED = ("tcp", "http", "exec", "file")


class Attendants:
    """The watchers of one instance; `attend` after the start, `dismiss` after the end."""

    def __init__(self, unit: "Unit") -> None:
        self._unit = unit
        self._socket: NotifySocket | None = None
        self._pipe: ReadyPipe | None = None
        self._ready: Prober | LogProbe | UptimeProbe | ReadyPipe | None = None
        self._live: Prober | None = None
        self._watchdog: Timer | None = None
        self._watchdog_seconds = 0.0
        self._alive_at = 0.0
        self.stored = Stored(unit.effects.held, unit.service.name, unit.index)
        self.refused_messages = 0

    @property
    def notify_path(self) -> str | None:
        """What NOTIFY_SOCKET is to be; null when the service doesn't speak."""
        return self._socket.address if self._socket is not None else None

    # ------------------------------------------------------------------ beginning and end

    def prepare(self, spec: ServiceSpec, uid: int | None) -> int | None:
        """Open what the program is told of before it starts; its end of the readiness pipe."""
        unit = self._unit
        if launcher.wants_notify(spec):
            self.listen()
        else:
            self._close_socket()
        if spec.ready is not None and spec.ready.kind == "fd":
            self._pipe = ReadyPipe(unit.loop, self._pipe_path, on_verdict=self._ready_verdict)
            # A program closes its end once it has written its newline: a peer's duplicate keeps
            # that for a successor.
            unit.effects.held.hold(self._pipe_name, self._pipe.fileno())
            return self._pipe.child_fd()
        return None

    @property
    def _pipe_path(self) -> str:
        unit = self._unit
        return f"{unit.effects.notify_dir}/{unit.service.name}.{unit.index}.fd"

    @property
    def _pipe_name(self) -> str:
        return f"ready/{self._unit.service.name}/{self._unit.index}"

    def listen(self) -> None:
        """Open the notify socket: at the same path again for an instance that was adopted."""
        if self._socket is None:
            unit = self._unit
            path = f"{unit.effects.notify_dir}/{unit.service.name}.{unit.index}"
            held = unit.effects.held
            fd = held.take(self._socket_name)
            self._socket = NotifySocket(unit.loop, path, self._told, fd=fd)
            held.hold(self._socket_name, self._socket.fileno())

    @property
    def _socket_name(self) -> str:
        return f"notify/{self._unit.service.name}/{self._unit.index}"

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._unit.effects.held.drop(self._socket_name)
            self._socket.close()
            self._socket = None

    def take_back(self) -> None:
        """A peer has given descriptors back: what is stored, and what was said meanwhile."""
        self.stored.take_back()
        unit = self._unit
        fd = unit.effects.held.take(self._socket_name) if self._socket is not None else None
        if fd is not None:
            # Our own socket has its path by now; in the old one stands what was sent while nobody
            # was there to hear it.
            old = NotifySocket(unit.loop, "", self._told, fd=fd)
            old.drain()
            old.close()

    def relisten(self, spec: ServiceSpec) -> None:
        """Open the notify socket of an adopted instance at the path that its program knows."""
        if launcher.wants_notify(spec):
            self.listen()

    def attend(self, *, adopted: bool = False, health: Health = Health.UNKNOWN) -> None:
        """Begin to watch a process; `health` is what a predecessor had found."""
        spec = self._unit.machine.spec
        self._start_ready(spec, adopted=adopted)
        running = self._unit.machine.state is not Lifecycle.STARTING
        if adopted and running and self._live is None:  # else see `is_running`
            self._start_live(spec, health)
        if spec.watchdog is not None:
            self._watch(spec.watchdog)

    def is_running(self) -> None:
        """The instance has come up: only now it can be asked whether it lives.

        Before, the start's own time limit holds; a liveness that asks whoever is still on the way
        up would end it long before.
        """
        if self._live is None:
            self._start_live(self._unit.machine.spec, Health.UNKNOWN)

    @property
    def _probers(self) -> list[Prober]:
        return [one for one in (self._ready, self._live) if isinstance(one, Prober)]

    def ask_again(self) -> None:
        """Have the probes ask at once."""
        for prober in self._probers:
            prober.ask_again()

    def passed_since(self, moment: float) -> bool:
        """Whether every probe has asked since then, and had no bad answer (or could not ask)."""
        return all(prober.passed_at >= moment for prober in self._probers)

    def hear_out(self) -> None:
        """The process has ended: take what it said last, before it is judged."""
        if self._socket is not None:
            self._socket.drain()

    def dismiss(self) -> None:
        """The process has ended."""
        self._stop_ready()
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def updated(self, before: ServiceSpec, spec: ServiceSpec) -> None:
        """The definition of a running instance has changed."""
        if before.ready != spec.ready:
            self._stop_ready()
            self._start_ready(spec, adopted=True)
            if spec.ready is None:
                self._unit.machine.ready(self._unit.now)
        if before.live != spec.live:
            if self._live is not None:
                self._live.stop()
                self._live = None
            self._unit.machine.health = Health.UNKNOWN
            if self._unit.machine.state is not Lifecycle.STARTING:
                self._start_live(spec, Health.UNKNOWN)
        self._unit.supervisor.dependencies.changed(self._unit.service.name)

    def close(self) -> None:
        """The instance is no more."""
        self.dismiss()
        self._close_socket()
        self.stored.close()

    # ------------------------------------------------------------------ readiness

    def _start_ready(self, spec: ServiceSpec, *, adopted: bool) -> None:
        try:
            self._begin_ready(spec, adopted=adopted)
        except (OSError, ValueError) as error:
            # As with a probe that cannot run: it says nothing of the service.
            self._stop_ready()
            self._tell("health", new="unknown", detail=f"readiness cannot be looked at: {error}")
            self._unit.machine.ready(self._unit.now)

    def _begin_ready(self, spec: ServiceSpec, *, adopted: bool) -> None:
        probe, unit = spec.ready, self._unit
        if probe is None or probe.kind == "notify":
            return
        was_ready = unit.machine.is_ready
        if probe.kind in ASKED:
            known = Health.PASS if adopted and was_ready else Health.UNKNOWN
            self._ready = self._prober(probe, self._ready_verdict, known)
        elif was_ready:
            return
        elif probe.kind == "uptime":
            self._ready = UptimeProbe(
                unit.loop,
                probe.seconds,
                started=unit.machine.started_at,
                on_verdict=self._ready_verdict,
            )
        elif probe.kind == "log":
            watcher = LogProbe(probe.target, on_verdict=self._ready_verdict)
            unit.output.tap(watcher.feed)
            self._ready = watcher
            if adopted:  # it may have said so while nobody listened, or just before
                unit.loop.call_soon(self._look_back)
        elif probe.kind == "fd":
            if adopted and not os.path.exists(self._pipe_path):
                unit.machine.ready(unit.now)  # a predecessor has read it, and died of something
                return
            if self._pipe is None:  # adopted before it was ready: the same pipe, by its path
                self.prepare(spec, unit.uid)
            assert self._pipe is not None
            self._ready, self._pipe = self._pipe, None
            self._ready.spawned()
        if self._ready is not None:
            self._ready.start()

    def _look_back(self) -> None:
        for line in self._unit.output.tail(LOOK_BACK, self._unit.started_wall):
            if isinstance(self._ready, LogProbe):
                self._ready.feed(line.encode() + b"\n", "before")

    def _stop_ready(self) -> None:
        if isinstance(self._ready, LogProbe):
            self._unit.output.tap(None)
        self._unit.effects.held.drop(self._pipe_name)
        for watcher in (self._ready, self._pipe):
            if watcher is not None:
                watcher.stop()
        self._ready = self._pipe = None

    def _ready_verdict(self, verdict: Verdict) -> None:
        unit = self._unit
        machine = unit.machine
        self._warn("readiness", verdict)
        unit.supervisor.rolls.step_soon(unit.service.name)
        if isinstance(self._ready, ReadyPipe):
            unit.effects.held.drop(self._pipe_name)
        probe = machine.spec.ready
        broken = probe is not None and verdict.state.unable >= max(probe.fail_after, 1)
        if machine.state is Lifecycle.STARTING and broken:
            # A probe that cannot run says nothing of the service, which must not be restarted for
            # it; by its least uptime it counts as up, and the warning stands.
            machine.ready(unit.now)
            machine.health = Health.WARN
        elif verdict.health in (Health.PASS, Health.WARN) and verdict.state.settled:
            if machine.is_ready and machine.state is Lifecycle.RUNNING:
                return
            machine.ready(unit.now)
        elif verdict.health is Health.FAIL and machine.is_ready:
            machine.unready()
        else:
            return
        if isinstance(self._ready, LogProbe):
            unit.output.tap(None)
        if machine.state in (Lifecycle.RUNNING, Lifecycle.RELOADING):
            unit.traffic_may_differ(verdict.result.detail)
            unit.supervisor.dependencies.changed(unit.service.name)

    # ------------------------------------------------------------------ liveness

    def _start_live(self, spec: ServiceSpec, health: Health) -> None:
        if spec.live is None:
            return
        try:
            self._live = self._prober(spec.live, self._live_verdict, health, hurried=False)
        except (OSError, ValueError) as error:
            self._tell("health", new="unknown", detail=f"liveness cannot be looked at: {error}")
        else:
            self._live.start()

    def _live_verdict(self, verdict: Verdict) -> None:
        unit = self._unit
        machine = unit.machine
        self._warn("liveness", verdict)
        unit.supervisor.rolls.step_soon(unit.service.name)
        if not verdict.changed or machine.state not in (
            Lifecycle.STARTING,
            Lifecycle.RUNNING,
            Lifecycle.RELOADING,
        ):
            return
        machine.health = verdict.health
        self._tell(
            "health",
            old=verdict.previous.value,
            new=verdict.health.value,
            detail=verdict.result.detail,
        )
        unit.supervisor.dependencies.changed(unit.service.name)
        if verdict.health is Health.FAIL:
            probe = machine.spec.live
            count = probe.fail_after if probe is not None else 0
            machine.unhealthy(
                unit.now,
                Reason.LIVENESS,
                f"liveness probe failed {count} times: {verdict.result.detail}",
            )

    def _prober(
        self, probe: Probe, on_verdict: OnVerdict, health: Health, *, hurried: bool = True
    ) -> Prober:
        unit = self._unit
        spec = unit.machine.spec
        return Prober(
            unit.loop,
            probe,
            started=unit.machine.started_at,
            on_verdict=lambda verdict: on_verdict(self._clean(verdict)),
            spawn=partial(unit.effects.commands.run, redactor=lambda: unit.output.redactor),
            env=unit.hooks.env("probe"),
            cwd=launcher.with_index(spec.cwd, unit.index),
            user=spec.user,
            group=spec.group,
            health=health,
            hurried=hurried,
        )

    def _clean(self, verdict: Verdict) -> Verdict:
        """The verdict without secrets: an address that is asked may hold one, or its answer."""
        detail = self._unit.clean(verdict.result.detail)
        return replace(verdict, result=replace(verdict.result, detail=detail))

    def _warn(self, what: str, verdict: Verdict) -> None:
        if verdict.warning and verdict.state.unable == 1:
            self._tell(
                "health", new="unknown", detail=f"{what} probe cannot run: {verdict.warning}"
            )

    # ------------------------------------------------------------------ notify

    def _told(self, message: Message) -> None:
        unit = self._unit
        machine = unit.machine
        said = message.notification
        if unit.pid is None or not self._is_ours(message.pid, message.pidfd):
            # Nobody of it is left to speak of, or it is somebody else.
            self.refused_messages += 1
            return
        self._keep_descriptors(message)
        if said.status is not None:
            unit.status_text = unit.clean(said.status)
        if said.errno is not None and 0 < said.errno < 4096:
            trouble = f"errno {said.errno}: {os.strerror(said.errno)}"
            unit.status_text = f"{unit.status_text} ({trouble})" if unit.status_text else trouble
        if said.main_pid is not None:
            self._main_process_is(said.main_pid)
        if said.extend_timeout_usec is not None:
            machine.extend_timeout(unit.now, said.extend_timeout_usec / 1e6)
        if said.watchdog_usec is not None:
            self._watch(said.watchdog_usec / 1e6)
        if said.watchdog == "trigger":
            machine.unhealthy(unit.now, Reason.WATCHDOG, "the program asked for it")
        elif said.watchdog:
            self._alive_at = unit.now
        if said.reloading:
            machine.begin_own_reload(unit.now)
        if said.stopping:
            machine.unready()
            unit.traffic_may_differ("the program says STOPPING=1")
            unit.supervisor.dependencies.changed(unit.service.name)
        if said.ready:
            machine.ready(unit.now, told=True)
            unit.traffic_may_differ("the program says READY=1")
            unit.supervisor.dependencies.changed(unit.service.name)

    def _main_process_is(self, pid: int) -> None:
        if pid == self._unit.pid:
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return  # it has ended already
        # Pinned first, then looked at, then looked at whether it is still there: what was looked
        # at is what is pinned.
        if self._is_ours(pid) and procinfo.send(pidfd, 0):
            self._unit.main_process_is(pid, pidfd)
        else:
            os.close(pidfd)

    def _is_ours(self, pid: int, pidfd: int | None = None) -> bool:
        """Whether a process belongs to the instance.

        One that has ended already, as a script's notifier may have, is known by the cgroup that
        its pidfd still names; without a cgroup it cannot prove itself.
        """
        unit = self._unit
        if pid == unit.pid:
            return True
        if unit.cgroup is not None:
            return unit.cgroup.holds(pid, pidfd)
        stat = procinfo.stat(pid)
        if stat is None:
            return False
        mark = f"{launcher.INVOCATION}={unit.invocation}".encode()
        leader = procinfo.stat(unit.process.session)
        same = leader is None or leader.start_time == unit.process.session_start
        return (same and stat.sid == unit.process.session) or procinfo.environment_has(pid, mark)

    def _keep_descriptors(self, message: Message) -> None:
        said = message.notification
        if said.fd_store_remove:
            self.stored.remove(said.fd_name)
        if said.fd_store:
            kept = self.stored.keep(said.fd_name or "stored", list(message.fds))
            del message.fds[:kept]  # the rest is closed by whoever has received it

    # ------------------------------------------------------------------ watchdog

    def _watch(self, seconds: float) -> None:
        if seconds <= 0:
            if self._watchdog is not None:
                self._watchdog.cancel()
            return
        self._watchdog_seconds = seconds
        self._alive_at = self._unit.now
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = self._unit.loop.call_later(seconds, self._watchdog_due)

    def _watchdog_due(self) -> None:
        # Pings only note the time; one timer looks at it when the interval is over.
        unit = self._unit
        left = self._alive_at + self._watchdog_seconds - unit.now
        if unit.machine.state is Lifecycle.STARTING or unit.machine.wanted is Wanted.PAUSED:
            left = self._watchdog_seconds
        if left > 0:
            self._watchdog = unit.loop.call_later(left, self._watchdog_due)
            return
        self._watchdog = None
        unit.machine.unhealthy(
            unit.now, Reason.WATCHDOG, f"no WATCHDOG=1 for {self._watchdog_seconds:g} s"
        )

    def _tell(self, kind: str, **fields: object) -> None:
        unit = self._unit
        unit.supervisor.journal.add(kind, service=unit.service.name, instance=unit.index, **fields)
