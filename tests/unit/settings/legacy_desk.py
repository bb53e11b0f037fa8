"""Existing files, taken over in a test, by the sources and rules that the daemon uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atlasd.config import files, literal
from atlasd.config.files import Sources
from atlasd.contracts.config import Layer
from atlasd.errors import AtlasError
from atlasd.settings.legacy.plan import Taken, Wanted, plan
from atlasd_plugins import config_dotenv, config_ini, config_json, config_toml

SOURCES = Sources(
    [
        source
        for module in (config_toml, config_json, config_ini, config_dotenv)
        for source in module.register_config_sources()
    ]
)


def parse(text: str, origin: str, name: str, dialect: str) -> Layer:
    source = SOURCES.named(name)
    assert source is not None
    return files.parse(text, origin, source, dialect=dialect, variables={})


class Rules:
    """The rules of references."""

    def escape(self, text: str) -> str | None:
        return literal.escape(text)

    def meaning(self, text: str, secrets: Mapping[str, str]) -> str:
        return literal.meaning(text, secrets)


def take(folder: Path, called: str, text: str, **options: Any) -> Taken:
    """One file, taken over in mind."""
    source = folder / called
    source.write_bytes(text.encode())
    wanted = Wanted(files=(source,), out=folder / "out.toml", **options)
    (taken,) = plan(wanted, parse, Rules())
    return taken


def notes(taken: Taken) -> list[str]:
    """What the report says, the folder left out."""
    return [str(note).replace(f"{taken.source.parent}/", "") for note in taken.notes]


@dataclass(kw_only=True)
class Shelf:
    """A store of secrets in memory that fails when it is told to."""

    kept: dict[str, str] = field(default_factory=dict)
    fails: dict[str, AtlasError] = field(default_factory=dict)
    garbles: bool = False

    def get(self, name: str) -> str | None:
        found = self.kept.get(name)
        return f"{found}!" if found is not None and self.garbles else found

    def put(self, name: str, value: str) -> None:
        if name in self.fails:
            raise self.fails[name]
        self.kept[name] = value

    def drop(self, name: str) -> None:
        del self.kept[name]
