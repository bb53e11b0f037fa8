"""Which files are read, in which order, and which environment they are read for."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlasd.errors import EXIT_CONFIG, AtlasError
from tests.unit.config.desk import Desk

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
