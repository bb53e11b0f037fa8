"""Records of instances in the run directory: what a successor needs in order to adopt them.

A record is one small file that is overwritten in place by a single write, so that `kill -9` finds
either the old text or the new. It is not fsynced: a power cut that could lose it ends the process
that it describes too, and the boot id makes a record of another boot worthless.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping

from atlasd.services.protocol import encode

_SIZE = 2048
"""Bytes of a record; one page at most, which the kernel writes without being interrupted."""


class RecordFile:
    """The record of one instance."""

    def __init__(self, directory: str, service: str, index: int) -> None:
        self.path = os.path.join(directory, f"{service}.{index}.json")
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, body: Mapping[str, object]) -> None:
        """Replace the record; does nothing once it is closed. Raises `OSError`."""
        if self._fd < 0:
            return  # its descriptor's number may be another file's by now
        text = encode(body).encode()
        if len(text) >= _SIZE:  # a detail in words may be long; what adoption needs is not
            text = encode({**body, "detail": "", "window": [], "outdated": []}).encode()
        os.pwrite(self._fd, text.ljust(_SIZE), 0)

    def close(self, *, remove: bool) -> None:
        """Close it; with `remove`, the instance is no more."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        if remove:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass


def read_all(directory: str) -> Iterator[tuple[str, int, dict[str, object]]]:
    """Every readable record as (service, index, body); torn or foreign files are passed over."""
    for name in sorted(os.listdir(directory)):
        parts = name.rsplit(".", 2)
        if len(parts) != 3 or parts[2] != "json" or not parts[1].isdigit():
            continue
        try:
            with open(os.path.join(directory, name), "rb") as file:
                body = json.loads(file.read())
        except (OSError, ValueError):
            continue
        if isinstance(body, dict):
            yield parts[0], int(parts[1]), body


def replace_json(path: str, body: object) -> None:
    """Write a JSON file, 0600, in one step: a reader sees the old one or the new one."""
    temporary = f"{path}.{secrets.token_hex(4)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w") as file:
            json.dump(body, file, separators=(",", ":"))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_json(path: str) -> object:
    """The file's content, or null when it is missing or not JSON."""
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
