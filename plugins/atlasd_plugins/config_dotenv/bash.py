r"""The dialect of bash: what `set -a; . FILE` would set, as far as nothing has to be run for it.

    export NAME=value OTHER="$NAME/x"     several on a line; `export` changes nothing
    NAME='as it stands'"and $this"\ too   pieces with and without quotes make one word
    NAME=$'tab\there'                     escapes as in C
    NAME=${OTHER:-default}

Everything that would run a command is refused with its line: `$(...)`, backquotes, a word behind
an assignment, `;` apart.
"""

import re
from collections.abc import Callable, Mapping

from atlasd.contracts.config import Layer
from atlasd_plugins.config_dotenv.expansion import KNOWN, expand
from atlasd_plugins.config_dotenv.reading import NAME, Reading, Refused

_BLANK = re.compile(r"(?:[ \t\n;]|\r\n|\\\n)+")
_SPACE = re.compile(r"(?:[ \t]|\\\n)+")
_EXPORT = re.compile(r"export(?=[ \t])")
_ENDS = " \t\n;"
_SPECIAL = "|&()<>"
_C_ESCAPES = {
    "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
    "v": "\v", "\\": "\\", "'": "'", '"': '"', "?": "?",
}  # fmt: skip
_C_NUMBER = re.compile(r"x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|([0-7]{1,3})")
_ONLY_ASSIGNMENTS = "the file is read, and nothing in it is run"


def parse(text: str, origin: str, variables: Mapping[str, str]) -> Layer:
    """The variables of a text; see `atlasd.contracts.config.ParseVariables`."""
    reading = Reading(text, origin, variables)
    exporting = said = False  # `said`: there is something before on this line, which a ; may end
    while not reading.over():
        try:
            blank = reading.match(_BLANK)
            if blank is not None and _ends_statement(blank, said=said):
                exporting = said = False
            if reading.over():
                break
            if reading.char == "#":
                reading.skip_line()
                exporting = said = False
                continue
            said = True
            if reading.match(_EXPORT) is not None:
                exporting = True
            else:
                _assignment(reading, exporting=exporting)
        except Refused as refused:
            reading.refuse(refused)
            reading.skip_line()
    return reading.layer()


def _ends_statement(blank: re.Match[str], *, said: bool) -> bool:
    """Whether a statement ends within what stands between two words.

    Raises `Refused` for a `;` that ends nothing, which bash takes for a mistake.
    """
    ended = False
    for offset, char in enumerate(blank[0].replace("\\\n", "  ")):
        if char == ";" and not said:
            raise Refused(blank.start() + offset, "NAME=VALUE", "a ; with nothing before it")
        if char in "\n;":
            ended, said = True, False
    return ended


def _assignment(reading: Reading, *, exporting: bool) -> None:
    name_at = reading.at
    found = reading.match(NAME)
    if found is None:
        raise Refused(name_at, "NAME=VALUE", "something else", _ONLY_ASSIGNMENTS)
    if exporting and (reading.ends_line() or reading.char in _ENDS):
        return  # `export NAME`: all are exported
    if reading.char != "=":
        if reading.text.startswith("+=", reading.at):
            hint = f"write NAME=${{NAME}}…, as {found[0]}=${{{found[0]}}}:more"
            raise Refused(reading.at, "= after the name", "+=", hint)
        raise Refused(name_at, "NAME=VALUE", "something else", _ONLY_ASSIGNMENTS)
    reading.at += 1
    value_at = reading.at
    if reading.char == "(":
        raise Refused(value_at, "text", "an array", "a variable of a process is text")
    value = _word(reading, _ENDS)
    reading.note(found[0], value, name_at=name_at, value_at=value_at)


