"""What the supervisor's parts share: the loop, the folders, and those who do the work."""

from dataclasses import dataclass, field

from atlasd.services.cgroup import Cgroups
from atlasd.services.commands import Commands
from atlasd.services.held import Held
from atlasd.services.loop import Loop
from atlasd.services.output import Capture


@dataclass(kw_only=True, slots=True)
class Effects:
    """Made once by `main`, handed to everything that acts."""

    loop: Loop
    run_dir: str
    """The role's own folder in the run directory: records, pipes, sockets; 0700."""
    state_dir: str
    boot_id: str
    null: int
    """/dev/null, open for reading."""
    capture: Capture
    commands: Commands
    held: Held
    cgroups: Cgroups | None = None
    """Null where no cgroup v2 subtree was delegated to us."""
    reduced: list[str] = field(default_factory=list)

    @property
    def records_dir(self) -> str:
        """Where the records of instances lie."""
        return f"{self.run_dir}/instances"

    @property
    def secrets_dir(self) -> str:
        """Where the files lie that services are handed, a folder for each service."""
        return f"{self.run_dir}/secrets"

    @property
    def notify_dir(self) -> str:
        """Where the notify sockets of instances lie; short, as socket paths are."""
        return f"{self.run_dir}/notify"
