"""A configuration as a text for other programs: TOML, JSON, YAML, or variables."""

import json
import shlex
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from atlasd.config import shape
from atlasd.config.load import Config
from atlasd.config.shown import leaves, to_toml
from atlasd.contracts.config import KeyPath
from atlasd.errors import AtlasError

Format = Literal["toml", "json", "yaml", "env"]
PREFIX = "ATLASD__"


def text_of(settings: Mapping[str, Any], form: Format) -> str:
    """Settings as a text that reads back as the same settings.

    As variables they have the names that the daemon reads from its environment.
    """
    match form:
        case "toml":
            return to_toml(settings)
        case "json":
            return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        case "yaml":
            import yaml  # late: it takes a while to load

            text: str = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
            return text
        case "env":
            return "".join(
                f"{variable(path)}={shlex.quote(_word(value))}\n"
                for path, value in leaves(settings)
                if path
            )


def variable(path: KeyPath) -> str:
    """The name of the variable that is read as a setting."""
    words = (str(key).upper().replace("-", "_").replace(".", "_") for key in path)
    return PREFIX + "__".join(words)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def revealed(config: Config) -> dict[str, Any]:
    """What the layers say, with the values of secrets in the place of references."""
    values = {path: _resolved(config, path) for path in config.references}

    def copied(value: Any, path: KeyPath) -> Any:
        if path in values:
            return values[path]
        if isinstance(value, Mapping):
            return {key: copied(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [copied(item, (*path, index)) for index, item in enumerate(value)]
        return value

    made = copied(config.data, ())
    assert isinstance(made, dict)
    return made


def _resolved(config: Config, path: KeyPath) -> Any:
    """What a setting that refers to something else has become in the models."""
    value: Any = config.settings
    for depth, key in enumerate(path):
        if isinstance(value, BaseModel):
            extra = value.model_extra or {}
            name = str(key)
            value = getattr(value, name) if name in type(value).model_fields else extra.get(name)
        else:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                raise AtlasError(
                    "config.unknown",
                    f"{path[: depth + 1]} is not read as it is written, so its value is not known",
                    hint="leave --reveal out",
                ) from None
    found = shape.at(path)
    if found is not None and found.spelling is not None and value is not None:
        return found.spelling.show(value)
    return value
