"""Files that are exchanged in one step: what a reader, a successor and a stranger find."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.services import handed_files
from atlasd.services.handed_files import HandedFiles, remove_strangers

ME = (os.geteuid(), os.getegid())


@pytest.fixture
def files(tmp_path: Path) -> HandedFiles:
    return HandedFiles(str(tmp_path / "secrets"), "web")


def content(files: HandedFiles) -> dict[str, bytes]:
    """What a program finds by the path that it was told."""
    return {path.name: path.read_bytes() for path in Path(files.path).iterdir()}


def entries(files: HandedFiles) -> list[str]:
    return sorted(path.name for path in Path(files.folder).iterdir())


def test_files_have_the_modes_that_keep_others_out(files: HandedFiles) -> None:
    assert files.exchange({"DB": b"secret", "empty": b""}, *ME)
    assert content(files) == {"DB": b"secret", "empty": b""}
    modes = {
        files.folder: 0o711,
        f"{files.folder}/1": 0o500,
        f"{files.path}/DB": 0o400,
        f"{files.folder}/1.digest": 0o600,
    }
    for path, mode in modes.items():
        assert stat.S_IMODE(Path(path).stat().st_mode) == mode, path


def test_the_same_again_is_no_exchange(files: HandedFiles) -> None:
    assert files.exchange({"A": b"1"}, *ME)
    assert not files.exchange({"A": b"1"}, *ME)
    assert files.exchange({"A": b"2"}, *ME)
    assert files.generation == 2
    assert content(files) == {"A": b"2"}


def test_a_successor_finds_what_is_there_and_exchanges_only_what_differs(
    files: HandedFiles, tmp_path: Path
) -> None:
    files.exchange({"A": b"1"}, *ME)
    successor = HandedFiles(str(tmp_path / "secrets"), "web")
    assert not successor.exchange({"A": b"1"}, *ME)
    assert successor.generation == 1
    assert successor.exchange({"A": b"1", "B": b""}, *ME)
    assert content(successor) == {"A": b"1", "B": b""}


def test_old_files_stay_for_those_who_were_told_of_them(files: HandedFiles) -> None:
    for value in (b"1", b"2", b"3"):
        files.exchange({"A": value}, *ME)
    opened = os.open(f"{files.folder}/2/A", os.O_RDONLY)
    files.sweep({1})
    assert entries(files) == ["1", "1.digest", "3", "3.digest", "current"]
    assert os.read(opened, 9) == b"2"  # whoever has it open keeps it
    os.close(opened)
    files.sweep(())
    assert entries(files) == ["3", "3.digest", "current"]
    files.remove()
    assert not Path(files.folder).exists()
    files.remove()


def test_a_sweep_before_anything_else_spares_what_is_current(
    files: HandedFiles, tmp_path: Path
) -> None:
    files.exchange({"A": b"1"}, *ME)
    Path(files.folder, "1.digest").unlink()  # by whatever accident
    successor = HandedFiles(str(tmp_path / "secrets"), "web")
    successor.sweep(())
    assert content(successor) == {"A": b"1"}


def test_files_of_services_that_are_no_more_go(files: HandedFiles, tmp_path: Path) -> None:
    other = HandedFiles(str(tmp_path / "secrets"), "old")
    for one in (files, other):
        one.exchange({"A": b"1"}, *ME)
    remove_strangers(str(tmp_path / "secrets"), {"web"})
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["web"]
    remove_strangers(str(tmp_path / "nothing here"), ())


def test_a_link_that_the_user_has_put_there_is_not_followed(
    files: HandedFiles, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "kept").touch()
    files.exchange({"A": b"1"}, *ME)
    folder = Path(files.folder, "1")
    folder.chmod(0o700)  # its owner can
    (folder / "link").symlink_to(precious)
    files.exchange({"A": b"2"}, *ME)
    files.sweep(())
    assert (precious / "kept").exists()
    assert entries(files) == ["2", "2.digest", "current"]


def test_a_full_disk_leaves_the_files_before(
    files: HandedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.exchange({"A": b"1"}, *ME)

    def full(_fd: int, _data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            files.exchange({"A": b"2"}, *ME)
    assert content(files) == {"A": b"1"}
    assert entries(files) == ["1", "1.digest", "current"]
    assert files.exchange({"A": b"2"}, *ME)


# ---------------------------------------------------------------------- killed half-way


class Killed(BaseException):
    """As `kill -9`: nothing of the process's own comes after it."""


STEPS = ("makedirs", "mkdir", "open", "write", "fchown", "chown", "chmod", "symlink", "rename")


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Set after how many system calls the process is killed."""
    left = -1

    def set_to(calls: int) -> None:
        nonlocal left
        left = calls

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return call(*arguments, **options)

        return wrapped

    class Os:
        """The module, with those calls that change something counted."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(os, name)
            return counted(found) if name in STEPS else found

    monkeypatch.setattr(handed_files, "os", Os())
    yield set_to
    left = -1


def test_killed_at_any_point_the_files_are_the_old_or_the_new_ones(
    tmp_path: Path, killing: Callable[[int], None]
) -> None:
    old, new = {"A": b"old", "B": b"old"}, {"A": b"new", "B": b"new"}
    seen = set()
    for calls in range(100):
        parent = str(tmp_path / str(calls))
        killing(-1)
        HandedFiles(parent, "web").exchange(old, *ME)
        killing(calls)
        over = False
        try:
            HandedFiles(parent, "web").exchange(new, *ME)
            over = True
        except Killed:
            pass
        killing(-1)
        successor = HandedFiles(parent, "web")
        found = content(successor)
        assert found in (old, new)
        seen.add(found["A"])
        successor.exchange(new, *ME)
        assert content(successor) == new
        successor.sweep(())
        number = str(successor.generation)
        left = set(entries(successor))
        assert left - {"next"} == {number, f"{number}.digest", "current"}
        if over:
            assert calls > 8, "what is killed must be counted"
            break
    assert seen == {b"old", b"new"}


values = st.dictionaries(st.sampled_from(["A", "B"]), st.binary(max_size=3), max_size=2)


@given(st.lists(st.tuples(values, st.booleans()), max_size=8))
def test_whatever_is_handed_the_last_of_it_is_what_is_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[dict[str, bytes], bool]]
) -> None:
    parent = str(tmp_path_factory.mktemp("handed"))
    files = HandedFiles(parent, "web")
    for wanted, dies in steps:
        files.exchange(wanted, *ME)
        assert content(files) == wanted
        if dies:
            files = HandedFiles(parent, "web")
        else:
            files.sweep(())
    files.remove()
