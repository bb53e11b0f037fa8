"""Load 10,000 keys in five layers once, by one library, and say how long it took and what came.

`python reader.py LIBRARY FOLDER`, run in a process of its own: in the library's own virtual
environment, so it imports nothing of atlasd but for atlasd itself.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

SECTIONS = 500
KEYS = 20
LONG = 8.0
"""CPU seconds after which a library is not asked again."""
KINDS = (str, int, bool, float)


def models(base: Any, create: Any) -> dict[str, Any]:
    """Give the fields of the whole: 500 tables of 20 typed keys."""
    fields: dict[str, Any] = {f"key_{k:02}": (KINDS[k % 4], ...) for k in range(KEYS)}
    table = create("Table", __base__=base, **fields)
    return {f"table_{t:03}": (table, ...) for t in range(SECTIONS)}


def atlasd(files: list[Path]) -> Any:
    """Read, merge and validate; every key has its place, its layer and what it shadows."""
    from pydantic import BaseModel, ConfigDict, create_model

    from atlasd.config import files as reading
    from atlasd.config.merge import merge
    from atlasd.config.shape import rules
    from atlasd_plugins.config_toml import register_config_sources

    (source,) = register_config_sources()

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

    settings = create_model("Settings", __base__=Strict, **models(Strict, create_model))

    def load() -> dict[str, Any]:
        merged = merge([reading.read(file, source) for file in files], rules(settings))
        found: dict[str, Any] = settings.model_validate(merged.data).model_dump()
        assert merged.conflicts == ()
        place = merged.layer.where(("table_007", "key_01"))
        assert place.line > 0
        return found

    return load


def dynaconf(files: list[Path]) -> Any:
    """Read, merge and validate with a validator for each key; no places."""
    from dynaconf import Dynaconf, Validator

    wanted = [
        Validator(f"table_{t:03}.key_{k:02}", must_exist=True, is_type_of=KINDS[k % 4])
        for t in range(SECTIONS)
        for k in range(KEYS)
    ]

    def load() -> dict[str, Any]:
        settings = Dynaconf(
            settings_files=[str(file) for file in files],
            merge_enabled=True,
            environments=False,
            validators=wanted,
        )
        settings.validators.validate()
        return {name.lower(): dict(table) for name, table in settings.as_dict().items()}

    return load


def pydantic_settings(files: list[Path]) -> Any:
    """Read, merge and validate; no places."""
    from pydantic import BaseModel, ConfigDict, create_model
    from pydantic_settings import BaseSettings, SettingsConfigDict, TomlConfigSettingsSource

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

    class Files(BaseSettings):
        model_config = SettingsConfigDict(extra="forbid", strict=True)

        @classmethod
        def settings_customise_sources(cls, settings_cls: Any, *_: Any, **__: Any) -> Any:
            # The first one wins, and tables are merged deep.
            return tuple(TomlConfigSettingsSource(settings_cls, file) for file in files[::-1])

    settings = create_model("Settings", __base__=Files, **models(Strict, create_model))

    def load() -> dict[str, Any]:
        found: dict[str, Any] = settings().model_dump()
        return found

    return load


LIBRARIES = {"atlasd": atlasd, "dynaconf": dynaconf, "pydantic-settings": pydantic_settings}


def main() -> None:
    library, folder, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    load = LIBRARIES[library](sorted(folder.glob("*.toml")))
    times = []
    found: dict[str, Any] = {}
    for _ in range(rounds):
        began = time.process_time()
        found = load()
        times.append(time.process_time() - began)
        if sum(times) > LONG:
            break
    json.dump({"seconds": times, "settings": found}, sys.stdout)


if __name__ == "__main__":
    main()
