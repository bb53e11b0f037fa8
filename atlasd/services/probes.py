"""Probes at work on the loop: each attempt has its own deadline, none overlaps, none blocks."""

import os
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from atlasd.services.commands import Cancellable, Finished, Spawn
from atlasd.services.dial import Address, Dial, Resolver, parse_endpoint
from atlasd.services.loop import Loop, Timer
from atlasd.services.probe_http import Exchange, HttpTarget, parse_url
from atlasd.services.probing import (
    OnVerdict,
    ProbeState,
    Result,
    Thresholds,
    Verdict,
    advance,
    next_delay,
)
from atlasd.services.spec import Probe
from atlasd.states import Health

CANNOT_RUN = frozenset({126, 127})
"""Exit codes by which shells and wrappers say that the command itself could not be run."""


class _Attempt(Protocol):
    def start(self) -> None: ...

    def cancel(self) -> None: ...

    def partial(self) -> Result | None:
        """What is known when the deadline comes; None: nothing, so it failed."""


class _Connect:
    """A tcp or http attempt: look up, connect, and for http ask."""

    def __init__(
        self,
        loop: Loop,
        done: Callable[[Result], object],
        *,
        resolver: Resolver,
        name: str,
        http: HttpTarget | None,
        statuses: Sequence[tuple[int, int]],
    ) -> None:
        self._loop = loop
        self._resolver = resolver
        self._name = name
        self._done = done
        self._http = http
        self._statuses = statuses
        self._dial: Dial | None = None
        self._exchange: Exchange | None = None

    def start(self) -> None:
        self._resolver.find(self._found)

    def _found(self, addresses: Sequence[Address], why: str) -> None:
        if not addresses:
            self._done(Result(health=Health.UNKNOWN, detail=why))
            return
        self._dial = Dial(self._loop, addresses, self._connected)
        self._dial.start()

    def _connected(self, sock: socket.socket | None, why: str, health: Health) -> None:
        if sock is None:
            self._resolver.forget()
            self._finish(Result(health=health, detail=why))
        elif self._http is None:
            sock.close()
            self._finish(Result(health=Health.PASS, detail="connected"))
        else:
            self._exchange = Exchange(self._loop, sock, self._http, self._statuses, self._finish)
            self._exchange.start()

    def _finish(self, result: Result) -> None:
        self._done(
            Result(health=result.health, detail=f"{self._name}: {result.detail}"),
        )

    def partial(self) -> Result | None:
        known = self._exchange.verdict() if self._exchange is not None else None
        return known and Result(health=known.health, detail=f"{self._name}: {known.detail}")

    def cancel(self) -> None:
        self._resolver.cancel()
        if self._dial is not None:
            self._dial.cancel()
        if self._exchange is not None:
            self._exchange.cancel()


class _Exec:
    """An exec attempt; the command's time limit is its deadline."""

    def __init__(self, run: Callable[[Callable[[Finished], object]], Cancellable]) -> None:
        self._run = run
        self._command: Cancellable | None = None
        self.done: Callable[[Result], object] = lambda _result: None

    def start(self) -> None:
        self._command = self._run(lambda finished: self.done(exec_result(finished)))

    def partial(self) -> Result | None:
        return None

    def cancel(self) -> None:
        if self._command is not None:
            self._command.cancel()


class _File:
    """A file attempt: does it exist."""

    def __init__(self, path: str, done: Callable[[Result], object]) -> None:
        self._path = path
        self._done = done

    def start(self) -> None:
        self._done(file_result(self._path))

    def partial(self) -> Result | None:
        return None

    def cancel(self) -> None:
        pass


def exec_result(finished: Finished) -> Result:
    """What a probe command's end means: 0 passes, 1 warns, any other code or a signal fails.

    One that could not be started, or that ended with 126 or 127 as shells do when they cannot run
    it, is unknown: a broken probe says nothing about the service.
    """
    said = finished.last_line()
    detail = f"{finished.describe()}: {said}" if said else finished.describe()
    if finished.error or (finished.code in CANNOT_RUN and not finished.timed_out):
        return Result(health=Health.UNKNOWN, detail=detail)
    if finished.timed_out:
        return Result(health=Health.FAIL, detail=detail)
    if finished.code == 0:
        return Result(health=Health.PASS, detail=said or "exit code 0")
    return Result(health=Health.WARN if finished.code == 1 else Health.FAIL, detail=detail)


