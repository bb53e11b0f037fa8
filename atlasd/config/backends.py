"""`[secrets]` as the engine of secrets takes it: which backends there are, and the rules."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ValidationError

from atlasd.config import references
from atlasd.config.problems import Findings
from atlasd.config.schema import Rotation, Secrets
from atlasd.config.units import NAME, WrongValueError
from atlasd.config.validate import Offers, missing
from atlasd.contracts.config import KeyPath
from atlasd.contracts.secrets import SecretBackend, SecretsPolicy

BOOTSTRAP = ("systemd", "environ")
"""Backends that need no secret to be opened, so that the settings of others may refer to them."""
_COMMANDS = ("create", "set", "test", "retire")


def policy_of(
    secrets: Secrets,
    declared: Mapping[str, Any],
    findings: Findings,
    offers: Offers | None,
    environment: str,
) -> SecretsPolicy:
    """The policy; what is wrong with a backend or a rotation is noted in `findings`.

    `declared` is what the files say in `[secrets]`. Without `offers` there are no backends.
    """
    backends = {} if offers is None else _backends(secrets, findings, offers)
    if offers is not None:
        if "backend" in declared and secrets.backend not in {*backends, *secrets.backends}:
            findings.add(
                ("secrets", "backend"),
                expected="the name of a secret backend",
                hint=_hint(secrets.backend, backends, offers),
            )
        for name, rotation in secrets.rotate.items():
            _rotation(name, rotation, backends, findings, offers)
    return SecretsPolicy(
        environment=environment,
        backend=secrets.backend,
        backends=backends,
        fresh_for=timedelta(seconds=secrets.fresh_for),
        max_stale=timedelta(seconds=secrets.max_stale),
        revocation_grace=timedelta(seconds=secrets.revocation_grace),
        fail_closed=secrets.fail_closed,
    )


def lacking(name: str, policy: SecretsPolicy, offers: Offers) -> tuple[str, str] | None:
    """What is wrong with a backend's name, and what may help; None when there is such a backend."""
    if name in policy.backends:
        return None
    if name in offers.secret_backends:
        said = f"the backend {name} has settings that must be given"
        return said, f"write a table [secrets.backends.{name}]"
    return f"there is no secret backend {name!r}", _hint(name, policy.backends, offers)


def _backends(
    secrets: Secrets, findings: Findings, offers: Offers
) -> dict[str, tuple[str, BaseModel]]:
    found: dict[str, tuple[str, BaseModel]] = {}
    for name, table in secrets.backends.items():
        path: KeyPath = ("secrets", "backends", name)
        if not NAME.fullmatch(name):
            expected = "a name of small letters, digits, - and _, a letter first"
            findings.add(path, expected=expected, got=repr(name), at_key=True)
            continue
        word = table.type or name
        kind = offers.secret_backends.get(word)
        if kind is None:
            findings.add(
                (*path, "type") if table.type else path,
                expected="the type of a secret backend",
                got=None if table.type else f"{name!r}, and no `type` beside it",
                hint=missing(word, tuple(offers.secret_backends), offers),
                at_key=not table.type,
            )
            continue
        settings = dict(table.model_extra or {})
        try:
            found[name] = (word, kind.settings.model_validate(settings))
        except ValidationError as error:
            findings.take(error, path, settings, kind.settings, extra_keys=("type",))
    for name, kind in offers.secret_backends.items():
        if name not in secrets.backends:
            default = _default(kind)
            if default is not None:
                found[name] = (name, default)
    return found


def _default(kind: SecretBackend) -> BaseModel | None:
    try:
        return kind.settings()
    except ValidationError:
        return None


def _hint(name: str, backends: Mapping[str, object], offers: Offers) -> str:
    return missing(name, tuple(sorted({*backends, *offers.secret_backends})), offers)


def _rotation(
    name: str,
    rotation: Rotation,
    backends: Mapping[str, object],
    findings: Findings,
    offers: Offers,
) -> None:
    path: KeyPath = ("secrets", "rotate", name)
    try:
        secret = references.address(name, backends)
    except WrongValueError as error:
        findings.add(path, expected=error.expected, got=error.got, hint=error.hint, at_key=True)
        return
    if secret.selector or secret.field:
        findings.add(path, expected="a secret's name alone", got=repr(name), at_key=True)
    if rotation.rotator is None:
        return
    if rotation.rotator not in offers.rotators:
        findings.add(
            (*path, "rotator"),
            expected="the name of a rotator",
            hint=missing(rotation.rotator, tuple(offers.rotators), offers),
        )
    for command in _COMMANDS:
        if getattr(rotation, command) is not None:
            findings.add(
                (*path, command),
                got="a command, where a rotator is named as well",
                hint=f"remove `{command}`, or `rotator`",
                at_key=True,
            )
