"""A pydantic model of the application, asked in a process of its own and never in ours."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from atlasd.contracts.applications import MODEL, Complaint
from atlasd.contracts.config import KeyPath
from atlasd.errors import AtlasError, nearest
from atlasd.settings import model_loader
from atlasd.settings.commands import DidNotAnswerError, Program, surroundings
from atlasd.settings.schema import Schema
from atlasd.settings.tree import AbsentError, at, plain
from atlasd.settings.words import Speaker, clean

SECONDS = 30.0
"""Time for the import of the application's module and both questions."""
LONGEST = 16 * 1024 * 1024
"""Bytes of an answer."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the model says of the settings."""

    complaints: tuple[Complaint, ...]
    defaults: tuple[tuple[KeyPath, Any], ...] = ()
    """What was not given and the model has filled in."""


class Model:
    """The process that has imported the model; to be used in a `with`."""

    def __init__(self, name: str, *, python: str, folder: str, seconds: float = SECONDS) -> None:
        """Import `module:Class`, also from `folder`.

        Raises `AtlasError` `settings.invalid` for one that cannot be imported.
        """
        found = MODEL.fullmatch(name)
        assert found is not None
        self._name = name
        self._python = python or sys.executable
        source = Path(model_loader.__file__).read_text(encoding="utf-8")
        try:
            # Nothing that is secret may stand in its arguments or environment: others can see both.
            self._program = Program(
                [self._python, "-B", "-c", source],
                cwd=folder,
                env=surroundings(PYTHONIOENCODING="utf-8"),
                seconds=seconds,
            )
        except DidNotAnswerError as error:
            raise self._failed(str(error)) from None
        try:
            said = self._ask({"module": found["module"], "name": found["name"]}, last=False)
            schema = said["schema"]
            self.schema = Schema(schema, f"model:{found['module']}.{found['name']}")
        except BaseException:
            self._program.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._program.__exit__(kind, error, trace)

    def judge(self, data: Mapping[str, Any], speaker: Speaker) -> Judged:
        """Hold the settings against the model. Raises `AtlasError` `settings.invalid`."""
        secrets = [value for held in speaker.secrets.values() for value in held.values()]
        said = self._ask({"data": plain(dict(data))}, last=True, secrets=secrets)
        complaints = [self._complaint(one, data, speaker) for one in said["errors"]]
        return Judged(
            complaints=tuple(complaints),
            defaults=tuple((tuple(path), value) for path, value in said["defaults"]),
        )

    def _ask(
        self, question: Mapping[str, Any], *, last: bool, secrets: Sequence[str] = ()
    ) -> dict[str, Any]:
        try:
            self._program.send(json.dumps(question).encode() + b"\n", last=last)
            answer = json.loads(self._program.line(LONGEST))
        except DidNotAnswerError as error:
            last_words = bytes(self._program.heard["err"][-2000:]).decode(errors="replace")
            words = clean(last_words, secrets)
            raise self._failed(f"{error}" + (f": {words}" if words else "")) from None
        except (ValueError, RecursionError):
            raise self._failed("its answer is no JSON") from None
        if "failed" in answer:
            raise self._failed(clean(str(answer["failed"]), secrets))
        assert isinstance(answer, dict)
        return answer

    def _failed(self, why: str) -> AtlasError:
        return AtlasError(
            "settings.invalid",
            f"{self._name}: {why}",
            hint=f"it is imported by {self._python}; set `python` to the application's own",
        )

    def _complaint(
        self, found: Mapping[str, Any], data: Mapping[str, Any], speaker: Speaker
    ) -> Complaint:
        kind, message = str(found["type"]), str(found["msg"])
        path = _within(found["loc"], data, missing=kind == "missing")
        if kind == "extra_forbidden":
            table = at(data, path[:-1])
            known = [str(p[-1]) for p in self.schema.paths() if p[:-1] == path[:-1]]
            free = tuple(name for name in known if name not in table) or tuple(known)
            hint = nearest(str(path[-1]), free)
            return speaker.about(path, got="unknown key", hint=hint, at_key=True)
        if kind == "missing":
            expected = self.schema.describe(path) or "a value"
            return speaker.about(path, expected=expected, got="nothing", at_key=True)
        try:
            value = at(data, path)
        except AbsentError:
            value = None
        if kind in ("value_error", "assertion_error") or "custom" in kind:
            words = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
            if speaker.hidden(path):
                return speaker.about(path, value=value, expected="another value")
            return speaker.about(path, got=speaker.clean(words))
        if kind in _KINDS:
            return speaker.about(path, value=value, expected=_KINDS[kind])
        words = message.removeprefix("Input should be ").removeprefix("Value should ")
        if speaker.hidden(path) and words == message:
            words = "another value"
        return speaker.about(
            path, value=value, expected=speaker.clean(words[:1].lower() + words[1:])
        )


_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "a string",
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a table"),
}


def _within(loc: Sequence[str | int], data: object, *, missing: bool) -> KeyPath:
    """The parts of pydantic's location that are keys and indexes of the settings.

    The others name which form of several was tried.
    """
    path: list[str | int] = []
    value: Any = data
    for number, part in enumerate(loc):
        if isinstance(value, dict):
            known = part in value
        else:
            known = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if known:
            value = value[part]
            path.append(part)
        elif missing and number == len(loc) - 1:
            path.append(part)
    return tuple(path)
