"""Which files are read, in which order, and which environment they are read for."""

import os
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from atlasd.config.load import Offers, check
from atlasd.contracts.checks import Check, CheckType
from atlasd.contracts.settings import Settings
from atlasd.errors import EXIT_CONFIG, AtlasError
from tests.unit.config.desk import SOURCES, Desk


class HttpSettings(Settings):
    url: str = Field(description="What is asked.")
    status: int = Field(200, description="What it answers.")


def never(settings: Any, context: Any) -> AbstractAsyncContextManager[Check]:
    raise AssertionError("validation opens nothing")


HTTP = CheckType(name="http", summary="asks", settings=HttpSettings, open=never)

WEB = '[services.web]\ncommand = "sleep 9"\n'


def test_the_order_is_main_file_parts_in_byte_order_environment(desk: Desk) -> None:
    desk.write(WEB + "instances = 1\nnice = 1\numask = '001'\nmin_uptime = '1s'\n")
    desk.write("services.web.nice = 2\nservices.web.umask = '002'", "conf.d/B.toml")
    desk.write("services.web.umask = '003'\nservices.web.nice = 3", "conf.d/a.toml")
    desk.write("services.web.umask = '004'", "environments/production.toml")
    desk.write("services.web.umask = '777'", "environments/staging.toml")
    config = desk.load()
    (spec,) = config.specs()
    assert (spec.instances, spec.nice, spec.umask, spec.min_uptime) == (1, 3, 0o004, 1.0)
    assert [os.path.relpath(file, desk.etc) for file in config.files] == [
        "atlasd.toml",
        "conf.d/B.toml",
        "conf.d/a.toml",
        "environments/production.toml",
    ]
    assert [Path(old.place.origin).name for old in config.shadowed("services.web.umask")] == [
        "atlasd.toml",
        "B.toml",
        "a.toml",
    ]
    where = config.origin("services.web.umask")
    assert (Path(where.origin).name, where.line, where.column) == ("production.toml", 1, 22)


def test_the_environment_is_the_options_then_the_variables_then_the_files(desk: Desk) -> None:
    assert desk.load(WEB).environment == "production"
    assert desk.load().environment_chosen_by == "default"
    desk.write('[host]\nenvironment = "staging"\n' + WEB)
    assert desk.load().environment == "staging"
    assert desk.load().environment_chosen_by == f"{desk.etc}/atlasd.toml:2:15"
    desk.write('host.environment = "production"', "conf.d/x.toml")
    assert desk.load().environment == "production"
    desk.environ["ATLASD_ENV"] = "development"
    assert desk.load().environment == "development"
    desk.env = "staging"
    assert desk.load().environment == "staging"
    assert desk.load().environment_chosen_by == "--env"


def test_a_file_makes_an_environment_and_an_empty_variable_none(desk: Desk) -> None:
    desk.write("services.web.instances = 5", "environments/lab.toml")
    desk.environ["ATLASD_ENV"] = ""
    assert desk.load(WEB).environment == "production"
    desk.environ["ATLASD_ENV"] = "lab"
    assert desk.load().specs()[0].instances == 5


@pytest.mark.parametrize(
    ("name", "hint"),
    [("prodution", "did you mean 'production'?"), ("x", "write environments/x.toml to have it")],
)
def test_an_unknown_environment_is_refused_with_the_known_ones(
    desk: Desk, name: str, hint: str
) -> None:
    desk.write("", "environments/lab.toml")
    desk.env = name
    with pytest.raises(AtlasError) as caught:
        desk.load(WEB)
    assert caught.value.code == "config.environment"
    assert caught.value.kind.exit == EXIT_CONFIG
    assert caught.value.message == (
        f"--env: unknown environment {name!r}; "
        "known environments: development, lab, production, staging"
    )
    assert caught.value.hint == hint


def test_an_environments_file_cannot_name_another_environment(desk: Desk) -> None:
    desk.write('[host]\nenvironment = "staging"', "environments/production.toml")
    assert desk.says(WEB) == [
        (
            'environments/production.toml:2:15: host.environment: expected "production", as '
            "the file is named, or nothing, got 'staging'"
        )
    ]


def test_without_a_main_file_there_is_no_configuration(desk: Desk) -> None:
    with pytest.raises(AtlasError) as caught:
        desk.load()
    assert caught.value.code == "config.missing"
    assert caught.value.message == f"{desk.etc}/atlasd.toml: there is no configuration"
    assert "--config FILE" in caught.value.hint


