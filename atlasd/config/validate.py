"""From merged data to models: section by section, so that one mistake hides no other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from atlasd.config.jobs import Jobs
from atlasd.config.outline import Further
from atlasd.config.problems import Findings
from atlasd.config.schema import (
    Api,
    Check,
    DaemonLog,
    Host,
    Plugin,
    Secrets,
    Settings,
    SettingsSet,
)
from atlasd.config.service import NAME_EXPECTED, Service
from atlasd.config.units import NAME
from atlasd.contracts.checks import CheckType
from atlasd.contracts.config import KeyPath
from atlasd.contracts.queue import QueueStoreType
from atlasd.contracts.secrets import RotatorType, SecretBackend
from atlasd.errors import nearest

M = TypeVar("M", bound=BaseModel)

PLACEHOLDER: Mapping[type[BaseModel], Mapping[str, Any]] = {
    Check: {"type": ""},
}
"""For required settings that are themselves wrong, so that the rest can still be looked at."""


@dataclass(frozen=True, kw_only=True)
class Offers:
    """What the admitted plugins supply, as far as a configuration can name it."""

    check_types: Mapping[str, CheckType]
    plugin_settings: Mapping[str, type[BaseModel]]
    """Models of `[plugins.NAME]`, by name."""
    secret_backends: Mapping[str, SecretBackend] = field(default_factory=dict)
    rotators: Mapping[str, RotatorType] = field(default_factory=dict)
    queue_stores: Mapping[str, QueueStoreType] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    """A sentence for each plugin that was refused: what is missing may be theirs."""


@dataclass(frozen=True, kw_only=True)
class Validated:
    """The models, as far as the data could be read."""

    settings: Settings
    check_settings: Mapping[str, BaseModel]
    """Of each check whose type is known: what its plugin is opened with."""
    plugin_settings: Mapping[str, BaseModel]
    store_settings: BaseModel | None
    """Of the queue store that is named; None where it isn't known."""


def validate(data: Mapping[str, Any], findings: Findings, offers: Offers | None) -> Validated:
    """The models of all sections; every mistake is noted in `findings`.

    Without `offers`, types of checks and names of plugins are taken as they are.
    """
    for name in data:
        if name not in Settings.model_fields:
            hint = nearest(name, tuple(Settings.model_fields))
            findings.add((name,), got="unknown key", hint=hint, at_key=True)
    services = _named(data, "services", Service, findings)
    checks = _named(data, "checks", Check, findings)
    plugins = _named(data, "plugins", Plugin, findings)
    settings = Settings(
        host=section(data, "host", Host, findings),
        api=section(data, "api", Api, findings),
        log=section(data, "log", DaemonLog, findings),
        secrets=section(data, "secrets", Secrets, findings),
        settings=_named(data, "settings", SettingsSet, findings),
        jobs=section(data, "jobs", Jobs, findings),
        services=services,
        checks=checks,
        plugins=plugins,
    )
    check_settings: dict[str, BaseModel] = {}
    plugin_settings: dict[str, BaseModel] = {}
    store_settings = None
    if offers is not None:
        store_settings = _of_store(settings, findings, offers)
        check_settings = _of_checks(settings, findings, offers)
        plugin_settings = _of_plugins(settings, findings, offers)
    return Validated(
        settings=settings,
        check_settings=check_settings,
        plugin_settings=plugin_settings,
        store_settings=store_settings,
    )


def further(offers: Offers | None) -> Further:
    """Which further keys a table has that a plugin's settings stand in; for `config.outline`."""

    def find(path: KeyPath, table: Mapping[str, Any]) -> type[BaseModel] | None:
        if offers is None:
            return None
        kind = table.get("type", path[-1] if path else "")
        match path:
            case ("checks", _) if kind in offers.check_types:
                return offers.check_types[kind].settings
            case ("plugins", str(name)):
                return offers.plugin_settings.get(name)
            case ("secrets", "backends", _) if kind in offers.secret_backends:
                return offers.secret_backends[kind].settings
            case ("jobs", "stores", str(name)) if name in offers.queue_stores:
                return offers.queue_stores[name].settings
            case ("secrets", "rotate", _) if table.get("rotator") in offers.rotators:
                return offers.rotators[table["rotator"]].settings
        return None

    return find


