import errno
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from atlasd.config.watching import Places, look, trail, watched
from atlasd.inotify import Heard, Inotify


def looking(links: Mapping[str, str], *there: str) -> Callable[[str], str | bool]:
    known = {"/"}
    for path in (*there, *links):
        parts = path.split("/")
        known.update("/".join(parts[:n]) for n in range(2, len(parts) + 1))

    def found(path: str) -> str | bool:
        return links.get(path, path in known)

    return found


def test_a_plain_file_depends_on_its_own_name_only() -> None:
    steps, end = trail("/etc/atlasd/a.toml", looking({}, "/etc/atlasd/a.toml"))
    assert steps == [("/etc/atlasd", "a.toml")]
    assert end == "/etc/atlasd/a.toml"


def test_a_file_that_is_not_there_depends_on_the_first_part_that_is_missing() -> None:
    assert trail("/etc/atlasd/conf.d/a.toml", looking({}, "/etc/atlasd")) == (
        [("/etc/atlasd", "conf.d")],
        "",
    )


def test_every_link_on_the_way_counts() -> None:
    # As Kubernetes lays out a volume.
    links = {"/etc/a/x.toml": "..data/x.toml", "/etc/a/..data": "..2026_11"}
    steps, end = trail("/etc/a/x.toml", looking(links, "/etc/a/..2026_11/x.toml"))
    assert steps == [("/etc/a", "x.toml"), ("/etc/a", "..data"), ("/etc/a/..2026_11", "x.toml")]
    assert end == "/etc/a/..2026_11/x.toml"


def test_a_link_out_of_the_folder_and_back_is_followed() -> None:
    links = {"/etc/a": "/srv/conf", "/srv/conf/x.toml": "../shared/./x.toml"}
    steps, end = trail("/etc/a/x.toml", looking(links, "/srv/shared/x.toml"))
    assert steps == [("/etc", "a"), ("/srv/conf", "x.toml"), ("/srv/shared", "x.toml")]
    assert end == "/srv/shared/x.toml"


def test_a_circle_of_links_ends() -> None:
    steps, end = trail("/a/x", looking({"/a/x": "y", "/a/y": "x"}))
    assert ("/a", "x") in steps
    assert end == ""


def test_only_names_that_matter_count_but_in_a_folder_all_do() -> None:
    places = Places(files=frozenset({"/etc/a.toml"}), folders=frozenset({"/etc/conf.d"}))
    found = watched(places, looking({}, "/etc/a.toml", "/etc/conf.d"))
    assert found.folders == {"/etc", "/etc/conf.d"}
    assert found.counts(Heard(folder="/etc", name="a.toml"))
    assert found.counts(Heard(folder="/etc", name="conf.d"))
    assert not found.counts(Heard(folder="/etc", name="passwd"))
    assert found.counts(Heard(folder="/etc/conf.d", name="new.toml"))
    assert not found.counts(Heard(folder="/etc/conf.d", name=".new.toml.swp"))
    # A folder that went away, and a queue that overflowed: anything may be the case.
    assert found.counts(Heard(folder="/etc", name="", gone=True))
    assert found.counts(Heard(folder="", name="", gone=True))


def test_what_is_at_a_path_is_told_from_a_link_and_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    assert look(str(tmp_path)) is True
    assert look(str(tmp_path / "link")) == "target"
    assert look(str(tmp_path / "missing")) is False


def test_the_kernel_tells_of_names_and_of_folders_that_go(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    inotify = Inotify()
    try:
        inotify.watch(frozenset({str(folder), str(tmp_path / "missing")}))
        assert inotify.folders == {str(folder)}
        assert inotify.read() == []
        (folder / "x").write_text("1")
        assert {heard.name for heard in inotify.read()} == {"x"}
        (folder / "x").unlink()
        folder.rmdir()
        assert any(heard.gone for heard in inotify.read())
        assert inotify.folders == frozenset()
        folder.mkdir()
        inotify.watch(frozenset({str(folder)}))
        (folder / "y").write_text("1")
        assert {heard.name for heard in inotify.read()} == {"y"}
        inotify.watch(frozenset())
        inotify.read()
        (folder / "z").write_text("1")
        assert inotify.read() == []
    finally:
        inotify.close()


def test_what_the_kernel_has_no_room_for_costs_no_other_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    inotify = Inotify()
    real = inotify._add

    def add(folder: str) -> int:
        if folder.endswith("/b"):
            raise OSError(errno.ENOSPC, "No space left on device", folder)
        return real(folder)

    monkeypatch.setattr(inotify, "_add", add)
    try:
        with pytest.raises(OSError, match="No space left"):
            inotify.watch(frozenset(str(tmp_path / name) for name in ("a", "b", "c")))
        assert inotify.folders == {str(tmp_path / "a"), str(tmp_path / "c")}
    finally:
        inotify.close()
