"""Taking over is all or nothing, whatever fails on the way."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from atlasd.errors import AtlasError
from atlasd.settings.legacy.carry import carry_out
from atlasd.settings.legacy.plan import Taken, Wanted, plan
from atlasd.settings.legacy.report import body, declaration, lines
from tests.unit.settings.legacy_desk import Rules, Shelf, parse


def taken_in(folder: Path, **options: Any) -> tuple[Taken, ...]:
    (folder / "a.env").write_text("DB_PASSWORD=hunter22\nNAME=shop\n")
    (folder / "b.yaml").write_text("token: abcdef\nport: 80\n")
    (folder / "a.env").chmod(0o640)
    wanted = Wanted(files=(folder / "a.env", folder / "b.yaml"), out=folder / "out", **options)
    return plan(wanted, parse, Rules())


def state(folder: Path) -> dict[str, bytes]:
    """Every file below the folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_secrets_go_to_the_store_and_files_keep_their_permissions(tmp_path: Path) -> None:
    shelf = Shelf()
    taken = taken_in(tmp_path)
    carry_out(taken, shelf, parse, Rules())
    assert shelf.kept == {"a/db_password": "hunter22", "b/token": "abcdef"}
    out = tmp_path / "out"
    assert (out / "a.toml").read_text() == (
        'DB_PASSWORD = "secret://a/db_password"\nNAME = "shop"\n'
    )
    assert (out / "a.toml").stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in out.iterdir()) == ["a.toml", "b.toml"]


def test_nothing_that_exists_is_replaced_unless_it_is_forced(tmp_path: Path) -> None:
    shelf = Shelf()
    taken = taken_in(tmp_path)
    carry_out(taken, shelf, parse, Rules())
    (tmp_path / "out" / "b.toml").write_text("mine = true\n")
    before = state(tmp_path)
    with pytest.raises(AtlasError, match=r"out/a\.toml exists; nothing was changed") as caught:
        carry_out(taken, shelf, parse, Rules())
    assert caught.value.code == "config.exists"
    assert state(tmp_path) == before
    carry_out(taken, shelf, parse, Rules(), force=True)
    assert "mine" not in (tmp_path / "out" / "b.toml").read_text()


def test_a_secret_of_another_value_is_not_replaced_either(tmp_path: Path) -> None:
    shelf = Shelf(kept={"b/token": "another"})
    before = state(tmp_path)
    taken = taken_in(tmp_path)
    with pytest.raises(AtlasError, match="b/token exists and has another value"):
        carry_out(taken, shelf, parse, Rules())
    assert shelf.kept == {"b/token": "another"}
    assert not (tmp_path / "out").exists()
    assert before == {}
    carry_out(taken, shelf, parse, Rules(), force=True)
    assert shelf.kept["b/token"] == "abcdef"


def test_an_attempt_that_was_cut_off_can_be_repeated(tmp_path: Path) -> None:
    shelf = Shelf(kept={"a/db_password": "hunter22"})
    carry_out(taken_in(tmp_path), shelf, parse, Rules())
    assert shelf.kept == {"a/db_password": "hunter22", "b/token": "abcdef"}


def test_a_store_without_a_key_changes_nothing(tmp_path: Path) -> None:
    shelf = Shelf(
        fails={"b/token": AtlasError("secret.key", "there is no key", hint="secret keygen")}
    )
    with pytest.raises(AtlasError, match="there is no key") as caught:
        carry_out(taken_in(tmp_path), shelf, parse, Rules())
    assert caught.value.hint == "secret keygen"
    assert shelf.kept == {}
    assert not (tmp_path / "out").exists()


def test_a_store_that_gives_back_something_else_is_noticed(tmp_path: Path) -> None:
    shelf = Shelf(garbles=True)
    with pytest.raises(AtlasError, match="DB_PASSWORD would not mean the same"):
        carry_out(taken_in(tmp_path), shelf, parse, Rules())
    assert shelf.kept == {}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", range(8))
def test_whatever_call_to_the_disk_fails_all_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    shelf = Shelf(kept={"b/token": "before"})
    taken = taken_in(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.toml").write_text("mine = true\n")
    before = state(tmp_path)
    calls = iter(range(100))
    fsync, rename = os.fsync, Path.rename

    def failing(real: Any) -> Any:
        def call(*args: Any) -> Any:
            if next(calls) == number:
                raise OSError(errno.ENOSPC, "No space left on device", "out")
            return real(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(fsync))
        patch.setattr(Path, "rename", failing(rename))
        # Two files: an fsync, a rename and an fsync of the folder for each.
        if number < 6:
            with pytest.raises(AtlasError, match="No space left"):
                carry_out(taken, shelf, parse, Rules(), force=True)
        else:
            carry_out(taken, shelf, parse, Rules(), force=True)
    if number < 6:
        assert state(tmp_path) == before
        assert shelf.kept == {"b/token": "before"}
    else:
        assert shelf.kept["b/token"] == "abcdef"


def test_the_report_tells_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "x.env").write_text("http_proxy=a\n")
    wanted = Wanted(files=(tmp_path / "x.env",), out=tmp_path / "x.toml")
    taken = plan(wanted, parse, Rules())
    assert lines(taken, done=False)[0] == f"{tmp_path}/x.env would become {tmp_path}/x.toml"
    assert declaration(taken, "shop") == (
        f'[settings.shop]\nfiles = ["{tmp_path}/x.toml"]\n\n'
        '[settings.shop.variables]\n"http_proxy" = "http_proxy"\n'
    )
    told = body(taken, "shop", done=True)
    assert told["files"][0]["notes"] == []
    assert told["declaration"].startswith("[settings.shop]")