def file_result(path: str) -> Result:
    """Pass when the file exists, fail when it doesn't, unknown when that cannot be found out."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Result(health=Health.FAIL, detail=f"{path} does not exist")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return Result(health=Health.UNKNOWN, detail=f"cannot look for {path}: {why}")
    return Result(health=Health.PASS, detail=f"{path} exists")


class Prober:
    """A probe that asks again and again: tcp, http, exec or file.

    `started` is the monotonic time at which the instance was started, which the start period
    counts from; `health` is the verdict to go on from, for an instance that was adopted. One that
    is `hurried` asks more often until the first pass, as is right for readiness; its failures come
    sooner too. `spawn` runs what exec needs, and the look-up of host names, in the service's
    `env`, `cwd` and as its `user` and `group`. Raises `ValueError` for a target that the probe
    cannot have.
    """

    def __init__(
        self,
        loop: Loop,
        probe: Probe,
        *,
        started: float,
        on_verdict: OnVerdict,
        spawn: Spawn | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        user: str | None = None,
        group: str | None = None,
        health: Health = Health.UNKNOWN,
        hurried: bool = True,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._loop = loop
        self._probe = probe
        self._started = started
        self._on_verdict = on_verdict
        self._thresholds = Thresholds.of(probe)
        self._state = ProbeState(
            health=health,
            settled=not hurried or health in (Health.PASS, Health.WARN, Health.FAIL),
        )
        self._uniform = uniform
        self._timer: Timer | None = None
        self._deadline: Timer | None = None
        self._attempt: _Attempt | None = None
        self._began = 0.0
        self._hurry = False
        self.passed_at = -1.0
        """When the last attempt began that did not fail; monotonic, negative if none has."""
        self._stopped = False
        self._make = self._maker(spawn, dict(env or {}), cwd, user, group)

    def _maker(
        self,
        spawn: Spawn | None,
        env: Mapping[str, str],
        cwd: str,
        user: str | None,
        group: str | None,
    ) -> Callable[[], _Attempt]:
        probe = self._probe
        if probe.kind == "file":
            return lambda: _File(probe.target, self._ended)
        if probe.kind in ("tcp", "http"):
            http = parse_url(probe.target) if probe.kind == "http" else None
            endpoint = http.endpoint if http is not None else parse_endpoint(probe.target)
            resolver = Resolver(endpoint, spawn, env)
            name = f"GET {probe.target}" if http is not None else str(endpoint)
            return lambda: _Connect(
                self._loop,
                self._ended,
                resolver=resolver,
                name=name,
                http=http,
                statuses=probe.statuses,
            )
        if probe.kind != "exec":
            raise ValueError(f"a probe of kind {probe.kind} does not ask, it is told")
        if spawn is None or not probe.command:
            raise ValueError("an exec probe needs a command, and somebody to run it")

        def run(on_exit: Callable[[Finished], object]) -> Cancellable:
            return spawn(
                probe.command,
                on_exit=on_exit,
                env=env,
                cwd=cwd,
                user=user,
                group=group,
                timeout=probe.deadline,
            )

        def make() -> _Attempt:
            attempt = _Exec(run)
            attempt.done = self._ended
            return attempt

        return make

    @property
    def state(self) -> ProbeState:
        """What is known so far."""
        return self._state

    def start(self) -> None:
        """Probe at once, then on, until `stop`."""
        self._fire()

    def ask_again(self) -> None:
        """Probe at once, or as soon as the attempt that is on its way has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._fire()
        else:
            self._hurry = True

    def stop(self) -> None:
        """End, whatever is on its way; no verdict comes any more."""
        self._stopped = True
        self._clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._began = self._loop.clock.monotonic()
        self._attempt = self._make()
        if self._probe.kind != "exec":  # a command is ended by its own time limit, gently
            self._deadline = self._loop.call_later(self._probe.deadline, self._expire)
        self._attempt.start()

    def _expire(self) -> None:
        late = Result(health=Health.FAIL, detail=f"no answer within {self._probe.deadline:g} s")
        if self._probe.target:
            late = Result(health=late.health, detail=f"{self._probe.target}: {late.detail}")
        known = self._attempt.partial() if self._attempt is not None else None
        self._ended(known or late)

    def _clear(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()

    def _ended(self, result: Result) -> None:
        if self._stopped:
            return
        self._clear()
        now = self._loop.clock.monotonic()
        took = now - self._began
        result = Result(health=result.health, detail=result.detail, seconds=took)
        verdict = advance(self._thresholds, self._state, result, age=now - self._started)
        self._state = verdict.state
        if result.health is not Health.FAIL:
            self.passed_at = self._began
        delay = next_delay(self._thresholds, self._state, took=took, uniform=self._uniform)
        if self._hurry:
            self._hurry, delay = False, 0.0
        self._timer = self._loop.call_later(delay, self._fire)
        # Later in this turn: what fails in there must not look like a failure of the probe.
        self._loop.call_soon(lambda: self._tell(verdict))

    def _tell(self, verdict: Verdict) -> None:
        if not self._stopped:
            self._on_verdict(verdict)
