"""A configuration from its files: read, merged, validated, resolved; or everything that's wrong."""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from atlasd.clock import Clock, RealClock, utc
from atlasd.config import applications as of_applications
from atlasd.config import (
    defaults,
    deliveries,
    layers,
    resolving,
    rules,
    schedule_rules,
    surroundings,
)
from atlasd.config.applications import Applications, Given, Result
from atlasd.config.complaints import complaints
from atlasd.config.convert import host_policy, service_spec
from atlasd.config.layers import BESIDE_NO_FILE, Described
from atlasd.config.merge import Merged
from atlasd.config.places import Shadowed
from atlasd.config.problems import Findings, Problem, in_order, invalid, report, undotted
from atlasd.config.referenced import Known, Referenced, table_at
from atlasd.config.resolving import Around
from atlasd.config.schema import Api, Check, DaemonLog, Host, Settings
from atlasd.config.surroundings import Surroundings, ThisHost
from atlasd.config.validate import Offers, Validated, further, validate
from atlasd.contracts.checks import CheckType
from atlasd.contracts.config import ConfigSource, KeyPath, Position
from atlasd.contracts.secrets import Resolve, SecretsPolicy
from atlasd.paths import Paths
from atlasd.services.spec import HostPolicy, KnownSecret, ServiceSpec, to_wire

__all__ = ["Config", "ConfiguredCheck", "Offers", "Problem", "check", "load", "report"]


# Digests cover the values of secrets: with a key of this process's own, none can be guessed by one.
_DIGEST_KEY = secrets.token_bytes(32)


@dataclass(frozen=True, kw_only=True)
class ConfiguredCheck:
    """One check of the configuration, ready to be opened."""

    name: str
    check: Check
    """What all checks have: interval, deadline, service …; times in seconds."""
    type: CheckType
    settings: BaseModel
    """What the type's `open` is called with."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One generation of the configuration: valid, complete, and never changed."""

    settings: Settings = field(repr=False)
    environment: str
    environment_chosen_by: str
    generation: int
    loaded_at: datetime
    digest: str
    """Equal for configurations that mean the same, within one process: an unchanged reload needs
    nothing done."""
    files: tuple[str, ...]
    """The files that were read, the lowest layer first; those of applications' settings last."""
    awaited: tuple[str, ...]
    """Files that need not exist, and don't: should one appear, that is a change too."""
    applications: Result | None = field(repr=False)
    """Settings of applications; None where nobody has looked into them."""
    layers: tuple[Described, ...]
    """Every layer there is or could be, the lowest first, as `atlasctl config sources` has it."""
    checks: tuple[ConfiguredCheck, ...] = field(repr=False)
    """Empty when it was loaded without `offers`."""
    plugins: Mapping[str, BaseModel] = field(repr=False)
    """Settings of what plugins supply, for each table `[plugins.NAME]`."""
    queue_store: BaseModel | None = field(repr=False)
    """Settings of the queue store; None when it was loaded without `offers`."""
    warnings: tuple[Problem, ...]
    secrets: SecretsPolicy
    """Which secret backends there are, and how long a value may be used."""
    references: Mapping[KeyPath, Referenced] = field(repr=False)
    """Settings that refer to something else, and what may be shown in place of their values."""
    known: tuple[Known, ...] = field(repr=False)
    """The values of the secrets in it, which must not show anywhere."""
    _specs: tuple[ServiceSpec, ...] = field(repr=False)
    _merged: Merged = field(repr=False)
    besides: tuple[str, ...] = ()
    """Files that were read and are no layers: services' environment files."""

    @property
    def read_files(self) -> tuple[str, ...]:
        """Every file that has a say: a change of one may change what the configuration means."""
        return (*self.files, *self.besides)

    @property
    def host(self) -> Host:
        """`[host]`."""
        return self.settings.host

    @property
    def api(self) -> Api:
        """`[api]`."""
        return self.settings.api

    @property
    def log(self) -> DaemonLog:
        """`[log]`."""
        return self.settings.log

    def specs(self) -> tuple[ServiceSpec, ...]:
        """What the services role shall run, by name; environment files are read already."""
        return self._specs

    def host_policy(self) -> HostPolicy:
        """What holds for all services together."""
        return host_policy(self.settings.host)

    @property
    def data(self) -> Mapping[str, Any]:
        """What the layers say together, as they say it: without defaults, references unresolved."""
        return self._merged.data

    def origin(self, key: str | KeyPath) -> Position:
        """Where a setting stands, as `services.web.command` or a path of keys.

        A setting that no file has (its default holds) stands where the table around it does.
        """
        path = undotted(key) if isinstance(key, str) else key
        return self._merged.layer.where(path)

    def layer_of(self, key: str | KeyPath) -> str:
        """The name of the layer that had the last word on a setting; empty for a default."""
        path = undotted(key) if isinstance(key, str) else key
        return self._merged.layer_of(path).name if self._merged.has(path) else ""

    def shadowed(self, key: str | KeyPath) -> tuple[Shadowed, ...]:
        """The values that a higher layer replaced, removed or unset, the lowest layer first."""
        path = undotted(key) if isinstance(key, str) else key
        return self._merged.shadowed(path)

    def unset(self, key: str | KeyPath) -> Position | None:
        """Where a layer has unset a setting, or the table that it is in; None if it is not."""
        path = undotted(key) if isinstance(key, str) else key
        places = (self._merged.unset.get(path[:length]) for length in range(len(path), 0, -1))
        return next((place for place in places if place is not None), None)


