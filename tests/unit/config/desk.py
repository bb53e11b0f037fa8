"""A host without surprises, and a place to write configurations and look at what comes of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atlasd.clock import HandClock
from atlasd.config.load import Config, Offers, Problem, check, load
from atlasd.contracts.secrets import Resolve
from atlasd.paths import Paths
from atlasd_plugins import config_dotenv, config_environ, config_json, config_toml, config_yaml

SOURCES = [
    source
    for module in (config_toml, config_yaml, config_json, config_dotenv, config_environ)
    for source in module.register_config_sources()
]
ENVIRON = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/root", "EDITOR": "ed"}


@dataclass(kw_only=True)
class FakeHost:
    """A host that has what the test says."""

    users: tuple[str, ...] = ("root", "www-data", "1000")
    groups: tuple[str, ...] = ("root", "www-data", "1000")
    programs: tuple[str, ...] = ("sleep", "true", "echo", "mkdir", "sh")
    folders: tuple[str, ...] = ("/", "/srv/shop")
    files: Mapping[str, bytes] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    root: bool = True

    def has_user(self, user: str) -> bool:
        return user in self.users

    def has_group(self, group: str) -> bool:
        return group in self.groups

    def has_program(self, word: str, *, search: str, cwd: str) -> bool:
        return word in self.programs

    def is_folder(self, path: str) -> bool:
        return path in self.folders

    def is_root(self) -> bool:
        return self.root

    def read(self, path: str) -> bytes:
        if path in self.unreadable:
            raise PermissionError(13, "Permission denied")
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None


@dataclass(kw_only=True)
class Desk:
    """Where a test writes configuration files and looks at what comes of them."""

    paths: Paths
    host: FakeHost
    environ: dict[str, str]
    env: str | None = None
    offers: Offers | None = None
    overrides: tuple[str, ...] = ()
    hostname: str = "web1.example.org"
    resolve: Resolve | None = None

    @property
    def etc(self) -> Path:
        return Path(self.paths.etc)

    def write(self, text: str, name: str = "atlasd.toml") -> Path:
        path = self.etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def load(self, text: str | None = None) -> Config:
        if text is not None:
            self.write(text)
        return load(
            self.paths,
            SOURCES,
            env=self.env,
            environ=self.environ,
            host=self.host,
            offers=self.offers,
            overrides=self.overrides,
            hostname=self.hostname,
            resolve=self.resolve,
            clock=HandClock(),
        )

    def check(self, text: str | None = None) -> list[Problem]:
        if text is not None:
            self.write(text)
        return check(
            self.paths,
            SOURCES,
            env=self.env,
            environ=self.environ,
            host=self.host,
            offers=self.offers,
            overrides=self.overrides,
            hostname=self.hostname,
            resolve=self.resolve,
        )

    def says(self, text: str | None = None) -> list[str]:
        """What `check` says, the folder left out."""
        return [str(p).replace(f"{self.paths.etc}/", "") for p in self.check(text)]
