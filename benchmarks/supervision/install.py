"""Peers, got through their own package managers into a scratch folder, the host left as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.supervision.supervisor import Unavailable


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False
        )
    except FileNotFoundError:
        raise Unavailable(f"needs {command[0]}") from None
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Unavailable(f"{Path(command[0]).name} failed: {' '.join(last)}")
    return done.stdout


def from_pip(cache: Path, package: str) -> Path:
    """Install a Python package into a virtual environment and give the folder of its commands."""
    place = cache / f"pip-{package}"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        _run(sys.executable, "-m", "venv", place)
        _run(place / "bin/python", "-m", "pip", "install", "--quiet", package)
        (place / "done").touch()
    return place / "bin"


def pip_version(commands: Path, package: str) -> str:
    """Give the version of a package that `from_pip` has installed."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return _run(commands / "python", "-c", code).strip()


def from_npm(cache: Path, package: str) -> Path:
    """Install a Node package and give the folder of its commands."""
    place = cache / f"npm-{package}"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", place, package)
        (place / "done").touch()
    return place / "node_modules/.bin"


def from_debian(cache: Path, package: str) -> Path:
    """Unpack a Debian package with the libraries it needs, and give the folder it lies in."""
    place = cache / f"deb-{package}"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        (place / "packages").mkdir(parents=True)
        wanted = [package]
        for line in _run("apt-cache", "depends", "--important", package).splitlines():
            kind, _, name = line.strip().partition(": ")
            if kind == "Depends" and name.startswith("lib") and name != "libc6":
                wanted.append(name)
        _run("apt-get", "download", "--quiet", *wanted, cwd=place / "packages")
        for file in sorted((place / "packages").glob("*.deb")):
            _run("dpkg-deb", "--extract", file, place)
        (place / "done").touch()
    return place


def debian_version(place: Path, package: str) -> str:
    """Give the version of a package that `from_debian` has unpacked."""
    for file in (place / "packages").glob(f"{package}_*.deb"):
        return _run("dpkg-deb", "--field", file, "Version").strip()
    return "?"


def debian_over_usr(place: Path) -> tuple[str, ...]:
    """Give the words before a command whose package must lie in /usr: for it alone it does.

    A mount namespace of its own, with the unpacked package laid over the host's /usr.
    Raises Unavailable without root.
    """
    if os.geteuid() != 0:
        raise Unavailable("needs root, to lay its unpacked package over /usr")
    lay = f'mount -t overlay -o "lowerdir={place}/usr:/usr" overlay /usr && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", lay, "sh")


def debian_environment(place: Path) -> dict[str, str]:
    """Give the variables that make the programs of an unpacked package run where they lie."""
    commands = [place / "usr/bin", place / "usr/sbin", place / "bin", place / "sbin"]
    libraries = [*place.glob("usr/lib/*-linux-gnu"), *place.glob("lib/*-linux-gnu")]
    return {
        "PATH": ":".join([*map(str, commands), "/usr/bin", "/bin"]),
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
    }
