"""The one rule for where atlasd's folders are, for the daemon and everything that looks for it."""

import os
import stat
from collections.abc import Mapping
from typing import NamedTuple

from atlasd.errors import AtlasError

# `atlasctl status` loads this and little else: no dataclasses, no pathlib. The XDG rules are spelt
# out for the same reason: they are four environment variables, and the library for it is an import
# that neither it nor the services role can afford.

CONTROL_SOCKET = "control.sock"
"""Name of core's socket in the `run` folder."""


class Folders(NamedTuple):
    """The four folders of one atlasd, as absolute paths; `atlasd.paths.Paths` says what for."""

    etc: str
    state: str
    run: str
    log: str


def folders(
    *,
    root: str | None = None,
    environ: Mapping[str, str] | None = None,
    uid: int | None = None,
) -> Folders:
    """The folders of the atlasd below `root`, else of the one that the environment points to.

    See `atlasd.paths.find`, which follows it.
    """
    environ = os.environ if environ is None else environ
    uid = os.geteuid() if uid is None else uid
    below = root or environ.get("ATLASD_ROOT")
    if below:
        base = os.path.abspath(below)
        return Folders(
            etc=os.path.join(base, "etc"),
            state=os.path.join(base, "state"),
            run=os.path.join(base, "run"),
            log=os.path.join(base, "log"),
        )
    if uid == 0 or environ.get("ATLASD_SYSTEM") == "1":
        return Folders(
            etc="/etc/atlasd", state="/var/lib/atlasd", run="/run/atlasd", log="/var/log/atlasd"
        )
    state = os.path.join(_xdg("XDG_STATE_HOME", ".local/state", environ, uid), "atlasd")
    runtime = _runtime_dir(environ, uid)
    return Folders(
        etc=os.path.join(_xdg("XDG_CONFIG_HOME", ".config", environ, uid), "atlasd"),
        state=state,
        run=os.path.join(runtime, "atlasd") if runtime else os.path.join(state, "run"),
        log=os.path.join(state, "log"),
    )


def _xdg(variable: str, otherwise: str, environ: Mapping[str, str], uid: int) -> str:
    # The XDG specification has relative paths ignored: they'd mean another folder at each call.
    given = environ.get(variable, "")
    return given if os.path.isabs(given) else os.path.join(_home(environ, uid), otherwise)


def _home(environ: Mapping[str, str], uid: int) -> str:
    given = environ.get("HOME", "")
    if os.path.isabs(given):
        return given
    import pwd

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        raise AtlasError(
            "daemon.directory",
            f"user {uid} has no home folder: HOME is not set and the user database has no entry",
            hint="set HOME, or put everything under one folder with --root DIR",
        ) from None


def _runtime_dir(environ: Mapping[str, str], uid: int) -> str | None:
    """The user's runtime folder, or None: never one that another user could have laid out.

    `su` and `sudo -E` hand on the caller's XDG_RUNTIME_DIR, and cron sets none: so what the
    variable says is believed only if the folder is the user's own, and the usual place is tried
    next, by the daemon and by atlasctl alike.
    """
    for folder in (environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if not os.path.isabs(folder):
            continue
        try:
            found = os.stat(folder)
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o022:
            return folder
    return None
