import json
import os
from pathlib import Path

import pytest

from atlasd.config import snapshot, writing
from atlasd.config.snapshot import FileText, Snapshot, edited, suspicious, take
from atlasd.config.writing import JOURNAL, finish, locked, replace_all, write
from atlasd.errors import AtlasError


def snap(**files: bytes) -> Snapshot:
    return Snapshot(files=tuple(FileText(path=p, content=c) for p, c in sorted(files.items())))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("old")
    path.chmod(0o604)
    write(path, b"new", expected=snapshot.read(str(path)))
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o604
    assert names(tmp_path) == ["a.toml"]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "a.toml"
    real.write_text("old")
    link = tmp_path / "a.toml"
    link.symlink_to("real/a.toml")
    write(link, b"new", expected=snapshot.read(str(link)))
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_a_new_file_has_the_rights_of_its_model(tmp_path: Path) -> None:
    model = tmp_path / "atlasd.toml"
    model.write_text("")
    model.chmod(0o600)
    write(tmp_path / "b.toml", b"x", expected=None, like=model)
    assert (tmp_path / "b.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("now", [b"another", None])
def test_what_somebody_has_changed_meanwhile_is_left_alone(
    tmp_path: Path, now: bytes | None
) -> None:
    path = tmp_path / "a.toml"
    path.write_text("old")
    before = snapshot.read(str(path))
    path.unlink()
    if now is not None:
        path.write_bytes(now)
    with pytest.raises(AtlasError, match="changed it meanwhile") as error:
        write(path, b"mine", expected=before)
    assert error.value.code == "config.conflict"
    assert names(tmp_path) == ([] if now is None else ["a.toml"])
    assert now is None or path.read_bytes() == now


def test_a_file_that_came_meanwhile_is_left_alone_too(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("theirs")
    with pytest.raises(AtlasError, match="changed it meanwhile"):
        write(path, b"mine", expected=None)
    assert path.read_text() == "theirs"


def test_a_folder_that_takes_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="cannot be written") as error:
        write(tmp_path / "missing" / "a.toml", b"x", expected=None)
    assert error.value.code == "config.write"
    with pytest.raises(AtlasError, match="cannot be written"), locked(tmp_path / "missing"):
        pass


def test_several_files_are_replaced_made_and_removed_together(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    (etc / "conf.d").mkdir(parents=True)
    main, part, new = (str(etc / n) for n in ("a.toml", "conf.d/b.toml", "conf.d/c.toml"))
    Path(main).write_text("main 1")
    Path(part).write_text("part 1")
    replace_all(etc, take([main, part]), snap(**{main: b"main 2", new: b"new"}))
    assert Path(main).read_text() == "main 2"
    assert Path(new).read_text() == "new"
    assert not Path(part).exists()
    assert names(etc) == ["a.toml", "a.toml.bak", "conf.d"]
    assert names(etc / "conf.d") == ["b.toml.bak", "c.toml"]
    assert (etc / "a.toml.bak").read_text() == "main 1"
    assert finish(etc) is False


def test_a_link_is_removed_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("not ours")
    etc = tmp_path / "etc"
    etc.mkdir()
    link = etc / "a.toml"
    link.symlink_to(elsewhere)
    replace_all(etc, take([str(link)]), snap())
    assert names(etc) == ["a.toml.bak"]
    assert elsewhere.read_text() == "not ours"
    assert names(tmp_path) == ["elsewhere", "etc"]


def test_files_that_stay_as_they_are_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("same")
    before = path.stat().st_ino
    replace_all(tmp_path, take([str(path)]), snap(**{str(path): b"same"}))
    assert path.stat().st_ino == before
    assert names(tmp_path) == ["a.toml"]


class Died(BaseException):
    """The process is no more."""


def dying(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Have the process die at its nth call that changes a folder."""
    calls = 0

    def counted(real: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls > after:
                raise Died
            return real(*args, **kwargs)  # type: ignore[operator]

        return call

    for name in ("replace", "unlink", "link", "rename"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


@pytest.mark.parametrize("after", range(12))
def test_death_at_any_step_leaves_the_old_or_the_new_state(tmp_path: Path, after: int) -> None:
    etc = tmp_path
    old = {"a.toml": b"main 1", "b.toml": b"part 1", "gone.toml": b"gone 1"}
    new = {"a.toml": b"main 2", "b.toml": b"part 2", "new.toml": b"new"}
    for name, content in old.items():
        (etc / name).write_bytes(content)
    wanted = snap(**{str(etc / name): content for name, content in new.items()})
    died = False
    with pytest.MonkeyPatch.context() as patch:
        dying(patch, after)
        try:
            replace_all(etc, take(str(etc / name) for name in old), wanted)
        except Died:
            died = True
    rolled_forward = finish(etc)
    found = {path.name: path.read_bytes() for path in etc.glob("[a-z]*.toml")}
    assert found in (old, new)
    assert (found == new) == (rolled_forward or not died)
    assert finish(etc) is False
    assert not (etc / JOURNAL).exists()


def test_the_steps_of_a_death_are_enough_to_see_both_outcomes(tmp_path: Path) -> None:
    # The range above must reach past the last step, or it would prove less than it says.
    (tmp_path / "a.toml").write_bytes(b"1")
    with pytest.MonkeyPatch.context() as patch:
        dying(patch, 12)
        replace_all(tmp_path, take([str(tmp_path / "a.toml")]), snap())
    assert not (tmp_path / "a.toml").exists()


def test_a_journal_that_says_nothing_is_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("[")
    with pytest.raises(AtlasError, match="does not say what is to be done"):
        finish(tmp_path)


def test_a_journal_whose_work_is_done_is_only_removed(tmp_path: Path) -> None:
    step = {"path": str(tmp_path / "a.toml"), "new": str(tmp_path / ".a.toml.atlasd-new")}
    (tmp_path / JOURNAL).write_text(json.dumps([step]))
    assert finish(tmp_path) is True
    assert names(tmp_path) == []


def test_a_snapshot_tells_files_by_name_and_content(tmp_path: Path) -> None:
    one = snap(a=b"x", b=b"y")
    assert one.digest == snap(b=b"y", a=b"x").digest
    assert one.digest != snap(a=b"xb", b=b"").digest
    assert one.digest != snap(a=b"x").digest
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert take([str(fifo), str(tmp_path), str(tmp_path / "missing")]).files == ()
    assert "hunter22" not in repr(snap(a=b"hunter22"))


def test_a_file_that_lost_its_content_is_suspicious() -> None:
    before = snap(a=b"x", b=b"y", c=b"", d=b"z")
    assert suspicious(before, snap(a=b"x", b=b" \n", c=b"")) == ("b", "d")
    assert suspicious(before, before) == ()


def test_edits_are_changed_missing_and_new_files(tmp_path: Path) -> None:
    parts = tmp_path / "conf.d"
    parts.mkdir()
    kept, changed, gone = (tmp_path / n for n in ("kept.toml", "changed.yaml", "gone.toml"))
    for path in (kept, changed, gone):
        path.write_text("1")
    before = take(str(path) for path in (kept, changed, gone))
    changed.write_text("2")
    gone.unlink()
    new = [parts / name for name in ("new.toml", "new.yaml")]
    for path in (*new, parts / "notes.txt", parts / ".new.toml.swp"):
        path.write_text("1")
    awaited = [tmp_path / "atlasd.env", tmp_path / "never.env"]
    awaited[0].write_text("A=1")
    found = edited(before, parts, [str(path) for path in awaited])
    assert found == tuple(sorted(map(str, (changed, gone, *new, awaited[0]))))
    assert edited(take([str(kept)]), None) == ()


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    import threading

    order = []
    began = threading.Event()

    def other() -> None:
        began.set()
        with locked(tmp_path):
            order.append("second")

    with locked(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        assert began.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert writing.BACKUP == ".bak"
