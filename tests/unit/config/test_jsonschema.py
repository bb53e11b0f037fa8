"""The JSON Schema of the configuration: what ships is valid by it, and mistakes are not."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import Field

from atlasd.config.jsonschema import schema
from atlasd.config.load import Offers
from atlasd.contracts.checks import CheckType
from atlasd.contracts.settings import Settings
from atlasd_plugins.checks_http import register_health_checks

ROOT = Path(__file__).parents[3]
ETC = ROOT / "etc"
REFERENCE = re.sub(r"^#(?=[A-Za-z_\[])", "", (ETC / "atlasd.toml").read_text(), flags=re.MULTILINE)


class ShopSettings(Settings):
    depth: int = Field(description="How deep.")


def offers() -> Offers:
    kinds: list[CheckType] = register_health_checks()
    return Offers(
        check_types={kind.name: kind for kind in kinds}, plugin_settings={"shop": ShopSettings}
    )


PLAIN = schema()
FULL = schema(offers())


def faults(text: str, by: dict[str, Any] = FULL) -> list[str]:
    found = Draft202012Validator(by).iter_errors(tomllib.loads(text))
    return [".".join(map(str, error.absolute_path)) for error in found]


@pytest.mark.parametrize("by", [PLAIN, FULL], ids=["plain", "full"])
def test_it_is_a_schema_and_json(by: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(by)
    assert json.loads(json.dumps(by)) == by


def test_every_key_has_its_description() -> None:
    tables = [PLAIN, *PLAIN["$defs"].values()]
    bare = [
        name
        for table in tables
        for name, body in table.get("properties", {}).items()
        if not body.get("description") and name not in ("unset", "$schema")
    ]
    assert bare == []
    assert PLAIN["$defs"]["Service"]["properties"]["start_timeout"]["default"] == "1m"
    assert PLAIN["$defs"]["Service"]["properties"]["inherit_env"]["default"][0] == "PATH"


@pytest.mark.parametrize(
    "path",
    [ETC / "atlasd.toml", *(ETC / "environments").glob("*.toml"), ETC / "demo" / "atlasd.toml"],
    ids=lambda path: path.stem,
)
@pytest.mark.parametrize("by", [PLAIN, FULL], ids=["plain", "full"])
def test_what_ships_is_valid(path: Path, by: dict[str, Any]) -> None:
    assert faults(path.read_text(), by) == []


def test_the_reference_with_every_setting_is_valid() -> None:
    assert faults(REFERENCE, PLAIN) == []


SERVICE = "[services.web]\ncommand = 'true'\n"


@pytest.mark.parametrize(
    "line",
    [
        "instances = '${env:N}'",
        "'requires+' = ['db']",
        "'requires-' = ['db']",
        "nice = { unset = true }",
        "restart = 'always'",
        "restart = { policy = 'always' }",
        "start_timeout = '1h30m'",
        "start_timeout = 'secret://timeout'",
        "limits = { memory = '1GiB', nofile = 100 }",
        "limits = { memory = 1000 }",
        "pre_start = ['true', { command = ['a', 'b'], timeout = '1s' }]",
        "pre_start = { command = 'true' }",
        "sockets.http = 'tcp://127.0.0.1:80'",
        "env = { A = 'b', B = 5 }",
        "on_change = 'reload'",
    ],
)
def test_everything_that_may_be_written_is_taken(line: str) -> None:
    assert faults(SERVICE + line) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("servics = {}", ""),
        ("[services.web]\ncomand = 'x'", "services.web"),
        (SERVICE + "instances = 'many'", "services.web.instances"),
        (SERVICE + "instances = 1001", "services.web.instances"),
        (SERVICE + "instances = 1.5", "services.web.instances"),
        (SERVICE + "start_timeout = '10'", "services.web.start_timeout"),
        (SERVICE + "start_timeout = 10", "services.web.start_timeout"),
        (SERVICE + "critical = 'yes'", "services.web.critical"),
        (SERVICE + "restart = { polcy = 'always' }", "services.web.restart"),
        (SERVICE + "type = 'forking'", "services.web.type"),
        ("host.log_budget = '1 GB'", "host.log_budget"),
        ("host.restart_budget.rate = 0", "host.restart_budget"),
        ("[checks.a]\ntype = 'http'\nurl = 5", "checks.a"),
        ("[plugins.shop]\ndepth = true", "plugins.shop.depth"),
    ],
)
def test_a_mistake_is_seen(text: str, path: str) -> None:
    found = faults(text)
    assert found
    assert all(path.startswith(one) or one.startswith(path) for one in found), found