def _table(data: Mapping[str, Any], path: KeyPath, findings: Findings) -> dict[str, Any]:
    table: Any = data
    for key in path:
        table = table.get(key, {})
    if isinstance(table, dict):
        return table
    findings.add(path, expected="a table")
    return {}


def section(data: Mapping[str, Any], name: str, model: type[M], findings: Findings) -> M:
    """The model of the table `[name]`, as far as it is right; what is wrong is noted."""
    found = _model(_table(data, (name,), findings), (name,), model, findings)
    return found if found is not None else model()


def _named(
    data: Mapping[str, Any], section: str, model: type[M], findings: Findings
) -> dict[str, M]:
    """The models of a section's tables, each under a name that the operator chose."""
    models = {}
    for name in _table(data, (section,), findings):
        path = (section, name)
        if not NAME.fullmatch(name):
            findings.add(path, expected=NAME_EXPECTED, got=repr(name), at_key=True)
        found = _model(_table(data, path, findings), path, model, findings)
        if found is not None:
            models[name] = found
    return models


def _model(table: dict[str, Any], path: KeyPath, model: type[M], findings: Findings) -> M | None:
    """The table's model; without the keys that are wrong, if any are, or None if that won't do."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        blamed = findings.take(error, path, table, model)
    rest = {key: value for key, value in table.items() if key not in blamed}
    try:
        return model.model_validate({**PLACEHOLDER.get(model, {}), **rest})
    except ValidationError:
        return None


def _of_checks(settings: Settings, findings: Findings, offers: Offers) -> dict[str, BaseModel]:
    own = tuple(Check.model_fields)
    found: dict[str, BaseModel] = {}
    for name, check in settings.checks.items():
        path: KeyPath = ("checks", name)
        if not check.type:
            continue
        kind = offers.check_types.get(check.type)
        if kind is None:
            findings.add(
                (*path, "type"),
                expected="the name of a check type",
                hint=missing(check.type, tuple(offers.check_types), offers),
            )
            continue
        table = dict(check.model_extra or {})
        try:
            found[name] = kind.settings.model_validate(table)
        except ValidationError as error:
            findings.take(error, path, table, kind.settings, extra_keys=own)
    return found


def _of_plugins(settings: Settings, findings: Findings, offers: Offers) -> dict[str, BaseModel]:
    found: dict[str, BaseModel] = {}
    for name, plugin in settings.plugins.items():
        path: KeyPath = ("plugins", name)
        model = offers.plugin_settings.get(name)
        if model is None:
            findings.add(
                path,
                got="nothing of this name has settings",
                hint=missing(name, tuple(offers.plugin_settings), offers),
                at_key=True,
            )
            continue
        table = dict(plugin.model_extra or {})
        try:
            found[name] = model.model_validate(table)
        except ValidationError as error:
            findings.take(error, path, table, model)
    return found


def _of_store(settings: Settings, findings: Findings, offers: Offers) -> BaseModel | None:
    """The settings of the store that is named; those of others are looked at as well."""
    known = offers.queue_stores
    if not known:
        return None  # they are not what was asked about
    if settings.jobs.store not in known:
        findings.add(
            ("jobs", "store"),
            expected="the name of a queue store",
            hint=missing(settings.jobs.store, tuple(known), offers),
        )
    wanted = None
    for name in dict.fromkeys((settings.jobs.store, *settings.jobs.stores)):
        path: KeyPath = ("jobs", "stores", name)
        if name not in known:
            if name in settings.jobs.stores:
                got, hint = "no queue store of this name", missing(name, tuple(known), offers)
                findings.add(path, got=got, hint=hint, at_key=True)
            continue
        table = settings.jobs.stores.get(name)
        body = dict(table.model_extra or {}) if table is not None else {}
        try:
            found = known[name].settings.model_validate(body)
        except ValidationError as error:
            findings.take(error, path, body, known[name].settings)
        else:
            wanted = found if name == settings.jobs.store else wanted
    return wanted


def missing(name: str, known: tuple[str, ...], offers: Offers) -> str:
    """The hint for a name that no plugin supplies: the nearest one, and who was refused."""
    hint = nearest(name, known)
    return "; ".join(filter(None, (hint, *offers.refused)))
