"""What the dialects have in common: a text, a place in it, and the variables found so far."""

import re
from collections.abc import Mapping

from atlasd.contracts.config import Fault, KeyPath, Layer, Lines, Offsets

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Refused(Exception):  # noqa: N818  it is not yet an error: it becomes a fault of the layer
    """A statement that cannot be read; the file is read on from the next line."""

    def __init__(self, at: int, expected: str, got: str, hint: str = "") -> None:
        super().__init__(expected)
        self.at = at
        self.expected = expected
        self.got = got
        self.hint = hint


class Reading:
    """A text that is being read from `at` on. No value ever gets into a fault: it may be secret."""

    def __init__(self, text: str, origin: str, variables: Mapping[str, str]) -> None:
        # Some editors begin a file with a byte order mark, and no program wants it in a name.
        self.text = text.removeprefix("\ufeff")
        self.at = 0
        self.process = variables
        self.found: dict[str, str] = {}
        self._origin = origin
        self._lines = Lines(self.text, origin)
        self._names: dict[KeyPath, int] = {}
        self._values: dict[KeyPath, int] = {}
        self._faults: list[Fault] = []

    @property
    def char(self) -> str:
        """The character that comes next; empty at the end."""
        return self.text[self.at : self.at + 1]

    def ends_line(self) -> bool:
        """Whether the line ends here, as Windows writes it or as everybody else does."""
        return self.char in ("", "\n") or self.text.startswith("\r\n", self.at)

    def over(self) -> bool:
        """Whether nothing is left."""
        return self.at >= len(self.text)

    def match(self, pattern: "re.Pattern[str]") -> "re.Match[str] | None":
        """What a pattern matches here; it is passed over."""
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def skip_line(self) -> None:
        """Go to the beginning of the next line."""
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end + 1

    def note(self, name: str, value: str, *, name_at: int, value_at: int) -> None:
        """A variable was found; one that was there already has a new value now."""
        path = (name,)
        if "\0" in value:
            raise Refused(value_at, "text", "a NUL character")
        if name in self.found:
            line = self._lines.at(self._names[path]).line
            self.fault(
                name_at,
                got=f"{name} again, which line {line} has set",
                hint="this value counts; remove the other line",
                path=path,
                warning=True,
            )
        self.found[name] = value
        self._names[path] = name_at
        self._values[path] = value_at

    def fault(
        self,
        at: int,
        *,
        got: str,
        expected: str = "",
        hint: str = "",
        path: KeyPath = (),
        warning: bool = False,
    ) -> None:
        """Something is wrong, or doubtful, at an offset."""
        where = self._lines.at(at)
        self._faults.append(
            Fault(where=where, expected=expected, got=got, hint=hint, path=path, warning=warning)
        )

    def refuse(self, refused: Refused) -> None:
        """Tell of a statement that cannot be read."""
        self.fault(refused.at, expected=refused.expected, got=refused.got, hint=refused.hint)

    def look_up(self, name: str, at: int, *, told: bool = True) -> str | None:
        """The value of a variable that a value refers to: the file's own, else the process's.

        One that there is not is told of, unless a default stands beside it.
        """
        value = self.found.get(name, self.process.get(name))
        if value is None and told:
            self.fault(
                at,
                got=f"there is no variable {name}, so nothing stands in its place",
                hint=f"set it before, or write ${{{name}:-}} if nothing is meant",
                warning=True,
            )
        return value

    def layer(self) -> Layer:
        """What was found."""
        return Layer(
            origin=self._origin,
            data=dict(self.found),
            values=Offsets(self._lines, self._values),
            keys=Offsets(self._lines, self._names),
            faults=tuple(self._faults),
            text=True,
        )


_EQUALS = re.compile(r"=")
_SPACED_EQUALS = re.compile(r"[ \t]*=")


def name_here(reading: Reading, *, spaces: bool) -> str:
    """The name of a variable that begins here, and ends with `=`; both are passed over.

    `spaces` may stand before the `=`. What is refused is never repeated: the line may be a bare
    secret that lost its name.
    """
    start = reading.at
    name = reading.match(NAME)
    if name is not None and reading.match(_SPACED_EQUALS if spaces else _EQUALS) is not None:
        return name[0]
    end = reading.text.find("\n", start)
    line = reading.text[start : end if end >= 0 else None]
    reading.at = start
    if "=" not in line:
        raise Refused(start, "NAME=VALUE", "a line without =")
    got = "no name" if line.startswith("=") else "another name"
    raise Refused(start, "a name of letters, digits and _, no digit first", got)
