"""What `atlasctl config …` shows, word for word, of a core in memory."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atlasd.cli.commands import atlasctl
from atlasd.cli.options import run
from tests.control_double import FakeCore
from tests.serving import serving


@pytest.fixture
def core() -> FakeCore:
    return FakeCore(web=1)


Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ctl(core: FakeCore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Ctl]:
    socket = str(tmp_path / "control.sock")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(atlasctl, "atlasctl", [*arguments, "--socket", socket])
        told = capsys.readouterr()
        return code, told.out, told.err

    with serving(core, socket):
        yield call


GOLDEN = {
    ("show",): """\
# generation 7, environment production (default)
[log]
level = "debug"

[services.web]
command = ["serve"]

[services.web.env]
DB_PASSWORD = "secret://db"
""",
    ("show", "--origin"): """\
# generation 7, environment production (default)
[log]
level = "debug"  # /etc/atlasd/conf.d/log.toml:2:9

[services.web]
command = ["serve"]  # /etc/atlasd/atlasd.toml:5:11

[services.web.env]
DB_PASSWORD = "secret://db"  # /etc/atlasd/atlasd.toml:7:15
""",
    ("get", "log.level"): "debug\n",
    ("explain", "log.level"): """\
log.level = "debug"
  from      /etc/atlasd/conf.d/log.toml:2:9
  shadows   /etc/atlasd/atlasd.toml:9:9
  default   "info"
  takes     "debug", "info", "warning" or "error"
  meaning   Least severity that is logged.
  a change  live
""",
    ("reload",): """\
~ log.level: "info" → "debug"  (live)
~ services.web.command: ["serve"] → ["serve", "--fast"]  (restart service web)
2 checks changed
generation 8 is in force
""",
    ("reload", "--dry-run"): """\
~ log.level: "info" → "debug"  (live)
~ services.web.command: ["serve"] → ["serve", "--fast"]  (restart service web)
2 checks changed
nothing was changed; it would be generation 8
""",
    ("rollback", "3"): """\
generation 3 is back, as generation 8
~ log.level: "info" → "debug"  (live)
~ services.web.command: ["serve"] → ["serve", "--fast"]  (restart service web)
generation 8 is in force
""",
    ("diff", "production", "staging"): """\
log.level
  production: not set
  staging: "debug"  (/etc/atlasd/environments/staging.toml:1:9)
""",
    ("export",): '[log]\nlevel = "debug"\n',
    ("export", "--reveal"): '[log]\nlevel = "shown"\n',
    ("schema",): '{\n  "type": "object"\n}\n',
    ("set", "log.level", "debug"): """\
/etc/atlasd/atlasd.toml written
~ log.level: "info" → "debug"  (live)
""",
    ("set", "log.level", "debug", "--file", "conf.d/x.toml", "--reload"): """\
/etc/atlasd/conf.d/x.toml written
~ log.level: "info" → "debug"  (live)
~ services.web.command: ["serve"] → ["serve", "--fast"]  (restart service web)
2 checks changed
generation 8 is in force
""",
    ("unset", "log.level"): "/etc/atlasd/atlasd.toml written\nnothing changes by it\n",
    ("encrypt", "log.level"): "/etc/atlasd/atlasd.toml written\nnothing changes by it\n",
    ("decrypt", "log.level"): "/etc/atlasd/atlasd.toml written\nnothing changes by it\n",
}


@pytest.mark.parametrize("arguments", GOLDEN, ids=" ".join)
def test_what_is_shown(ctl: Ctl, arguments: tuple[str, ...]) -> None:
    assert ctl("config", *arguments) == (0, GOLDEN[arguments], "")


@pytest.mark.parametrize("arguments", GOLDEN, ids=" ".join)
def test_every_command_answers_in_json(ctl: Ctl, arguments: tuple[str, ...]) -> None:
    code, out, err = ctl("config", *arguments, "--json")
    assert (code, err) == (0, "")
    assert isinstance(json.loads(out), dict)


def test_a_history_marks_what_is_in_force_and_names_what_failed(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    _, out, _ = ctl("config", "history")
    rows = [line.split("  ") for line in out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells[0] == ["GENERATION", "TIME", "BY", "ENVIRONMENT", "STATE", "WHAT"]
    assert cells[1][0] == "7 *"
    assert cells[1][2:] == [
        "uid:0",
        "production",
        "accepted",
        "log.level, services.web.command",
    ]
    assert cells[2][0] == "6"
    assert cells[2][2:] == ["start", "production", "partial", "log: no such level"]
    _, out, _ = ctl("config", "history", "--changes")
    assert '    ~ log.level: "info" → "debug"  (live)' in out.splitlines()


def test_sources_are_listed_with_what_is_absent(ctl: Ctl) -> None:
    _, out, _ = ctl("config", "sources")
    lines = out.splitlines()
    assert lines[0] == "environment production, chosen by default"
    assert lines[2].split()[:6] == [
        "main",
        "file",
        "/etc/atlasd/atlasd.toml",
        "toml",
        "12",
        *[lines[2].split()[5]],
    ]
    assert lines[3].split() == [
        ".env",
        "file",
        "/etc/atlasd/atlasd.env",
        "dotenv",
        "(systemd)",
        "absent",
    ]


def test_warnings_go_to_standard_error(ctl: Ctl) -> None:
    _, out, err = ctl("config", "set", "log.level", "debug", "--force")
    assert err == "atlasctl: warning: it is not meant\n"
    assert "warning" not in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("get", "log.levl"), 3, "atlasctl: there is no setting log.levl\natlasctl: look\n"),
        (("set", "log.level", "loud"), 78, "atlasctl: log.level: expected another\n"),
        (("rollback", "0"), 2, "0 is not in the range"),
        (("set", "log.level"), 2, "missing argument 'VALUE'"),
        (("export", "--format", "xml"), 2, "'xml' is not one of"),
    ],
)
def test_what_goes_wrong_has_its_exit_code(
    ctl: Ctl, arguments: tuple[str, ...], code: int, said: str
) -> None:
    found, out, err = ctl("config", *arguments)
    assert (found, out) == (code, "")
    assert said in err


def test_a_value_to_be_encrypted_comes_from_standard_input(
    ctl: Ctl, core: FakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hunter22\n"))
    assert ctl("config", "encrypt", "log.level", "--stdin")[0] == 0
    name, request, _ = core.calls[-1]
    assert (name, request.value) == ("config.encrypt", "hunter22")
    assert "hunter22" not in repr(request)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    code, _, err = ctl("config", "encrypt", "log.level", "--stdin")
    assert (code, "no value" in err) == (2, True)


def test_what_is_asked_for_is_what_was_said(ctl: Ctl, core: FakeCore) -> None:
    ctl("config", "set", "a.b", "c", "--env", "staging", "--file", "x.toml", "--force", "--reload")
    wanted: dict[str, Any] = {
        "key": "a.b",
        "value": "c",
        "env": "staging",
        "file": "x.toml",
        "force": True,
        "reload": True,
    }
    assert core.calls[-1][1].model_dump() == wanted
    ctl("config", "show", "--defaults")
    assert core.calls[-1][1].defaults is True
    ctl("config", "rollback", "--force")
    assert core.calls[-1][1].model_dump() == {"generation": None, "force": True}
