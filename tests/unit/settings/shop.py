"""A configuration with settings of an application, written by a test and loaded as core does."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atlasd.clock import HandClock
from atlasd.config.load import Config, check, load
from atlasd.contracts.config import ConfigSource, KeyPath, Layer, Position
from atlasd.contracts.secrets import Reference, Resolved, Sealed, SecretsPolicy, SecretValue
from atlasd.errors import AtlasError
from atlasd.paths import Paths, find
from atlasd.services.spec import ServiceSpec
from atlasd.settings.applied import ApplicationSettings, Applied
from atlasd_plugins.config_toml import register_config_sources
from tests.unit.config.desk import ENVIRON, FakeHost


def _lines(text: str, origin: str, variables: Mapping[str, str], /) -> Layer:
    """NAME=VALUE lines without any quotes: enough for tests that are not about dialects."""
    del variables
    data: dict[str, Any] = {}
    places: dict[KeyPath, Position] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, equals, value = line.partition("=")
        if equals:
            data[name] = value
            places[(name,)] = Position(origin=origin, line=number, column=1)
    return Layer(origin=origin, data=data, values=places, keys=places)


def _json(text: str, origin: str, /) -> Layer:
    return Layer(origin=origin, data=json.loads(text))


SOURCES = [
    *register_config_sources(),
    ConfigSource(
        name="dotenv",
        summary="Lines",
        suffixes=(".env",),
        dialects=dict.fromkeys(("bash", "docker", "compose", "systemd"), _lines),
    ),
    ConfigSource(name="json", summary="JSON", suffixes=(".json",), parse=_json),
]


@dataclass(kw_only=True)
class Shop:
    """Where a test writes files, and what came of them."""

    paths: Paths
    secrets: dict[str, str] = field(default_factory=dict)
    resolving: bool = True
    env: str | None = None

    @classmethod
    def at(cls, folder: Path) -> "Shop":
        """An empty root."""
        return cls(paths=find(root=str(folder), environ={}))

    @property
    def etc(self) -> Path:
        return Path(self.paths.etc)

    def write(self, name: str, text: str | dict[str, Any]) -> Path:
        path = self.etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return path

    def resolve(
        self, policy: SecretsPolicy, wanted: Sequence[Reference | Sealed], /
    ) -> Mapping[Reference | Sealed, Resolved | Exception]:
        del policy
        answers: dict[Reference | Sealed, Resolved | Exception] = {}
        for one in wanted:
            assert isinstance(one, Reference)
            if one.name in self.secrets:
                answers[one] = Resolved(value=SecretValue(self.secrets[one.name]))
            else:
                answers[one] = AtlasError("secret.not_found", f"no secret {one.name}")
        return answers

    def _options(self) -> dict[str, Any]:
        run_dir = Path(self.paths.run)
        run_dir.mkdir(parents=True, exist_ok=True)
        return {
            "env": self.env,
            "environ": dict(ENVIRON),
            "host": FakeHost(),
            "resolve": self.resolve if self.resolving else None,
            "applications": ApplicationSettings(run_dir=str(run_dir)),
        }

    def load(self, text: str) -> Config:
        self.write("atlasd.toml", text)
        return load(self.paths, SOURCES, clock=HandClock(), **self._options())

    def says(self, text: str) -> list[str]:
        """What `check` says, the folder left out."""
        self.write("atlasd.toml", text)
        problems = check(self.paths, SOURCES, **self._options())
        return [str(p).replace(f"{self.paths.etc}/", "") for p in problems]

    def spec(self, text: str, name: str = "web") -> ServiceSpec:
        return next(spec for spec in self.load(text).specs() if spec.name == name)

    def variables(self, text: str, name: str = "web") -> dict[str, str]:
        """The variables that a service is handed."""
        return {
            one.name: base64.b64decode(one.content).decode()
            for one in self.spec(text, name).deliveries
            if one.kind == "env"
        }

    def applied(self, text: str) -> Applied:
        found = self.load(text).applications
        assert isinstance(found, Applied)
        return found


WEB = '[services.web]\ncommand = ["sleep", "1"]\nsettings = ["shop"]\n'
