"""The commands beside one instance's program: before and after its start, and its end."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from atlasd.services import launcher
from atlasd.services.commands import Cancellable, Finished
from atlasd.services.spec import Hook

if TYPE_CHECKING:
    from atlasd.services.unit import Unit


class Hooks:
    """Runs them one after the other, each within its time limit and as the service's user."""

    def __init__(self, unit: "Unit") -> None:
        self._unit = unit
        self._launching: Cancellable | None = None

    def env(self, what: str) -> dict[str, str]:
        """The environment of such a command: the program's own, and which command it is."""
        unit = self._unit
        return launcher.environment(
            unit.machine.spec,
            index=unit.index,
            invocation=unit.invocation,
            secrets_dir=unit.service.deliveries.files.path,
            extra={launcher.HOOK: what},
        )

    def before_start(self, then: Callable[[str], None]) -> None:
        """Run pre_start; `then` is told what went wrong, or "". A failure ends it."""
        hooks = self._unit.machine.spec.pre_start

        def run(left: Sequence[Hook]) -> None:
            if not left:
                then("")
                return

            def finished(result: Finished) -> None:
                self._launching = None
                if result.ok:
                    run(left[1:])
                else:
                    then(_problem("pre_start", left[0], result))

            self._launching = self._start("pre_start", left[0], finished)

        run(hooks)

    def abandon(self) -> None:
        """The start was called off: end what pre_start is about."""
        if self._launching is not None:
            self._launching.cancel()
            self._launching = None

    def after_start(self) -> None:
        """Run post_start beside the program, all at once."""
        for hook in self._unit.machine.spec.post_start:
            self._run("post_start", [hook], lambda: None)

    def before_stop(self, then: Callable[[], None]) -> None:
        """Run the drain command and pre_stop, for the process that there is.

        `then` isn't called when that has ended meanwhile: what was begun goes on for itself.
        """
        unit = self._unit
        spec, invocation = unit.machine.spec, unit.invocation
        hooks = list(spec.pre_stop)
        if spec.stop.drain:
            hooks.insert(0, Hook(command=spec.stop.drain, timeout=spec.stop.drain_timeout))

        def done() -> None:
            if unit.invocation == invocation:
                then()

        self._run("pre_stop", hooks, done)

    def after_stop(self, then: Callable[[], None]) -> None:
        """Run post_stop, and `then`."""
        self._run("post_stop", self._unit.machine.spec.post_stop, then)

    def reload(self, then: Callable[[str], None]) -> None:
        """Run the reload command; `then` is told what went wrong, or "".

        It isn't called when the process has ended meanwhile.
        """
        unit = self._unit
        spec, invocation = unit.machine.spec, unit.invocation
        hook = Hook(command=spec.reload.command, timeout=spec.reload.timeout)

        def finished(result: Finished) -> None:
            if unit.invocation == invocation:
                then("" if result.ok else _problem("reload", hook, result))

        self._start("reload", hook, finished)

    def _run(self, what: str, hooks: Sequence[Hook], then: Callable[[], None]) -> None:
        """Run them all, whether they fail or not; a failure is told."""
        if not hooks:
            then()
            return

        def finished(result: Finished) -> None:
            if not result.ok:
                self._unit.supervisor.journal.add(
                    "hook",
                    service=self._unit.service.name,
                    instance=self._unit.index,
                    detail=_problem(what, hooks[0], result),
                )
            self._run(what, hooks[1:], then)

        self._start(what, hooks[0], finished)

    def _start(self, what: str, hook: Hook, finished: Callable[[Finished], object]) -> Cancellable:
        unit = self._unit
        spec = unit.machine.spec
        try:
            unit.output.own(unit.uid)
            heard: Callable[[bytes], object] | None = unit.output.say
        except OSError:
            heard = None  # no pipe can be made: said when the program itself is to be started
        env = self.env(what)
        if unit.pid is not None:
            env["MAINPID"] = str(unit.pid)

        def ended(result: Finished) -> None:
            if heard is not None and result.output and not result.output.endswith(b"\n"):
                heard(b"\n")
            finished(result)

        return unit.effects.commands.run(
            [launcher.with_index(a, unit.index) for a in hook.command],
            on_exit=ended,
            env=env,
            cwd=launcher.with_index(spec.cwd, unit.index),
            user=spec.user,
            group=spec.group,
            timeout=hook.timeout,
            # Beside what the program itself says, where people look: a migration that fails, say.
            on_output=heard,
            redactor=lambda: unit.output.redactor,
        )


def _problem(what: str, hook: Hook, result: Finished) -> str:
    said = result.last_line()
    return f"{what} {hook.command[0]}: {result.describe()}" + (f": {said}" if said else "")
