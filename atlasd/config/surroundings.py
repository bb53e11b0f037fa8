"""What a configuration refers to outside itself: accounts, programs, files."""

import errno
import grp
import os
import pwd
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atlasd.config import envfile
from atlasd.config.convert import environment
from atlasd.config.problems import Findings, Problem, dotted
from atlasd.config.rules import SET_BY_ATLASD, commands
from atlasd.config.service import Service
from atlasd.contracts.config import KeyPath


class Surroundings(Protocol):
    """The host, as far as validation asks about it; a test brings its own."""

    def has_user(self, user: str) -> bool:
        """Whether there is a user of this name or number."""

    def has_group(self, group: str) -> bool:
        """Whether there is a group of this name or number."""

    def has_program(self, word: str, *, search: str, cwd: str) -> bool:
        """Whether a command's first word can be run; `search` is a PATH."""

    def is_folder(self, path: str) -> bool:
        """Whether the path is a folder."""

    def is_root(self) -> bool:
        """Whether atlasd may run programs as other users."""

    def read(self, path: str) -> bytes:
        """The contents of a file; raises `OSError`."""


class ThisHost:
    """The host that this process runs on."""

    def has_user(self, user: str) -> bool:
        """See `Surroundings`. A number needs an entry too: supplementary groups come from it."""
        try:
            if user.isdecimal():
                pwd.getpwuid(int(user))
            else:
                pwd.getpwnam(user)
        except (KeyError, OverflowError):
            return False
        return True

    def has_group(self, group: str) -> bool:
        """See `Surroundings`. Any number will do: a process needs no name for its group."""
        if group.isdecimal():
            return True
        try:
            grp.getgrnam(group)
        except KeyError:
            return False
        return True

    def has_program(self, word: str, *, search: str, cwd: str) -> bool:
        """See `Surroundings`."""
        if "/" in word:
            return shutil.which(str(Path(cwd) / word)) is not None
        return shutil.which(word, path=search) is not None

    def is_folder(self, path: str) -> bool:
        """See `Surroundings`."""
        return os.path.isdir(path)  # noqa: PTH112  pathlib's raises where we may not look

    def is_root(self) -> bool:
        """See `Surroundings`."""
        return os.geteuid() == 0

    def read(self, path: str) -> bytes:
        """See `Surroundings`."""
        if Path(path).is_fifo():  # to open it would wait for a writer
            raise OSError(errno.EINVAL, "it is a named pipe, not a file")
        return Path(path).read_bytes()


# What the services role searches where a service has no PATH of its own.
SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the host had for one service."""

    variables: Mapping[str, str]
    """Of its environment files, the last one winning."""
    folder: str
    """Where the relative `cwd` of the service starts."""
    files: tuple[str, ...] = ()
    """Its environment files, those that need not exist included."""


def examine(
    services: Mapping[str, Service],
    findings: Findings,
    host: Surroundings,
    environ: Mapping[str, str],
    folder_of: Callable[[KeyPath], str],
) -> dict[str, Found]:
    """Hold the services against the host; what each gets from it, by name.

    `folder_of` gives the folder of the file that says a setting. An account that isn't there and
    an environment file that cannot be read are errors; a program or folder that isn't there may
    still come (a release, a pre_start hook), and is a warning.
    """
    found = {}
    for name, service in services.items():
        path: KeyPath = ("services", name)
        _accounts(service, path, findings, host)
        variables: dict[str, str] = {}
        files = []
        for index, file in enumerate(service.env_file):
            where = (*path, "env_file", index)
            files.append(str(Path(folder_of(where)) / file.removeprefix("-")))
            variables |= _env_file(file, where, findings, host, folder_of(where))
        folder = folder_of((*path, "cwd"))
        cwd = str(Path(folder) / service.cwd)
        if "{instance}" not in cwd and not host.is_folder(cwd):
            findings.add((*path, "cwd"), got=f"there is no folder {cwd}", warning=True)
        env = environment(service, files=variables, environ=environ)
        for below, words in commands(service):
            if "{instance}" not in words[0] and not host.has_program(
                words[0], search=env.get("PATH", SEARCHED), cwd=cwd
            ):
                findings.add(
                    (*path, *below),
                    got=f"there is no program {words[0]!r}",
                    hint="" if "/" in words[0] else f"searched: {env.get('PATH', SEARCHED)}",
                    warning=True,
                )
        found[name] = Found(variables=variables, folder=folder, files=tuple(files))
    return found


def _accounts(service: Service, path: KeyPath, findings: Findings, host: Surroundings) -> None:
    if service.user is not None and not host.has_user(service.user):
        findings.add(
            (*path, "user"),
            expected="a user of this host",
            hint=f"make it: useradd --system {service.user}" if service.user.isalpha() else "",
        )
    elif service.user is not None and not host.is_root():
        findings.add(
            (*path, "user"), got="only root can run a program as another user", warning=True
        )
    if service.group is not None and not host.has_group(service.group):
        findings.add(
            (*path, "group"),
            expected="a group of this host",
            hint=f"make it: groupadd --system {service.group}",
        )


def _env_file(
    file: str, where: KeyPath, findings: Findings, host: Surroundings, folder: str
) -> dict[str, str]:
    optional = file.startswith("-")
    path = str(Path(folder) / file.removeprefix("-"))
    try:
        text = host.read(path).decode()
    except FileNotFoundError:
        if not optional:
            hint = f'write "-{file}" if it need not exist'
            findings.add(where, expected="a file that exists", got=path, hint=hint)
        return {}
    except OSError as error:
        findings.add(where, expected="a file that can be read", got=f"{path}: {error.strerror}")
        return {}
    except UnicodeDecodeError:
        findings.add(where, expected="a file of UTF-8 text", got=path)
        return {}
    variables, faults = envfile.parse(text)
    for name in sorted(variables.keys() & SET_BY_ATLASD):
        findings.add(where, got=f"{path} sets {name}, which atlasd sets itself", hint="remove it")
    findings.problems += [
        Problem(
            file=path,
            line=fault.line,
            column=fault.column,
            key=f"{dotted(where[:-1])}",
            expected=fault.expected,
            got=fault.got,
            hint=fault.hint,
        )
        for fault in faults
    ]
    return variables
