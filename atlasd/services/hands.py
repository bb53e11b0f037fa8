"""What the state machine of an instance asks for, and leaves to others to do."""

from typing import Protocol

from atlasd.states import Lifecycle


class Hands(Protocol):
    """The effects that a machine asks for. None of them may block."""

    def moved(self, old: Lifecycle, new: Lifecycle) -> None:
        """The state has changed; reason, detail and actor stand on the machine."""

    def launch(self) -> None:
        """Run the pre_start hooks and the program; `spawned` or `spawn_failed` is the answer."""

    def abandon_launch(self) -> None:
        """Forget a launch that has not yet come to a process."""

    def prepare_stop(self) -> None:
        """Run pre_stop and drain commands, then call `stop_prepared`."""

    def signal(self, name: str, *, everyone: bool) -> None:
        """Send a signal to the main process, or to all processes of the instance."""

    def sweep(self) -> None:
        """The main process is gone: end the rest, then call `gone`."""

    def reload(self) -> None:
        """Tell the running program to reload; `reloaded` or `reload_failed` is the answer."""

    def arm(self, timer: str, seconds: float) -> None:
        """Call `timer_fired(timer)` after so many seconds; replaces one of the same name."""

    def disarm(self, timer: str) -> None:
        """Forget the timer."""

    def blocked(self) -> str | None:
        """What a start would have to wait for, in words; null when nothing."""

    def take_budget(self) -> float:
        """Take a restart from the host's budget: 0.0, or the seconds until there is one."""
