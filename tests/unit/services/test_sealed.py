"""Sealed memory: nobody can change it, and each has an offset of his own."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from atlasd.services import sealed as module
from atlasd.services.sealed import sealed


def test_it_can_be_read_and_not_changed() -> None:
    fd = sealed("KEY", b"value")
    try:
        assert os.read(fd, 99) == b"value"
        assert "KEY" in str(Path(f"/proc/self/fd/{fd}").readlink())
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        wanted = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        assert seals & wanted == wanted
        for change in (
            lambda: os.pwrite(fd, b"x", 0),
            lambda: os.ftruncate(fd, 0),
            lambda: os.ftruncate(fd, 99),
        ):
            with pytest.raises(PermissionError):
                change()
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_each_has_its_own_offset() -> None:
    first, second = sealed("KEY", b"value"), sealed("KEY", b"value")
    assert os.read(first, 3) == b"val"
    assert os.read(second, 99) == b"value"
    os.close(first)
    os.close(second)


def test_a_kernel_without_noexec_memory_seals_it_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = os.memfd_create

    def older(name: str, flags: int) -> int:
        if flags & 8:
            raise OSError(errno.EINVAL, "Invalid argument")
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", older)
    monkeypatch.setattr(module, "_flags", module._flags | 8)
    for _ in range(2):
        fd = sealed("KEY", b"value")
        assert os.read(fd, 99) == b"value"
        os.close(fd)


def test_another_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str, _flags: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        sealed("KEY", b"value")