def test_a_main_file_of_no_known_kind_is_refused(desk: Desk) -> None:
    from dataclasses import replace

    desk = replace(desk, paths=replace(desk.paths, config="/etc/atlasd.ini"))
    with pytest.raises(AtlasError, match="no plugin reads files of this kind") as caught:
        desk.load()
    assert caught.value.hint == "known endings: .json, .toml, .yaml, .yml"


def test_all_files_that_do_not_parse_are_named_at_once(desk: Desk) -> None:
    desk.write("[services.web\n")
    desk.write("a = 1\nb = ?\n", "conf.d/a.toml")
    said = desk.says("[services.web\n")
    assert [line.split(": ")[0] for line in said] == ["atlasd.toml:1:14", "conf.d/a.toml:2:5"]


def test_leftovers_are_passed_over_and_other_files_warned_of(desk: Desk) -> None:
    for name in (".hidden.toml", "x.toml~", "x.toml.bak", "#x.toml#", "README.md", "y.toml.rej"):
        desk.write("not = TOML", f"conf.d/{name}")
    desk.write("a = 1", "conf.d/z.ini")
    (desk.etc / "conf.d" / "folder.toml").mkdir()
    assert desk.says(WEB) == [
        (
            "conf.d/folder.toml: warning: not read: no plugin reads files of this kind; "
            "known endings: .json, .toml, .yaml, .yml"
        ),
        (
            "conf.d/z.ini: warning: not read: no plugin reads files of this kind; "
            "known endings: .json, .toml, .yaml, .yml"
        ),
    ]
    assert [Path(problem.file).name for problem in desk.load().warnings] == [
        "folder.toml",
        "z.ini",
    ]


def test_a_link_to_nothing_is_an_error(desk: Desk) -> None:
    desk.write(WEB)
    (desk.etc / "conf.d").mkdir()
    (desk.etc / "conf.d" / "gone.toml").symlink_to("/nonexistent.toml")
    (said,) = desk.says()
    assert said.startswith("conf.d/gone.toml: there is no such file")


def test_kinds_that_differ_between_layers_are_an_error_with_both_places(desk: Desk) -> None:
    desk.write('[services.web]\nstop = "TERM"\nnice = "1"', "conf.d/a.toml")
    assert desk.says(WEB + 'stop = { signal = "INT" }\nnice = 1\n') == [
        "conf.d/a.toml:2:8: services.web.stop: expected a table, as in "
        f"{desk.etc}/atlasd.toml:3:8, got a string".replace(f"{desk.etc}/", ""),
        "conf.d/a.toml:3:8: services.web.nice: expected a number, as in "
        f"{desk.etc}/atlasd.toml:4:8, got a string".replace(f"{desk.etc}/", ""),
    ]


def test_another_spelling_of_the_same_setting_is_no_conflict(desk: Desk) -> None:
    desk.write(
        '[services.web]\ncommand = ["sleep", "1"]\nrestart = { policy = "never" }\n'
        'sockets.http = { address = "tcp://127.0.0.1:81" }\nenv_file = []\n',
        "conf.d/a.toml",
    )
    config = desk.load(
        WEB + 'restart = "always"\nsockets.http = "tcp://127.0.0.1:80"\nenv_file = "x"\n'
    )
    (spec,) = config.specs()
    assert spec.command == ("sleep", "1")
    assert spec.restart.policy == "never"
    assert spec.sockets[0].address == "tcp://127.0.0.1:81"


