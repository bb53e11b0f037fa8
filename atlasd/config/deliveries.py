"""Rules about what a service is handed: its secrets, its settings, and a change of them."""

from collections.abc import Collection, Mapping

from atlasd.config.fields import ENV_NAME
from atlasd.config.problems import Findings
from atlasd.config.referenced import Referenced
from atlasd.config.service import Service
from atlasd.contracts.config import KeyPath
from atlasd.services.spec import LIVE_WAYS, SECRETS_DIR

LONGEST_FILE_NAME = 255
"""Bytes, as the kernel takes them."""
_SUFFIXES = {"file": "_FILE", "fd": "_FD", "env": ""}


def examine(service: Service, path: KeyPath, reserved: Collection[str], findings: Findings) -> None:
    """Note every breach of a rule. `reserved` are the variables that atlasd sets itself."""
    _names(service, path, reserved, findings)
    _files(service, path, findings)
    _variables(service, path, findings)
    _on_change(service, path, findings)


def examine_variables(
    services: Mapping[str, Service], references: Mapping[KeyPath, Referenced], findings: Findings
) -> None:
    """Note services that have secrets in their `env` alone, and could not be told of a change."""
    for name, service in services.items():
        if secret_variables(name, references) and not service.secrets and not service.settings:
            _reaches(service, ("services", name), findings)


def secret_variables(service: str, references: Mapping[KeyPath, Referenced]) -> tuple[str, ...]:
    """The variables in the service's own `env` that are made of secrets."""
    return tuple(
        str(path[3])
        for path, referenced in references.items()
        if path[:3] == ("services", service, "env") and len(path) == 4 and referenced.sources
    )


def told_by(name: str, deliver: str) -> str:
    """The variable by which the program is told of a secret: `DB_PASSWORD_FILE`."""
    return name + _SUFFIXES[deliver]


def _names(service: Service, path: KeyPath, reserved: Collection[str], findings: Findings) -> None:
    taken = dict.fromkeys(reserved, "atlasd sets it itself")
    taken[SECRETS_DIR] = "it names the folder of the files"
    _settings_variables(service, path, taken, findings)
    taken |= {name: f"env.{name} sets it too" for name in service.env if name not in taken}
    for name, secret in service.secrets.items():
        here = (*path, "secrets", name)
        if not ENV_NAME.fullmatch(name):
            findings.add(
                here,
                expected="a variable's name of letters, digits and _, no digit first",
                got=repr(name),
                at_key=True,
            )
            continue
        variable = told_by(name, secret.deliver)
        if variable in taken:
            findings.add(
                here,
                got=f"the program would be told by the variable {variable}: {taken[variable]}",
                hint="give one of them another name",
                at_key=True,
            )
        taken[variable] = f"secrets.{name} is told by it"
    if SECRETS_DIR in service.env and _files_of(service):
        findings.add(
            (*path, "env", SECRETS_DIR),
            got="atlasd sets it itself",
            hint="remove it",
            at_key=True,
        )


def _settings_variables(
    service: Service, path: KeyPath, taken: dict[str, str], findings: Findings
) -> None:
    """The variables by which the program is told of its rendered settings."""
    for index, file in enumerate(service.settings_file):
        here = (*path, "settings_file", index, "name")
        variable = told_by(file.name, "file")
        if not ENV_NAME.fullmatch(file.name):
            findings.add(
                here, expected="a variable's name of letters, digits and _, no digit first"
            )
        elif variable in taken:
            findings.add(
                here,
                got=f"the program would be told by the variable {variable}: {taken[variable]}",
                hint='give each file a name of its own, as name = "SHOP"',
            )
        else:
            taken[variable] = f"settings_file[{index}] is told by it"


def _files_of(service: Service) -> bool:
    delivered = any(secret.deliver == "file" for secret in service.secrets.values())
    return delivered or bool(service.settings_file)


def _files(service: Service, path: KeyPath, findings: Findings) -> None:
    seen: dict[str, str] = {}
    for index, file in enumerate(service.settings_file):
        here: KeyPath = (*path, "settings_file", index, "path")
        _file_name(file.path, here, findings)
        _once(file.path, f"settings_file[{index}]", here, seen, findings)
    for name, secret in service.secrets.items():
        here = (*path, "secrets", name, "path")
        if secret.deliver != "file":
            if secret.path is not None:
                findings.add(here, got=f"means nothing for {secret.deliver}", at_key=True)
            continue
        if secret.path is not None:
            _file_name(secret.path, here, findings)
        _once(secret.path or name, f"secrets.{name}", here, seen, findings)


def _file_name(name: str, here: KeyPath, findings: Findings) -> None:
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        findings.add(
            here,
            expected="the name of a file, without a folder",
            got=repr(name),
            hint=f"all of a service's files lie in one folder, which {SECRETS_DIR} names",
        )
    elif len(name.encode()) > LONGEST_FILE_NAME:
        expected = f"a name of at most {LONGEST_FILE_NAME} bytes"
        findings.add(here, expected=expected, got=f"one of {len(name.encode())}")


def _once(name: str, owner: str, here: KeyPath, seen: dict[str, str], findings: Findings) -> None:
    first = seen.setdefault(name, owner)
    if first != owner:
        findings.add(here, expected="a file of its own", got=f"{name!r}, which {first} has")


def _variables(service: Service, path: KeyPath, findings: Findings) -> None:
    for name, secret in service.secrets.items():
        if secret.deliver != "env":
            continue
        here: KeyPath = (*path, "secrets", name)
        if "\0" in secret.value:
            findings.add(
                here,
                got="the value has a zero byte, which no variable can have",
                hint='deliver = "file"',
            )
            continue
        findings.add(
            (*here, "deliver"),
            got="others can read it in /proc/PID/environ",
            hint='deliver = "file", or "fd"',
            warning=True,
        )


def _on_change(service: Service, path: KeyPath, findings: Findings) -> None:
    here = (*path, "on_change")
    table = service.on_change
    if "signal" in table.model_fields_set and table.action != "signal":
        findings.add((*here, "signal"), got=f"means nothing for {table.action}", at_key=True)
    if table.action == "signal" and table.signal in ("KILL", "STOP"):
        findings.add((*here, "signal"), expected="a signal that a program can catch")
    if table.action == "reload" and service.reload is None:
        findings.add(
            here,
            got="the service has no `reload`, so nobody knows how to tell it",
            hint='add reload = { signal = "HUP" } (or exec, notify), or use on_change = "restart"',
        )
    if service.secrets or service.settings:
        _reaches(service, path, findings)


def _reaches(service: Service, path: KeyPath, findings: Findings) -> None:
    """Note an `on_change` that could reach nothing of what is handed over."""
    table = service.on_change
    if table.action in LIVE_WAYS and not _files_of(service):
        findings.add(
            (*path, "on_change"),
            expected='"restart" or "none" where nothing is delivered as a file',
            got=f'"{table.action}", but a running process keeps the variables and descriptors that '
            "it was started with",
            hint='deliver = "file", or on_change = "restart"',
        )
