"""Configuration held against a real host: its accounts, programs, folders and files."""

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from atlasd.config.load import check, load
from atlasd.config.surroundings import ThisHost
from atlasd.paths import Paths, find
from atlasd_plugins.config_toml import register_config_sources

ME = pwd.getpwuid(os.getuid())


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = find(root=str(tmp_path), environ={})
    Path(found.etc).mkdir()
    return found


def test_accounts_are_looked_up_by_name_and_number() -> None:
    host = ThisHost()
    assert host.has_user(ME.pw_name)
    assert host.has_user(str(ME.pw_uid))
    assert host.has_group(grp.getgrgid(ME.pw_gid).gr_name)
    assert host.has_group("54321")
    assert not host.has_user("no-such-user-here")
    assert not host.has_user("4294967294")
    assert not host.has_user("9" * 30)
    assert not host.has_group("no-such-group-here")
    assert host.is_root() == (os.geteuid() == 0)


def test_programs_are_found_as_a_shell_would(tmp_path: Path) -> None:
    host = ThisHost()
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    assert not host.has_program("program", search=str(tmp_path), cwd="/")
    program.chmod(0o755)
    assert host.has_program("program", search=f"/nowhere:{tmp_path}", cwd="/")
    assert host.has_program("./program", search="", cwd=str(tmp_path))
    assert host.has_program(str(program), search="", cwd="/")
    assert not host.has_program("./program", search=str(tmp_path), cwd="/")
    assert not host.has_program("program", search="/nowhere", cwd=str(tmp_path))


def test_named_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.env")
    with pytest.raises(OSError, match="named pipe"):
        ThisHost().read(str(tmp_path / "pipe.env"))


def test_a_configuration_of_this_host_has_no_problems(paths: Paths) -> None:
    etc = Path(paths.etc)
    (etc / "shop.env").write_text("export GREETING='hello there'\n")
    (etc / "atlasd.toml").write_text(
        f"""
        [services.web]
        command = "sh -c 'echo $GREETING'"
        user = "{ME.pw_name}"
        cwd = "."
        env_file = ["shop.env", "-missing.env"]
        """
    )
    problems = check(paths, register_config_sources())
    assert [p for p in problems if os.geteuid() == 0 or p.key != "services.web.user"] == []
    (spec,) = load(paths, register_config_sources()).specs()
    assert spec.env["GREETING"] == "hello there"
    assert spec.env["PATH"] == os.environ["PATH"]
    assert "HOME" not in spec.env
    assert Path(spec.cwd).samefile(etc)


def test_a_configuration_of_another_host_is_told_what_is_missing(paths: Paths) -> None:
    (Path(paths.etc) / "atlasd.toml").write_text(
        """
[services.web]
command = "no-such-program-here"
user = "no-such-user-here"
cwd = "/no/such/folder"
env_file = "/etc"
"""
    )
    found = {p.key: (p.line, p.warning) for p in check(paths, register_config_sources())}
    assert found == {
        "services.web.user": (4, False),
        "services.web.env_file": (6, False),
        "services.web.command": (3, True),
        "services.web.cwd": (5, True),
    }


def run_check(root: Path, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """`atlasd check`, with the plugins that are installed."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("ATLASD")}
    return subprocess.run(
        [sys.executable, "-m", "atlasd", "check", "--root", root, *options],
        env={**environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_kind_of_layer_reaches_the_installed_program(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    files = {
        "atlasd.toml": '[services.web]\ncommand = "sleep 1"\nnice = 1\n',
        "conf.d/a.yaml": "services: {web: {nice: 2}}\n",
        "conf.d/b.json": '{"services": {"web": {"nice": 3}}}\n',
        "environments/lab.toml": 'extends = "base"\n',
        "environments/base.yml": "services: {web: {nice: 4}}\n",
        f"hosts/{os.uname().nodename}.toml": "services.web.nice = 5\n",
        "atlasd.env": "ATLASD__SERVICES__WEB__NICE=6\n",
    }
    for name, text in files.items():
        path = etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    good = run_check(tmp_path, "--env", "lab")
    assert (good.returncode, good.stderr) == (0, "")
    env = run_check(tmp_path, "--env", "lab", ATLASD__SERVICES__WEB__NICE="70")
    assert env.returncode == 78
    assert env.stderr.splitlines()[0] == (
        "environment ATLASD__SERVICES__WEB__NICE: services.web.nice: expected at most 19, got 70; "
        f"it shadows 6 ({etc}/atlasd.env:1:29)"
    )
    option = run_check(
        tmp_path, "--env", "lab", "--set", "services.web.nice=80", ATLASD__SERVICES__WEB__NICE="7"
    )
    assert option.stderr.splitlines()[0] == (
        "--set services.web.nice: services.web.nice: expected at most 19, got 80; "
        "it shadows 7 (environment ATLASD__SERVICES__WEB__NICE)"
    )
    for name in list(files)[::-1][:2]:
        (etc / name).unlink()
    unknown = run_check(tmp_path, "--env", "labb")
    assert unknown.returncode == 78
    assert "known environments: base, development, lab, production, staging" in unknown.stderr