def _word(reading: Reading, ends: str) -> str:
    """A word, up to one of the characters `ends`, whatever pieces it is made of."""
    value = []
    while not reading.over() and reading.char not in ends:
        char = reading.char
        if ends == _ENDS and reading.ends_line():
            break
        if char == "'":
            value.append(_single(reading))
        elif char == '"':
            value.append(_double(reading))
        elif char == "$" and reading.text.startswith("$'", reading.at):
            value.append(_c_string(reading))
        elif reading.text.startswith('$"', reading.at):
            raise Refused(reading.at, KNOWN, "a translated string", "remove the $ before the quote")
        elif char in "$`":
            value.append(_dollar(reading, _bare_word))
        elif char == "~" and reading.text[reading.at - 1] in "=:-+":
            raise Refused(reading.at, "text", "a ~ without quotes", "write $HOME, or quote it")
        elif char == "\\":
            escaped = reading.text[reading.at + 1 : reading.at + 2]
            value.append("" if escaped == "\n" else escaped or char)
            reading.at += 2
        elif char in _SPECIAL and ends == _ENDS:
            raise Refused(reading.at, "text", f"a {char} without quotes", "quote the value")
        else:
            value.append(char)
            reading.at += 1
    return "".join(value)


def _bare_word(reading: Reading) -> str:
    return _word(reading, "}")


def _word_in_quotes(reading: Reading) -> str:
    return _in_quotes(reading, "}")


def _dollar(reading: Reading, word: Callable[[Reading], str]) -> str:
    start = reading.at
    if reading.char == "`" or reading.text.startswith("$(", start):
        raise Refused(start, "text", "a command", _ONLY_ASSIGNMENTS)
    following = reading.text[start + 1 : start + 2]
    if following and following in "0123456789?$#@*!-[":
        raise Refused(start, KNOWN, "another expansion")
    found = expand(reading, word)
    if found is None:
        reading.at += 1
        return "$"
    return found


def _single(reading: Reading) -> str:
    start = reading.at
    end = reading.text.find("'", start + 1)
    if end < 0:
        raise Refused(start, "a closing '", "the end of the file")
    reading.at = end + 1
    return reading.text[start + 1 : end]


def _double(reading: Reading) -> str:
    start = reading.at
    reading.at += 1
    value = _in_quotes(reading, '"')
    if reading.over():
        reading.at = start
        raise Refused(start, 'a closing "', "the end of the file")
    reading.at += 1
    return value


def _in_quotes(reading: Reading, end: str) -> str:
    value = []
    while not reading.over() and reading.char != end:
        char = reading.char
        if char in "$`":
            value.append(_dollar(reading, _word_in_quotes))
            continue
        if char == "\\":
            escaped = reading.text[reading.at + 1 : reading.at + 2]
            if escaped and escaped in '$`"\\\n':
                value.append("" if escaped == "\n" else escaped)
                reading.at += 2
                continue
        if char == '"':
            # Quotes within ${…} within quotes: bash takes them away, nobody writes them.
            raise Refused(reading.at, "no quotes in ${…} in quotes", "some", "remove them")
        value.append(char)
        reading.at += 1
    return "".join(value)


def _c_string(reading: Reading) -> str:
    start = reading.at
    reading.at += 2
    value = []
    while reading.char != "'":
        if reading.over():
            reading.at = start
            raise Refused(start, "a closing '", "the end of the file")
        char = reading.char
        reading.at += 1
        if char == "\\":
            value.append(_c_escape(reading))
        else:
            value.append(char)
    reading.at += 1
    return "".join(value)


def _c_escape(reading: Reading) -> str:
    at = reading.at - 1
    number = reading.match(_C_NUMBER)
    if number is not None:
        digits = next(group for group in number.groups() if group)
        code = int(digits, 8 if number[4] else 16)
        limit = 0x10FFFF if number[2] or number[3] else 0x7F
        if not 0 < code <= limit or 0xD800 <= code <= 0xDFFF:
            raise Refused(at, "the escape of a character", "another number", "write it itself")
        return chr(code)
    char = reading.char
    reading.at += 1
    if char not in _C_ESCAPES:
        return "\\" + char
    return _C_ESCAPES[char]
