"""All settings of all applications at once: from what is declared to what services are handed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from atlasd.contracts.applications import Complaint, DeclaredSet, DeclaredUse, Tools
from atlasd.settings.handed import Handed, hand
from atlasd.settings.sets import Ready, prepare


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What became of the declared sets, and of the services that want them."""

    sets: Mapping[str, Ready] = field(default_factory=dict)
    handed: Mapping[str, Handed] = field(default_factory=dict)
    complaints: tuple[Complaint, ...] = ()
    """With one that is no warning, nothing of all this may be used."""
    files: tuple[str, ...] = ()
    """Everything that was read: a change of one of them is a change of the settings."""
    awaited: tuple[str, ...] = ()
    """Files that need not exist, and don't: should one appear, that is a change too."""


class ApplicationSettings:
    """Does what `[settings.*]` declares; to be called from a thread, as it reads and may wait."""

    def __init__(self, *, run_dir: str, vet: bool = True) -> None:
        """`run_dir` is the daemon's folder on tmpfs, where rendered files are vetted.

        Without `vet` none of the commands is run that the configuration names for checking.
        """
        self._run_dir = run_dir
        self._vet = vet

    def __call__(
        self, declared: Sequence[DeclaredSet], uses: Iterable[DeclaredUse], tools: Tools
    ) -> Applied:
        """Everything, or everything that is wrong; nothing is raised for a user's mistake."""
        prepared = {one.name: prepare(one, tools, vet=self._vet) for one in declared}
        complaints = [c for one in prepared.values() for c in one.complaints]
        files = [file for one in prepared.values() for file in one.files]
        sets = {name: one.ready for name, one in prepared.items() if one.ready is not None}
        environment = declared[0].environment if declared else ""
        handed: dict[str, Handed] = {}
        for use in uses:
            wanted = [sets[name] for name in use.sets if name in sets]
            if len(wanted) != len(use.sets) or not all(one.complete for one in wanted):
                continue  # what is wrong with the others has been said
            found, wrong = hand(
                use, wanted, environment=environment, run_dir=self._run_dir, vet=self._vet
            )
            complaints += wrong
            if found is not None:
                handed[use.service] = found
                files += found.read
        return Applied(
            sets=sets,
            handed=handed,
            complaints=tuple(dict.fromkeys(complaints)),
            files=tuple(dict.fromkeys(files)),
            awaited=tuple(path for one in prepared.values() for path in one.awaited),
        )
