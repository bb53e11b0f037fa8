"""Where atlasd's files are: system folders for root, the user's own otherwise, or all under one."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from atlasd.errors import AtlasError
from atlasd.folders import CONTROL_SOCKET, folders

# Strings, not pathlib: the services role and atlasctl load this module, and pathlib would cost
# them memory and start-up time.

SOCKET_PATH_MAX = 107
"""Bytes that the kernel takes for the path of a unix socket (sun_path, less its final NUL)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """The four folders of one atlasd, as absolute paths, and what lies in them."""

    etc: str
    """What the operator writes: configuration, plugins."""
    state: str
    """What must outlive a reboot: the database, releases, secrets."""
    run: str
    """What must not: sockets, records of processes. On tmpfs where the host has it."""
    log: str
    """Captured output, one folder a service."""
    config: str | None = None
    """A configuration file named on the command line, in place of the one in `etc`."""

    @property
    def config_file(self) -> str:
        """The main configuration file."""
        return self.config or os.path.join(self.etc, "atlasd.toml")

    @property
    def config_parts(self) -> str:
        """The folder of further configuration files, beside the main one."""
        return os.path.join(os.path.dirname(self.config_file), "conf.d")

    @property
    def environments(self) -> str:
        """The folder of environment files, beside the main configuration file."""
        return os.path.join(os.path.dirname(self.config_file), "environments")

    @property
    def hosts(self) -> str:
        """The folder of host files, beside the main configuration file."""
        return os.path.join(os.path.dirname(self.config_file), "hosts")

    @property
    def variables(self) -> str:
        """The file of settings as variables, beside the main configuration file."""
        return os.path.join(os.path.dirname(self.config_file), "atlasd.env")

    @property
    def plugins_dir(self) -> str:
        """The folder of drop-in plugins.

        `--config` doesn't move it: a plugin runs as the daemon, so where one may lie is never
        decided by the place of a configuration file.
        """
        return os.path.join(self.etc, "plugins.d")

    @property
    def database(self) -> str:
        """The daemon's own SQLite file."""
        return os.path.join(self.state, "atlasd.db")

    @property
    def control_socket(self) -> str:
        """Where core is asked."""
        return os.path.join(self.run, CONTROL_SOCKET)

    @property
    def services_socket(self) -> str:
        """Where core asks the services role."""
        return os.path.join(self.run, "services.sock")

    def prepare(self) -> None:
        """Make the folders that atlasd writes to, where they are missing.

        `state` is the daemon's alone; `log` may be read by its group; `run` can be entered by
        everybody, since the sockets in it have rights of their own. Raises `AtlasError`
        `daemon.directory` for one that cannot be made.
        """
        for folder, mode in ((self.state, 0o700), (self.run, 0o755), (self.log, 0o750)):
            try:
                os.makedirs(folder, mode=mode, exist_ok=True)
            except OSError as error:
                raise AtlasError(
                    "daemon.directory",
                    f"{folder}: cannot be made: {error.strerror}",
                    hint="make it and give it to the user who runs atlasd, or use --root DIR",
                ) from error


def find(
    *,
    root: str | None = None,
    config: str | None = None,
    environ: Mapping[str, str] | None = None,
    uid: int | None = None,
) -> Paths:
    """The paths by the one rule that daemon and command line share.

    `root` (`--root`), else `ATLASD_ROOT`, puts everything under one folder; otherwise root has the
    system's folders and anybody else the XDG ones. `ATLASD_SYSTEM=1` gives the system's folders to
    another user: systemd's units set it, for the roles that run without root. `config`
    (`--config`) replaces the main configuration file. `environ` and `uid` are the process's own
    unless given.
    Raises `AtlasError` `daemon.directory` when a socket's path would be too long for the kernel.
    """
    found = folders(root=root, environ=environ, uid=uid)
    chosen = os.path.abspath(config) if config else None
    paths = Paths(etc=found.etc, state=found.state, run=found.run, log=found.log, config=chosen)
    check_socket_path(paths.services_socket)
    return paths


def check_socket_path(path: str) -> None:
    """Refuse a path that no unix socket can have, before `bind` says `AF_UNIX path too long`."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_MAX:
        raise AtlasError(
            "daemon.directory",
            f"{path}: the path of a unix socket may have {SOCKET_PATH_MAX} bytes, "
            f"this one has {length}",
            hint="choose a shorter --root (or ATLASD_ROOT)",
        )
