"""What is asked and answered about the configuration: its settings, places and generations."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, RootModel

from atlasd.control.models.base import Model
from atlasd.control.models.services import Action

Key = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1000,
        description="A setting, dotted; parts with other characters in quotes.",
        examples=["services.web.instances"],
    ),
]


class ConfigShowRequest(Model):
    """How much of the configuration."""

    defaults: bool = Field(default=False, description="Settings that nobody gave, too.")


class ConfigBody(Model):
    """The configuration that is in force."""

    generation: int = Field(description="Its number.")
    environment: str = Field(description="The environment that it is for.")
    environment_chosen_by: str = Field(description="What named the environment.")
    loaded: datetime = Field(description="When its files were read.")
    settings: dict[str, object] = Field(
        description="What is set; secrets as references, and in plain text not at all."
    )
    places: dict[str, str] = Field(description="Of each setting that a layer gives, its place.")


class ConfigKeyRequest(Model):
    """Which setting."""

    key: Key


class ShadowedValue(Model):
    """A value that a higher layer has replaced."""

    where: str = Field(description="Its place.")
    layer: str = Field(default="", description="Its layer.")
    value: object = Field(default=None, description="As `value` of the setting.")


class ConfigSecret(Model):
    """A secret of which a setting is made."""

    reference: str = Field(description="As `secret://db#password`; never its value.")
    backend: str = Field(default="", description="Where it is kept.")
    version: str = Field(default="", description="The version in force.")
    fetched: datetime | None = Field(default=None, description="When its backend last gave it.")
    stale: bool = Field(default=False, description="Whether its backend does not answer now.")


class ConfigKey(Model):
    """One setting, and how it came to be."""

    key: str = Field(description="The setting, dotted.")
    set: bool = Field(description="Whether a layer gives it; else its default holds.")
    value: object = Field(
        description="What holds; a secret as its reference, in plain text not at all."
    )
    where: str = Field(default="", description="Where it stands; empty for a default.")
    layer: str = Field(default="", description="The layer that gives it.")
    shadows: tuple[ShadowedValue, ...] = Field(
        default=(), description="Values of lower layers that it replaces, the lowest first."
    )
    secrets: tuple[ConfigSecret, ...] = Field(
        default=(), description="The secrets of which it is made."
    )
    default: object = Field(default=None, description="What holds without a layer.")
    expected: str = Field(default="", description="What it takes.")
    description: str = Field(default="", description="What it means.")
    effect: str = Field(description="What a change takes: `live`, `restart service web`, …")


class ConfigChange(Model):
    """One setting that differs."""

    key: str = Field(description="The setting, dotted.")
    kind: Literal["added", "removed", "changed"] = Field(description="How it differs.")
    old: object = Field(default=None, description="The value before, as far as it is shown.")
    new: object = Field(default=None, description="The value after, as far as it is shown.")
    effect: str = Field(default="live", description="What the change takes.")
    where: str = Field(default="", description="Where the new value stands, or else the old one.")


class ConfigReloadRequest(Model):
    """Whether it is done."""

    dry_run: bool = Field(default=False, description="Only tell what would be done.")


class ConfigReloaded(Model):
    """What was taken over from the configuration, and what waits for `apply`."""

    generation: int = Field(description="The generation in force, or that would be.")
    dry_run: bool = Field(default=False, description="Whether it was only told.")
    restored: int | None = Field(default=None, description="The generation that was had back.")
    changes: tuple[ConfigChange, ...] = Field(default=(), description="Settings that differ.")
    applied: tuple[Action, ...] = Field(description="Steps that were done; none is a restart.")
    pending: tuple[Action, ...] = Field(description="Steps that only `apply` does.")
    notes: tuple[str, ...] = Field(default=(), description="What else changed.")


class ConfigRollbackRequest(Model):
    """To which generation."""

    generation: int | None = Field(
        default=None, ge=1, description="Its number; null: the one before that in force."
    )
    force: bool = Field(
        default=False, description="Also when files were edited since: the edits are lost."
    )


class ConfigGeneration(Model):
    """One generation of the configuration."""

    number: int = Field(description="Counted from 1.")
    time: datetime = Field(description="When it was accepted.")
    actor: str = Field(description="Who asked for it: `uid:0`, `signal:HUP`, `watch`, `start`.")
    environment: str = Field(description="The environment that it was for.")
    digest: str = Field(description="Of its files.")
    state: Literal["accepted", "partial"] = Field(
        description="partial: a part of the daemon could not take it over."
    )
    detail: str = Field(default="", description="Which part, and why.")
    current: bool = Field(description="Whether it is in force.")
    summary: str = Field(description="What differed from the one before, in a few words.")
    changes: tuple[ConfigChange, ...] = Field(description="All that differed.")


class ConfigHistory(Model):
    """The generations that are kept."""

    generations: tuple[ConfigGeneration, ...] = Field(description="The latest first.")


class ConfigDiffRequest(Model):
    """Which two environments."""

    left: str = Field(min_length=1, max_length=63, description="The one.")
    right: str = Field(min_length=1, max_length=63, description="The other.")


class ConfigDifference(Model):
    """One setting that two environments have different."""

    key: str = Field(description="The setting, dotted.")
    left: object = Field(default=None, description="What it is in the one; null: not set.")
    left_where: str = Field(default="", description="Where that stands; empty: not set.")
    right: object = Field(default=None, description="What it is in the other; null: not set.")
    right_where: str = Field(default="", description="Where that stands; empty: not set.")


class ConfigDiff(Model):
    """What two environments have different."""

    left: str = Field(description="The one environment.")
    right: str = Field(description="The other.")
    differences: tuple[ConfigDifference, ...] = Field(description="In the order of keys.")


class ConfigLayer(Model):
    """One layer of the configuration."""

    name: str = Field(description="main file, conf.d, environment production, …")
    origin: str = Field(description="The file, or what else it is from.")
    source: str = Field(default="", description="What reads it: toml.")
    dialect: str = Field(default="", description="The dialect of a file of variables.")
    modified: datetime | None = Field(default=None, description="When the file was last changed.")
    keys: int = Field(default=0, description="How many settings it has.")
    present: bool = Field(description="Whether it is there; else it could be.")


class ConfigSources(Model):
    """The layers of the configuration, a later one beats an earlier one."""

    environment: str = Field(description="The environment that they are for.")
    environment_chosen_by: str = Field(description="What named the environment.")
    layers: tuple[ConfigLayer, ...] = Field(description="The lowest first.")


class ConfigSchema(RootModel[dict[str, object]]):
    """The JSON Schema of configuration files."""


Format = Annotated[
    Literal["toml", "json", "yaml", "env"],
    Field(description="toml, json, yaml, or env: NAME=value lines with ATLASD__ names."),
]


class ConfigExportRequest(Model):
    """In which form."""

    format: Format = "toml"
    defaults: bool = Field(default=False, description="Settings that nobody gave, too.")


class ConfigExport(Model):
    """The configuration as a text."""

    format: Format
    text: str = Field(description="The text.")


_File = Annotated[
    str | None,
    Field(
        max_length=4096,
        description="The file, relative to the main file's folder; null: the one in which the "
        "setting stands, or else the main file.",
    ),
]
_Env = Annotated[
    str | None,
    Field(
        max_length=63, description="The environment whose file it is, and that it is vetted for."
    ),
]
_Reload = Annotated[bool, Field(description="Have the daemon read it at once.")]


class ConfigSetRequest(Model):
    """Which setting, and what it is to be."""

    key: Key
    value: str = Field(max_length=200_000, description="As text; the schema says of which type.")
    file: _File = None
    env: _Env = None
    force: bool = Field(default=False, description="Also where another layer has the last word.")
    reload: _Reload = False


class ConfigUnsetRequest(Model):
    """Which setting is removed."""

    key: Key
    file: _File = None
    env: _Env = None
    reload: _Reload = False


class ConfigEncryptRequest(Model):
    """Which value is encrypted in its file."""

    key: Key
    value: str | None = Field(
        default=None,
        max_length=200_000,
        description="The value; null: the one that stands there.",
        repr=False,
    )
    file: _File = None
    env: _Env = None


class ConfigDecryptRequest(Model):
    """Which value is put back in plain text."""

    key: Key
    file: _File = None
    env: _Env = None


class ConfigEdited(Model):
    """What was written to a configuration file."""

    key: str = Field(description="The setting, dotted.")
    file: str = Field(description="The file that was written.")
    changes: tuple[ConfigChange, ...] = Field(default=(), description="What it changes.")
    warnings: tuple[str, ...] = Field(default=(), description="What is probably not meant.")
    reloaded: ConfigReloaded | None = Field(
        default=None, description="What the daemon made of it, if it was to read it."
    )