def load(
    paths: Paths,
    sources: Sequence[ConfigSource],
    *,
    env: str | None = None,
    environ: Mapping[str, str] | None = None,
    offers: Offers | None = None,
    host: Surroundings | None = None,
    resolve: Resolve | None = None,
    applications: Applications | None = None,
    overrides: Sequence[str] = (),
    hostname: str = "",
    generation: int = 1,
    clock: Clock | None = None,
) -> Config:
    """The configuration that the files hold now.

    `sources` read the files; `env` is `--env`; `environ` the daemon's own environment; `offers`
    what plugins supply, without which checks and plugins are not looked into; `resolve` gives the
    values of secrets, for which something else stands without it; `applications` looks into the
    settings of applications, which services are not given without it. `overrides` are the
    KEY=VALUE of `--set`; `hostname` chooses the host file, this host's own unless given.
    Raises `AtlasError`: `config.missing`, `config.environment`, or `config.invalid` with every
    problem in its message, one a line, and in `details["problems"]`.
    """
    config, problems = _resolve(
        paths,
        sources,
        env=env,
        environ=os.environ if environ is None else environ,
        offers=offers,
        host=host or ThisHost(),
        resolve=resolve,
        applications=applications,
        overrides=overrides,
        hostname=hostname,
        generation=generation,
        clock=clock or RealClock(),
    )
    if config is None:
        raise invalid([problem for problem in problems if not problem.warning])
    return config


def check(
    paths: Paths,
    sources: Sequence[ConfigSource],
    *,
    env: str | None = None,
    environ: Mapping[str, str] | None = None,
    offers: Offers | None = None,
    host: Surroundings | None = None,
    resolve: Resolve | None = None,
    applications: Applications | None = None,
    overrides: Sequence[str] = (),
    hostname: str = "",
) -> list[Problem]:
    """Everything that is wrong with the files, errors first, then warnings; see `load`.

    Raises `AtlasError` only for what is no matter of single settings: `config.missing` and
    `config.environment`.
    """
    _, problems = _resolve(
        paths,
        sources,
        env=env,
        environ=os.environ if environ is None else environ,
        offers=offers,
        host=host or ThisHost(),
        resolve=resolve,
        applications=applications,
        overrides=overrides,
        hostname=hostname,
        generation=0,
        clock=RealClock(),
    )
    return list(problems)


