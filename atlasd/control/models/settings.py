"""Settings of applications: what is asked about them, and what is answered."""

from typing import Any

from pydantic import Field

from atlasd.control.models.base import Model, ServiceName

_SetName = Field(
    min_length=1, max_length=200, description="Name of a set of settings.", examples=["shop"]
)


class SettingsRequest(Model):
    """Which set of settings."""

    name: str = _SetName


class SettingsKeyRequest(SettingsRequest):
    """Which setting of which set."""

    key: str = Field(min_length=1, max_length=1000, description="Dotted key.", examples=["db.host"])


class SettingsDiffRequest(SettingsRequest):
    """Which set, in which two environments."""

    left: str = Field(min_length=1, max_length=100, description="An environment.")
    right: str = Field(min_length=1, max_length=100, description="The environment beside it.")


class SettingsRenderRequest(Model):
    """What of which service is to be rendered."""

    service: ServiceName
    file: str | None = Field(
        default=None, max_length=255, description="One of its files; null: all that it is given."
    )


class SettingsSummary(Model):
    """One set in brief."""

    name: str = Field(description="Its name.")
    settings: int = Field(description="How many settings it has.")
    secrets: int = Field(description="How many of them hold secrets.")
    validated_by: str = Field(description="Its schema, or its model; empty for none.")
    services: tuple[str, ...] = Field(description="Services that are given it.")


class SettingsList(Model):
    """All sets."""

    sets: tuple[SettingsSummary, ...] = Field(description="By name.")


class Setting(Model):
    """One setting of an application."""

    key: str = Field(description="Dotted key.")
    value: Any = Field(description="Its value, with references in the place of secrets.")
    reference: str = Field(description="How it refers to something else; empty if it does not.")
    secret: bool = Field(description="Whether there is a secret in it.")
    where: str = Field(description="file:line:column.")
    default: bool = Field(description="Whether nobody has set it and the model has filled it in.")


class SettingsBody(Model):
    """One set."""

    name: str = Field(description="Its name.")
    environment: str = Field(description="The environment that it was read for.")
    files: tuple[str, ...] = Field(description="Its files, a later one beats an earlier one.")
    services: tuple[str, ...] = Field(description="Services that are given it.")
    settings: tuple[Setting, ...] = Field(description="Every setting.")


class SettingExplained(Setting):
    """One setting and all that is known of it."""

    set: str = Field(description="The set that it belongs to.")
    kind: str = Field(description="What kind of value it has, in words.")
    expected: str = Field(description="What its schema takes; empty where it takes anything.")
    shadows: tuple[str, ...] = Field(description="Where values stand that it beats, next first.")
    variables: tuple[str, ...] = Field(description="Environment variables that tell it.")


class SettingChange(Model):
    """One setting that two environments have different."""

    key: str = Field(description="Dotted key.")
    left: Any = Field(description="Its value in the first; null where it has none.")
    right: Any = Field(description="Its value in the second; null where it has none.")
    left_where: str = Field(description="Where the first stands; empty where there is none.")
    right_where: str = Field(description="Where the second stands; empty where there is none.")


class SettingsDiff(Model):
    """What two environments have different."""

    name: str = Field(description="The set.")
    left: str = Field(description="The first environment.")
    right: str = Field(description="The second environment.")
    changes: tuple[SettingChange, ...] = Field(description="Every setting that differs.")


class RenderedFile(Model):
    """One file that a service is given."""

    path: str = Field(description="Its name in the service's own folder.")
    variable: str = Field(description="The variable that tells its path.")
    format: str = Field(description="json, toml, yaml, env or template.")
    content: str = Field(description="What is in it.")
    secret: bool = Field(description="Whether there are secrets in it.")


class SettingsRendered(Model):
    """All that a service is given of its settings."""

    service: str = Field(description="The service.")
    variables: dict[str, str] = Field(description="Environment variables; empty with files.")
    files: tuple[RenderedFile, ...] = Field(description="Files; empty with variables.")
