"""Drop-ins: what counts as one, who may have written it, and what a folder of them is."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from atlasd.contracts.checks import CheckType
from atlasd.pluginhost import PluginState
from atlasd.pluginhost.drop_ins import find_drop_ins

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
NOBODY = 65534


def reason(desk: Any, name: str = "bad") -> str:
    report = desk.report()
    assert report[name].state is PluginState.REFUSED
    return str(report[name].reason)


def test_a_safe_file_is_admitted_with_its_path_as_origin(desk: Any) -> None:
    path = desk.good()
    report = desk.report()["good"]
    assert (report.state, report.origin, report.version) == ("admitted", str(path), "")
    assert report.reason == ""


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o620])
def test_a_file_that_others_can_write_is_refused(desk: Any, mode: int) -> None:
    path = desk.good("bad")
    path.chmod(mode)
    desk.good()
    who = "anybody" if mode & 0o002 else "its group"
    assert reason(desk) == (
        f"{path} can be written by {who}, and plugins run as the daemon: "
        f"only its owner may (chmod go-w {path})"
    )
    assert desk.report()["good"].state is PluginState.ADMITTED


@AS_ROOT
def test_a_file_of_another_user_is_refused(desk: Any) -> None:
    path = desk.good("bad")
    os.chown(path, NOBODY, NOBODY)
    assert reason(desk).startswith(f"{path} belongs to nobody, and plugins run as the daemon: it")
    assert reason(desk).endswith(f"it must belong to root (chown root {path})")


@AS_ROOT
def test_root_and_the_daemons_user_are_both_trusted(desk: Any) -> None:
    os.chown(desk.good("theirs"), 12345, 12345)
    desk.good("roots")
    found = {c.name: c for c in find_drop_ins(desk.drop_ins, uid=12345)}
    assert all(c.sources for c in found.values())
    assert found.keys() == {"roots", "theirs"}
    (refused,) = [c for c in find_drop_ins(desk.drop_ins, uid=23456) if not c.sources]
    with pytest.raises(Exception, match="must belong to root or user 23456"):
        refused.load()


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_in_a_folder_that_others_can_write_all_are_refused(desk: Any, mode: int) -> None:
    desk.good("bad")
    desk.good("also")
    desk.drop_ins.chmod(mode)
    assert str(desk.drop_ins) + " can be written by" in reason(desk)
    assert str(desk.drop_ins) + " can be written by" in reason(desk, "also")


@AS_ROOT
def test_in_a_folder_of_another_user_all_are_refused(desk: Any) -> None:
    desk.good("bad")
    os.chown(desk.drop_ins, NOBODY, NOBODY)
    assert f"{desk.drop_ins} belongs to nobody" in reason(desk)


def test_a_symbolic_link_is_refused(desk: Any, tmp_path: Path) -> None:
    real = desk.good("real")
    moved = real.rename(tmp_path / "real.py")
    (desk.drop_ins / "bad.py").symlink_to(moved)
    assert "is a symbolic link" in reason(desk)


def test_a_pipe_is_refused_and_not_waited_for(desk: Any) -> None:
    os.mkfifo(desk.drop_ins / "bad.py", 0o600)
    assert "is neither a file nor a folder" in reason(desk)


# --- folders


def test_a_folder_is_one_plugin_with_modules_of_its_own(desk: Any) -> None:
    init = desk.write("parts", "ATLASD_API = 1\nfrom .inner import register_health_checks\n")
    (init.parent / "inner.py").write_text(desk.good("shelf").read_text())
    (desk.drop_ins / "shelf.py").unlink()
    host = desk.host()
    assert host.find(CheckType, "shelf").plugin == "parts"


def test_each_file_of_a_folder_must_be_safe(desk: Any) -> None:
    init = desk.write("bad", "ATLASD_API = 1\n")
    inner = init.parent / "data"
    inner.mkdir()
    loose = inner / "words.txt"
    loose.write_text("x")
    loose.chmod(0o666)
    assert f"{loose} can be written by anybody" in reason(desk)
    loose.chmod(0o644)
    inner.chmod(0o777)
    assert f"{inner} can be written by anybody" in reason(desk)


def test_a_folder_without_an_init_is_refused(desk: Any) -> None:
    (desk.drop_ins / "bad").mkdir()
    assert reason(desk) == "the folder has no bad/__init__.py"


# --- what isn't one


def test_only_python_files_and_folders_are_looked_at(desk: Any) -> None:
    for name in (".hidden.py", "__pycache__", "README.md", "old.py.bak", "x.conf", "__init__.py"):
        (desk.drop_ins / name).touch()
    desk.good()
    assert list(desk.report()) == ["good"]


@pytest.mark.parametrize("name", ["my-plugin", "Ünsafe", "2fast", "a b"])
def test_a_file_that_cannot_be_named_in_configuration_is_refused(desk: Any, name: str) -> None:
    desk.good(name)
    assert "is no name for a plugin: use small letters" in reason(desk, name)


def test_no_folder_no_plugins(tmp_path: Path) -> None:
    assert find_drop_ins(tmp_path / "none") == []
    file = tmp_path / "file"
    file.touch()
    assert find_drop_ins(file) == []


def test_a_folder_that_cannot_be_read_is_reported(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def iterdir(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    desk.good()
    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert reason(desk, "plugins") == "the folder cannot be read: Permission denied"


def test_a_failed_load_gives_the_name_back_to_what_had_it(desk: Any) -> None:
    desk.good("bad")
    desk.host()
    module = sys.modules["atlasd_dropin_bad"]
    desk.write("bad.py", "ATLASD_API = 1\n1 / 0")
    desk.host()
    assert sys.modules["atlasd_dropin_bad"] is module


def test_nothing_of_a_newer_plugin_is_run(desk: Any, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    desk.write("bad.py", f"open({str(mark)!r}, 'w')\nATLASD_API = 2")
    assert "written for hooks of version 2" in reason(desk)
    assert not mark.exists()