def _resolve(
    paths: Paths,
    sources: Sequence[ConfigSource],
    *,
    env: str | None,
    environ: Mapping[str, str],
    offers: Offers | None,
    host: Surroundings,
    resolve: Resolve | None,
    applications: Applications | None,
    overrides: Sequence[str],
    hostname: str,
    generation: int,
    clock: Clock,
) -> tuple[Config | None, tuple[Problem, ...]]:
    """The configuration, if it is valid, and everything there is to say about the files."""
    found = layers.read(
        paths, sources, env=env, environ=environ, overrides=overrides, hostname=hostname
    )
    if not found.complete:
        # With a layer missing, the rest would be full of faults that aren't there.
        return None, in_order(found.problems)
    laid = layers.lay(found, further(offers))
    merged = laid.merged
    findings = Findings(merged.layer, merged.shadowed, merged.unset)
    findings.problems += (*found.problems, *laid.problems, *complaints(merged))

    def folder_of(path: KeyPath) -> str:
        # A file's settings are relative to it: conf.d/shop.toml means its own neighbours.
        layer = merged.layer_of(path)
        beside = paths.config_file if layer.name in BESIDE_NO_FILE else layer.origin
        return os.path.dirname(os.path.abspath(beside))  # noqa: PTH100, PTH120

    around = Around(
        environment=found.environment,
        environ=environ,
        host=host,
        folder_of=folder_of,
        offers=offers,
        resolve=resolving.once(resolve) if resolve is not None else None,
    )
    resolution = resolving.resolve(merged.data, findings, around)
    validated = validate(resolution.data, findings, offers)
    services = validated.settings.services
    declared = resolution.data.get("services")
    rules.examine(
        validated.settings, list(declared) if isinstance(declared, dict) else [], findings
    )
    deliveries.examine_variables(services, resolution.references, findings)
    schedule_rules.examine_arguments(resolution.references, findings)
    of_applications.examine(validated.settings, table_at(resolution.data, "settings"), findings)
    reality = surroundings.examine(services, findings, host, environ, folder_of)
    given = Given()
    if applications is not None and validated.settings.settings:
        given = of_applications.apply(
            applications,
            validated.settings,
            merged,
            sources,
            findings,
            around,
            variables_of=lambda name: {*services[name].env, *reality[name].variables},
        )
    problems = in_order(findings.problems)
    if any(not problem.warning for problem in problems):
        return None, problems
    specs = tuple(
        service_spec(
            name,
            services[name],
            files=reality[name].variables,
            environ=environ,
            folder=reality[name].folder,
            extra_deliveries=given.deliveries(name),
            known_secrets=[
                KnownSecret(name=known.name, value=known.value)
                for known in resolution.known_below(("services", name))
            ]
            + given.secrets(name),
            secret_variables=deliveries.secret_variables(name, resolution.references),
            jobs_socket=f"{paths.run}/jobs.sock",
        )
        for name in sorted(services)
    )
    return (
        Config(
            settings=validated.settings,
            environment=found.environment,
            environment_chosen_by=found.chosen_by,
            generation=generation,
            loaded_at=utc(clock.wall()),
            digest=_digest(validated, specs),
            files=(
                *(layer.origin for layer in found.layers if layer.modified is not None),
                *given.files,
            ),
            awaited=(*given.awaited, *found.awaited),
            applications=given.result,
            layers=(*defaults.described(validated, offers), *found.described),
            checks=_checks(validated, offers),
            plugins=validated.plugin_settings,
            queue_store=validated.store_settings,
            warnings=problems,
            secrets=resolution.policy,
            references={**given.references, **resolution.references},
            known=tuple(dict.fromkeys((*resolution.known_below(()), *given.known))),
            _specs=specs,
            _merged=merged,
            besides=tuple(dict.fromkeys(file for one in reality.values() for file in one.files)),
        ),
        problems,
    )


def _checks(validated: Validated, offers: Offers | None) -> tuple[ConfiguredCheck, ...]:
    if offers is None:
        return ()
    checks = validated.settings.checks
    return tuple(
        ConfiguredCheck(
            name=name,
            check=checks[name],
            type=offers.check_types[checks[name].type],
            settings=settings,
        )
        for name, settings in sorted(validated.check_settings.items())
    )


def _digest(validated: Validated, specs: tuple[ServiceSpec, ...]) -> str:
    settings = validated.settings.model_dump(mode="json", exclude={"services"})
    body = {"settings": settings, "specs": [to_wire(spec) for spec in specs]}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16, key=_DIGEST_KEY).hexdigest()
