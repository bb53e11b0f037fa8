from dataclasses import replace
from typing import Any

import pytest

from atlasd.config.difference import MISSING, both, changes, settings_users, summary
from atlasd.config.effects import DELIVERED, SECTIONS, effect, restarts
from atlasd.config.schema import Settings
from atlasd.config.service import Service
from atlasd.contracts.config import KeyPath
from atlasd.contracts.review import Change
from atlasd.services.spec import RESTART_FIELDS, Delivery, ServiceSpec
from tests.unit.config.desk import Desk

WEB = ServiceSpec(name="web", command=("sleep", "1"))
NOW = {"web": WEB}


def test_every_section_of_the_schema_has_an_effect() -> None:
    assert set(SECTIONS) == set(Settings.model_fields)


def test_a_section_that_nobody_decided_on_needs_a_new_start() -> None:
    assert effect(("backups", "nightly"), {}, {}) == "restart core"


def test_every_field_that_only_a_new_process_can_have_is_known_by_its_setting() -> None:
    by_setting = {name for name in Service.model_fields if restarts(name, ())}
    assert set(RESTART_FIELDS) <= by_setting
    assert {"env_file", "inherit_env", "worker", "ready", "reload", "limits"} == by_setting - set(
        RESTART_FIELDS
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("host", "log_budget"), "live"),
        (("log", "level"), "live"),
        (("jobs", "queues", "email", "size"), "live"),
        (("jobs", "store"), "restart core"),
        (("api", "listen"), "restart api"),
        (("checks", "disk", "interval"), "live"),
        (("services", "web", "command"), "restart service web"),
        (("services", "web", "env", "PORT"), "restart service web"),
        (("services", "web", "env_file"), "restart service web"),
        (("services", "web", "limits", "memory"), "live"),
        (("services", "web", "limits", "nofile"), "restart service web"),
        (("services", "web", "ready", "notify"), "restart service web"),
        (("services", "web", "ready", "http"), "live"),
        (("services", "web", "reload", "notify"), "restart service web"),
        (("services", "web", "reload", "signal"), "live"),
        (("services", "web", "restart", "policy"), "live"),
        (("services", "web", "instances"), "scale service web"),
        (("services", "web", "secrets", "DB"), "deliver service web"),
        (("services", "web", "settings"), "deliver service web"),
        (("services", "other", "command"), "live"),
        ((), "live"),
    ],
)
def test_what_a_change_would_take(path: KeyPath, expected: str) -> None:
    assert effect(path, NOW, NOW) == expected


def test_what_is_delivered_is_part_of_the_schema() -> None:
    assert set(Service.model_fields) >= DELIVERED


def test_a_service_that_comes_or_goes_is_started_or_stopped() -> None:
    path = ("services", "web", "command")
    assert effect(path, {}, NOW) == "start service web"
    assert effect(path, NOW, {}) == "stop service web"
    idle = {"web": replace(WEB, enabled=False)}
    assert effect(path, {}, idle) == "live"
    assert effect(("services", "web", "enabled"), NOW, idle) == "stop service web"
    assert effect(("services", "web", "enabled"), idle, NOW) == "start service web"


def test_what_comes_to_the_same_needs_no_new_process() -> None:
    # An environment file was moved; the variables are what they were.
    same = {"web": replace(WEB)}
    assert effect(("services", "web", "env_file"), NOW, same) == "live"


def test_settings_of_an_application_go_to_those_who_are_given_them() -> None:
    data = {"services": {"web": {"settings": ["shop"]}, "mail": {"settings": "shop"}, "db": {}}}
    users = settings_users(data)
    path = ("settings", "shop", "values", "debug")
    assert effect(path, NOW, NOW, users=users) == "deliver service mail; deliver service web"
    assert effect(("settings", "other"), NOW, NOW, users=users) == "live"


def difference(desk: Desk, before: str, after: str) -> dict[str, Change]:
    old = desk.load(before)
    return {change.key: change for change in changes(old, desk.load(after))}


