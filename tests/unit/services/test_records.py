"""Records and targets in the run directory: whole or not at all."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.services.records import RecordFile, read_all, read_json, replace_json


def test_a_record_is_read_back_whatever_stood_there_before(tmp_path: Path) -> None:
    file = RecordFile(str(tmp_path), "web.api", 3)
    for detail in ("x" * 5000, "short", "é" * 600, ""):
        file.write({"pid": 7, "detail": detail, "window": [1.5] * 20})
        [(service, index, body)] = read_all(str(tmp_path))
        assert (service, index, body["pid"]) == ("web.api", 3, 7)
        assert body["detail"] in (detail, ""), "what adoption needs comes first"
    file.close(remove=True)
    assert list(read_all(str(tmp_path))) == []


def test_a_record_is_for_the_role_alone(tmp_path: Path) -> None:
    file = RecordFile(str(tmp_path), "web", 0)
    assert Path(file.path).stat().st_mode & 0o777 == 0o600
    file.close(remove=False)
    assert Path(file.path).exists()


def test_a_closed_record_is_not_written_to_whoever_has_its_number_now(tmp_path: Path) -> None:
    file = RecordFile(str(tmp_path), "web", 0)
    number = file._fd
    file.close(remove=True)
    other = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    try:
        assert other == number
        file.write({"pid": 1})
        file.close(remove=True)
        assert os.fstat(other).st_size == 0
    finally:
        os.close(other)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("web.0.json", b'{"pid": 1'),
        ("web.0.json", b"[1]"),
        ("web.0.json", b"\xff\xfe"),
        ("web.x.json", b"{}"),
        ("web.json", b"{}"),
        ("web.0.txt", b"{}"),
    ],
)
def test_torn_and_foreign_files_are_passed_over(tmp_path: Path, name: str, text: bytes) -> None:
    (tmp_path / name).write_bytes(text)
    (tmp_path / "db.1.json").write_text('{"pid": 2}')
    assert list(read_all(str(tmp_path))) == [("db", 1, {"pid": 2})]


@given(text=st.binary(max_size=300))
def test_no_file_can_stop_the_reading(
    text: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("records", numbered=True)
    (folder / "a.0.json").write_bytes(text)
    for _service, _index, body in read_all(str(folder)):
        assert isinstance(body, dict)


def test_a_file_is_replaced_in_one_step_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "target.json"
    replace_json(str(path), {"a": 1})
    with pytest.raises(TypeError):
        replace_json(str(path), {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["target.json"], "no half of it is left"
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_read_is_nothing(tmp_path: Path) -> None:
    assert read_json(str(tmp_path / "missing")) is None
    (tmp_path / "torn").write_text("{")
    assert read_json(str(tmp_path / "torn")) is None