def test_a_folder_that_may_not_be_read_is_an_error(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write("services.web.nice = 1", "conf.d/a.toml")
    listed = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "conf.d":
            raise PermissionError(13, "Permission denied")
        return iter(listed(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert desk.says(WEB) == ["conf.d: the folder cannot be read: Permission denied"]


def test_every_layer_beats_those_below_it_in_the_declared_order(desk: Desk) -> None:
    layers = [
        ("main file", "nice = 1"),
        ("conf.d/a.yaml", "services: {web: {nice: 2}}"),
        ("conf.d/b.json", '{"services": {"web": {"nice": 3}}}'),
        ("environments/base.toml", "services.web.nice = 4"),
        ("environments/production.toml", 'extends = "base"\nservices.web.nice = 5'),
        ("hosts/web1.toml", "services.web.nice = 6"),
        ("atlasd.env", "ATLASD__SERVICES__WEB__NICE=7"),
    ]
    desk.write(WEB + layers[0][1])
    for name, text in layers[1:]:
        desk.write(text, name)
    desk.environ["ATLASD__SERVICES__WEB__NICE"] = "8"
    desk.overrides = ("services.web.nice=9",)
    config = desk.load()
    assert config.specs()[0].nice == 9
    assert [old.value for old in config.shadowed("services.web.nice")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [old.layer for old in config.shadowed("services.web.nice")] == [
        "main file",
        "conf.d",
        "conf.d",
        "environment base",
        "environment production",
        "host file",
        ".env file",
        "process environment",
    ]
    assert config.layer_of("services.web.nice") == "command line"
    assert str(config.origin("services.web.nice")) == "--set services.web.nice"
    assert config.layer_of("services.web.command") == "main file"
    assert config.layer_of("services.web.umask") == ""
    assert [Path(file).name for file in config.files] == [
        "atlasd.toml",
        "a.yaml",
        "b.json",
        "base.toml",
        "production.toml",
        "web1.toml",
        "atlasd.env",
    ]


def test_the_layers_can_be_listed_with_what_is_known_of_them(desk: Desk) -> None:
    main = desk.write(WEB)
    os.utime(main, (1.0, 1764100000.0))
    desk.write("ATLASD__LOG__LEVEL=debug\n", "atlasd.env")
    desk.environ["ATLASD__LOG__FORMAT"] = "text"
    listed = desk.load().layers
    assert [(one.name, one.source, one.dialect, one.keys, one.present) for one in listed[2:]] == [
        ("main file", "toml", "", 1, True),
        ("environment production", "", "", 0, False),
        ("host file", "", "", 0, False),
        (".env file", "dotenv", "systemd", 1, True),
        ("process environment", "environ", "", 1, True),
        ("command line", "", "", 0, False),
    ]
    assert [one.name for one in listed[:2]] == ["built-in defaults", "plugin defaults"]
    assert listed[0].keys > 10
    assert listed[2].origin == str(main)
    assert listed[2].modified == datetime.fromtimestamp(1764100000.0, UTC)
    assert listed[2].to_wire()["modified"] == "2025-11-25T19:46:40+00:00"
    assert listed[4].origin == f"{desk.etc}/hosts/web1.toml"
    assert f"{desk.etc}/hosts/web1.toml" in desk.load().awaited


@pytest.mark.parametrize("name", ["web1.toml", "web1.example.org.toml", "web1.yaml"])
def test_a_host_has_a_file_with_or_without_its_domain(desk: Desk, name: str) -> None:
    text = "services: {web: {nice: 3}}" if name.endswith("yaml") else "services.web.nice = 3"
    desk.write(text, f"hosts/{name}")
    desk.write("services.web.nice = 4", "hosts/web2.toml")
    assert desk.load(WEB).specs()[0].nice == 3


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("hosts/web1.toml", 'host.environment = "staging"'),
        ("atlasd.env", "ATLASD__HOST__ENVIRONMENT=staging"),
    ],
)
def test_higher_layers_choose_the_environment_too(desk: Desk, place: str, text: str) -> None:
    desk.write(text, place)
    desk.write("services.web.nice = 7", "environments/staging.toml")
    config = desk.load(WEB)
    assert (config.environment, config.specs()[0].nice) == ("staging", 7)
    assert config.environment_chosen_by.startswith(f"{desk.etc}/{place}:1:")


def test_the_environment_may_be_chosen_by_a_variable_and_on_the_command_line(desk: Desk) -> None:
    desk.environ["ATLASD__HOST__ENVIRONMENT"] = "staging"
    assert desk.load(WEB).environment_chosen_by == "environment ATLASD__HOST__ENVIRONMENT"
    desk.overrides = ("host.environment=development",)
    assert desk.load().environment == "development"
    assert desk.load().environment_chosen_by == "--set host.environment"


def test_a_chain_of_environments_is_laid_from_its_end(desk: Desk) -> None:
    desk.write("services.web = { nice = 1, instances = 1, umask = '001' }", "environments/a.toml")
    desk.write("extends: a\nservices: {web: {nice: 2, instances: 2}}", "environments/b.yaml")
    desk.write('extends = "b"\nservices.web.nice = 3', "environments/c.toml")
    desk.env = "c"
    (spec,) = desk.load(WEB).specs()
    assert (spec.nice, spec.instances, spec.umask) == (3, 2, 0o001)
    desk.env = "b"
    assert desk.load(WEB).specs()[0].nice == 2


def test_an_environment_may_extend_one_that_needs_no_file(desk: Desk) -> None:
    desk.write('extends = "production"\nservices.web.nice = 3', "environments/lab.toml")
    desk.env = "lab"
    assert desk.load(WEB).specs()[0].nice == 3


def test_variables_have_the_types_that_the_schema_wants(desk: Desk) -> None:
    desk.environ |= {
        "ATLASD__HOST__RESTART_BUDGET__RATE": "2.5",
        "ATLASD__SERVICES__WEB__INSTANCES": "3",
        "ATLASD__SERVICES__WEB__CRITICAL": "true",
        "ATLASD__SERVICES__WEB__COMMAND": '["sleep", "1"]',
        "ATLASD__SERVICES__WEB__RESTART__SUCCESS_CODES": "[0, 3]",
        "ATLASD__SERVICES__WEB__ENV__MY__OWN": "[x]",
        "ATLASD__SERVICES__WEB__LIMITS": '{"nofile": 100}',
        "ATLASD__SERVICES__WEB__STOP__TIMEOUT": "30s",
        "ATLASD__SERVICES__WEB__UMASK": "0027",
        "ATLASD__SERVICES__WEB__NICE": "{unset = true}",
        "ATLASD__SERVICES__MORE__COMMAND": "echo hello",
    }
    config = desk.load(WEB + "nice = 5\n")
    more, web = config.specs()
    assert config.host.restart_budget.rate == 2.5
    assert (web.instances, web.critical, web.command) == (3, True, ("sleep", "1"))
    assert web.restart.success_codes == (0, 3)
    assert web.env["MY__OWN"] == "[x]"
    assert (web.limits.nofile, web.stop.timeout, web.umask, web.nice) == (100, 30.0, 0o027, None)
    assert more.command == ("echo", "hello")
    assert config.unset("services.web.nice") is not None
    assert config.unset("services.web.umask") is None


def test_variables_of_names_with_dashes_and_of_plugins_are_understood(desk: Desk) -> None:
    desk.offers = Offers(check_types={"http": HTTP}, plugin_settings={})
    desk.environ |= {
        "ATLASD__SERVICES__MY_SHOP__NICE": "3",
        "ATLASD__CHECKS__SHOP__TYPE": "http",
        "ATLASD__CHECKS__SHOP__URL": "http://127.0.0.1/",
        "ATLASD__CHECKS__SHOP__STATUS": "201",
    }
    config = desk.load("[services.my-shop]\ncommand = 'sleep 9'\n")
    assert config.specs()[0].nice == 3
    (check,) = config.checks
    assert check.settings.model_dump() == {"url": "http://127.0.0.1/", "status": 201}


def test_relative_paths_in_variables_start_at_the_main_file(desk: Desk) -> None:
    desk.environ["ATLASD__SERVICES__WEB__CWD"] = "shop"
    desk.overrides = ("services.more.command=sleep 1", "services.more.cwd=more")
    more, web = desk.load(WEB).specs()
    assert (more.cwd, web.cwd) == (f"{desk.etc}/more", f"{desk.etc}/shop")


def test_operators_work_on_defaults_short_forms_and_by_variables(desk: Desk) -> None:
    desk.write(
        "services:\n  web:\n    inherit_env+: [SHOP]\n    command+: --debug\n", "conf.d/a.yaml"
    )
    desk.overrides = ('services.web.inherit_env-=["EDITOR", "TZ"]',)
    config = desk.load(WEB)
    assert config.specs()[0].command == ("sleep", "9", "--debug")
    inherited = config.settings.services["web"].inherit_env
    assert inherited[-1] == "SHOP"
    assert "TZ" not in inherited
    assert [problem.got for problem in config.warnings] == ['"EDITOR" is not in the list below']


def test_a_reference_shadows_a_value_of_another_kind(desk: Desk) -> None:
    desk.write('services.web.nice = "${env:NICE}"', "conf.d/a.toml")
    desk.environ["NICE"] = "7"
    said = desk.says(WEB + "nice = 5\n")
    assert not any("as in" in line for line in said)


def test_without_the_plugins_for_variables_that_is_said(desk: Desk) -> None:
    desk.write(WEB)
    desk.write("ATLASD__LOG__LEVEL=debug\n", "atlasd.env")
    desk.environ["ATLASD__LOG__LEVEL"] = "debug"
    problems = check(desk.paths, SOURCES[:1], environ=desk.environ, host=desk.host)
    assert [problem.got for problem in problems] == [
        "not read: no plugin reads .env files",
        "not read: no plugin finds out which settings variables mean",
    ]
    assert all(problem.warning for problem in problems)


def test_an_empty_layer_changes_nothing(desk: Desk) -> None:
    for name in ("conf.d/a.yaml", "conf.d/b.json", "conf.d/c.toml", "atlasd.env", "hosts/web1.yml"):
        desk.write("", name)
    assert desk.says(WEB) == []