def test_a_difference_names_each_key_with_its_place_and_effect(desk: Desk) -> None:
    found = difference(
        desk,
        '[log]\nlevel = "info"\n[services.web]\ncommand = "sleep 1"\nnice = 3\n',
        '[services.web]\ncommand = "sleep 2"\nstop = { timeout = "3s" }\n[services.db]\n'
        'command = "true"\n',
    )
    told = {key: (c.kind, c.old, c.new, c.effect) for key, c in found.items()}
    assert told == {
        "log.level": ("removed", "info", None, "live"),
        "services.db.command": ("added", None, "true", "start service db"),
        "services.web.command": ("changed", "sleep 1", "sleep 2", "restart service web"),
        "services.web.nice": ("removed", 3, None, "restart service web"),
        "services.web.stop.timeout": ("added", None, "3s", "live"),
    }
    assert found["services.web.command"].where == f"{desk.etc}/atlasd.toml:2:11"
    assert found["log.level"].where == f"{desk.etc}/atlasd.toml:2:9"


def test_equal_configurations_have_no_difference(desk: Desk) -> None:
    text = '[services.web]\ncommand = "sleep 1"\n'
    assert difference(desk, text, "# a comment\n" + text) == {}


def test_numbers_and_booleans_that_python_calls_equal_differ(desk: Desk) -> None:
    before = desk.load("[plugins.a]\nx = 1\n")
    for text in ("x = 1.0", "x = true"):
        after = desk.load(f"[plugins.a]\n{text}\n")
        assert [change.key for change in changes(before, after)] == ["plugins.a.x"]


def test_no_secret_stands_in_a_difference(desk: Desk) -> None:
    found = difference(
        desk,
        '[services.web]\ncommand = "sleep 1"\nenv = { DB_PASSWORD = "hunter22" }\n',
        '[services.web]\ncommand = "sleep 1"\nenv = { DB_PASSWORD = "hunter33", '
        'URL = "postgres://app:hunter44@db/app" }\n',
    )
    text = repr([(c.old, c.new) for c in found.values()])
    assert "hunter" not in text
    assert found["services.web.env.DB_PASSWORD"].old == "[not shown]"
    assert found["services.web.env.URL"].new == "postgres://app:[not shown]@db/app"
    # And none in the representation, which may land in a log.
    assert "app:" not in repr(found["services.web.env.URL"])


def test_what_changes_although_no_key_does_is_told_of_the_service(desk: Desk) -> None:
    text = '[services.web]\ncommand = "sleep 1"\nenv_file = "/etc/shop.env"\n'
    desk.host.files = {"/etc/shop.env": b"PORT=1\n"}
    before = desk.load(text)
    desk.host.files = {"/etc/shop.env": b"PORT=2\n"}
    (change,) = changes(before, desk.load(text))
    assert (change.key, change.effect) == ("services.web", "restart service web")


class Given:
    """A side of a difference whose services are handed something."""

    def __init__(self, desk: Desk, **values: Any) -> None:
        self._config = desk.load('[services.web]\ncommand = "sleep 1"\n')
        self.data = self._config.data
        self.origin = self._config.origin
        self._values = values

    def specs(self) -> tuple[ServiceSpec, ...]:
        return tuple(replace(spec, **self._values) for spec in self._config.specs())


def test_a_secret_that_was_rotated_is_delivered(desk: Desk) -> None:
    before = Given(desk, deliveries=(Delivery(name="DB", content="YQ=="),))
    after = Given(desk, deliveries=(Delivery(name="DB", content="Yg=="),))
    (change,) = changes(before, after)
    assert (change.key, change.effect) == ("services.web", "deliver service web")


def test_a_summary_is_short() -> None:
    def change(key: str) -> Change:
        return Change(key=key, kind="changed")

    assert summary([]) == "nothing differs"
    assert summary([change("a"), change("b")]) == "a, b"
    assert summary([change(key) for key in "abcdef"]) == "a, b, c and 3 more"


@pytest.mark.parametrize("sealed", ["enc:v1:ab12:gAAAA", "secret://shop/key", "${secret:shop#key}"])
def test_what_a_reference_stands_for_is_not_shown_beside_it(desk: Desk, sealed: str) -> None:
    path = ("services", "web", "env", "GREETING")
    assert both("plain text", sealed, path) == ("[not shown]", sealed)
    assert both(sealed, "plain text", path) == (sealed, "[not shown]")
    assert both("plain text", "another", path) == ("plain text", "another")
    assert both(MISSING, sealed, path) == (None, sealed)
