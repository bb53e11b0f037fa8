"""Which folders atlasd uses, for root, for anybody else, and under one root."""

import os
from pathlib import Path

import pytest

from atlasd.errors import AtlasError
from atlasd.paths import SOCKET_PATH_MAX, Paths, check_socket_path, find

ME = os.getuid()


def test_root_has_the_system_folders() -> None:
    paths = find(environ={"HOME": "/root", "XDG_CONFIG_HOME": "/elsewhere"}, uid=0)
    assert paths == Paths(
        etc="/etc/atlasd", state="/var/lib/atlasd", run="/run/atlasd", log="/var/log/atlasd"
    )
    assert paths.config_file == "/etc/atlasd/atlasd.toml"
    assert paths.config_parts == "/etc/atlasd/conf.d"
    assert paths.environments == "/etc/atlasd/environments"
    assert paths.plugins_dir == "/etc/atlasd/plugins.d"
    assert paths.database == "/var/lib/atlasd/atlasd.db"
    assert paths.control_socket == "/run/atlasd/control.sock"
    assert paths.services_socket == "/run/atlasd/services.sock"


def test_one_root_holds_everything_and_the_option_beats_the_variable() -> None:
    environ = {"ATLASD_ROOT": "/srv/b"}
    assert find(environ=environ, uid=0) == Paths(
        etc="/srv/b/etc", state="/srv/b/state", run="/srv/b/run", log="/srv/b/log"
    )
    assert find(root="/srv/a", environ=environ, uid=1000).run == "/srv/a/run"
    assert find(environ={"ATLASD_ROOT": ""}, uid=0).etc == "/etc/atlasd"


def test_a_relative_root_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(root="demo", environ={}).etc == str(tmp_path / "demo" / "etc")
    assert find(config="my.toml", environ={}, uid=0).config_file == str(tmp_path / "my.toml")


def test_a_named_file_moves_its_neighbours_but_neither_plugins_nor_state() -> None:
    paths = find(config="/srv/shop/shop.toml", environ={}, uid=0)
    assert paths.config_file == "/srv/shop/shop.toml"
    assert paths.config_parts == "/srv/shop/conf.d"
    assert paths.environments == "/srv/shop/environments"
    assert paths.plugins_dir == "/etc/atlasd/plugins.d"
    assert paths.state == "/var/lib/atlasd"


def test_a_user_has_the_xdg_folders(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    environ = {"HOME": "/home/me", "XDG_RUNTIME_DIR": str(runtime)}
    # A uid that differs from 0 but owns the folder cannot be had by root: ask for the real owner.
    paths = find(environ=environ, uid=ME) if ME else None
    if paths is None:
        os.chown(runtime, 12345, 12345)
        paths = find(environ=environ, uid=12345)
    assert paths == Paths(
        etc="/home/me/.config/atlasd",
        state="/home/me/.local/state/atlasd",
        run=f"{runtime}/atlasd",
        log="/home/me/.local/state/atlasd/log",
    )


def test_xdg_variables_are_followed_unless_relative() -> None:
    environ = {"HOME": "/h", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "not/absolute"}
    paths = find(environ=environ, uid=54321)
    assert paths.etc == "/c/atlasd"
    assert paths.state == "/h/.local/state/atlasd"


@pytest.mark.parametrize("runtime", ["", "relative/run", "/nonexistent/run", "/etc/passwd"])
def test_without_a_runtime_folder_sockets_lie_in_the_users_state(runtime: str) -> None:
    environ = {"HOME": "/h", "XDG_RUNTIME_DIR": runtime}
    assert find(environ=environ, uid=54321).run == "/h/.local/state/atlasd/run"


def test_a_runtime_folder_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    environ = {"HOME": "/h", "XDG_RUNTIME_DIR": str(theirs)}
    assert find(environ=environ, uid=ME + 54321).run == "/h/.local/state/atlasd/run"


def test_no_home_is_said_so() -> None:
    with pytest.raises(AtlasError, match="user 54321 has no home folder") as caught:
        find(environ={}, uid=54321)
    assert caught.value.code == "daemon.directory"
    assert "--root" in caught.value.hint


def test_the_longest_path_of_a_socket_is_taken_and_one_byte_more_refused() -> None:
    check_socket_path("/" + "x" * (SOCKET_PATH_MAX - 1))
    with pytest.raises(AtlasError, match="107 bytes, this one has 108"):
        check_socket_path("/" + "é" * 53 + "x")
    with pytest.raises(AtlasError, match=r"services\.sock: the path of a unix socket"):
        find(root="/srv/" + "x" * 100, environ={})


def test_prepare_makes_what_is_missing_and_leaves_etc_alone(tmp_path: Path) -> None:
    paths = find(root=str(tmp_path / "a"), environ={})
    paths.prepare()
    paths.prepare()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["log", "run", "state"]
    assert (tmp_path / "a" / "state").stat().st_mode & 0o077 == 0


def test_prepare_names_the_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AtlasError, match=r"file/state: cannot be made: Not a directory") as caught:
        find(root=str(tmp_path / "file"), environ={}).prepare()
    assert caught.value.code == "daemon.directory"


def test_a_role_without_root_has_the_systems_folders_when_its_unit_says_so() -> None:
    environ = {"HOME": "/var/lib/atlasd", "ATLASD_SYSTEM": "1"}
    assert find(environ=environ, uid=900) == find(environ={}, uid=0)
    assert find(environ=environ | {"ATLASD_SYSTEM": ""}, uid=900) != find(environ={}, uid=0)
