"""Which secrets are kept out of captured output, by instance; a successor knows them too."""

import os
from collections.abc import Iterable, Mapping
from weakref import WeakValueDictionary

from atlasd.redaction import Redactor
from atlasd.services.records import read_json, replace_json
from atlasd.services.spec import KnownSecret

KEPT = 16
"""Values of one name: a process that runs for years must not be searched for those of years."""

_Key = tuple[str, int]
_Values = dict[str, tuple[str, ...]]
"""By name, the newest last."""


class OutputSecrets:
    """What the output of each instance is searched for.

    It stands in a file of the role's own folder (on tmpfs, 0600), since a successor needs it twice
    before anybody could tell it: for a chunk of output that its predecessor had taken, and for a
    process that was started with a value which has been replaced since.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._values: dict[_Key, _Values] = {}
        self._redactors: dict[_Key, Redactor] = {}
        # Instances of a service have the same secrets, and share what is prepared of them.
        self._shared: WeakValueDictionary[tuple[tuple[str, str], ...], Redactor] = (
            WeakValueDictionary()
        )

    def redactor(self, service: str, instance: int) -> Redactor:
        """What takes them out of this instance's output."""
        key = (service, instance)
        found = self._redactors.get(key)
        if found is None:
            found = self._redactors[key] = self._prepared(self._known(key))
        return found

    def learn(
        self, service: str, instance: int, secrets: Iterable[KnownSecret], *, anew: bool = False
    ) -> bool:
        """Search for these too, or with `anew` for these alone; whether that changes anything.

        The file comes first: no output is read under a set that a successor would not know.
        Raises `OSError` when it cannot be written; what was asked for holds all the same.
        """
        key = (service, instance)
        before = self._known(key)
        after = _with({} if anew else before, secrets)
        if after == before:
            return False
        self._values[key] = after
        self._redactors[key] = self._prepared(after)
        replace_json(self._path(key), after)
        return True

    def forget(self, service: str, instance: int) -> None:
        """The instance is no more."""
        key = (service, instance)
        self._redactors.pop(key, None)
        if self._values.pop(key, None):
            try:
                os.unlink(self._path(key))
            except OSError:
                pass

    def _known(self, key: _Key) -> _Values:
        known = self._values.get(key)
        if known is None:
            known = self._values[key] = _read(self._path(key))
        return known

    def _path(self, key: _Key) -> str:
        return os.path.join(self._folder, f"{key[0]}.{key[1]}.json")

    def _prepared(self, values: _Values) -> Redactor:
        # The newest first: where two names have one value, it goes by the one that has it now.
        named = tuple((name, value) for name, them in values.items() for value in reversed(them))
        made = self._shared.get(named)
        if made is None:
            made = self._shared[named] = Redactor(named)
        return made


def _with(values: _Values, secrets: Iterable[KnownSecret]) -> _Values:
    found = dict(values)
    for secret in secrets:
        them = [value for value in found.get(secret.name, ()) if value != secret.value]
        found[secret.name] = (*them, secret.value)[-KEPT:]
    return found


def _read(path: str) -> _Values:
    body = read_json(path)
    if not isinstance(body, Mapping):
        return {}
    return {
        str(name): tuple(value for value in values if isinstance(value, str))
        for name, values in body.items()
        if isinstance(values, list)
    }


class Carry:
    """The end of a stream's output that was held back, as it may be the beginning of a value.

    It was taken from the pipe, so a successor must find it. A new end takes the old one's place in
    two steps, so that the journal can say between them that the chunk is written: `stage`, then
    `commit`, which may be done twice.
    """

    __slots__ = ("_path", "data")

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            with open(path, "rb") as file:
                self.data = file.read()
        except OSError:
            self.data = b""

    def stage(self, data: bytes) -> None:
        """Write what will be held back. Raises `OSError`; it's held back in memory all the same."""
        self.data = data
        fd = os.open(
            f"{self._path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        try:
            if os.write(fd, data) != len(data):
                raise OSError(f"{self._path}.new was written in part")
        finally:
            os.close(fd)

    def commit(self) -> None:
        """Let what was staged be what is held back; if nothing was, all stays as it is."""
        try:
            os.replace(f"{self._path}.new", self._path)
        except FileNotFoundError:
            pass

    def remove(self) -> None:
        """The stream is no more."""
        for path in (self._path, f"{self._path}.new"):
            try:
                os.unlink(path)
            except OSError:
                pass
