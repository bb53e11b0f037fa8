"""In which spellings a secret value may turn up in text: pure, from a value to byte strings."""

import json
import re
from binascii import b2a_base64
from collections.abc import Iterator

SHORTEST = 6
"""Bytes: what is shorter, of a value or of what is derived from it, would hide too much else."""
LONGEST = 1024
"""Bytes: a longer spelling is looked for in pieces, so that little has to be held back where a
chunk of output ends."""
READ = 64 * 1024
"""Bytes of a value that count, and the most that the stores of secrets take."""

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")
# What is left as it is, besides: by Python's quote_plus, by its quote, by JavaScript.
_LEFT_ALONE = (frozenset(b""), frozenset(b"/"), frozenset(b"!'()*"))
_SECRET_KEY = re.compile(r"(?i)(pass|secret|token|key|credential)")
# The first and last lines of keys and certificates say what they are, and are no secret.
_BOUNDARY = re.compile(rb"-----(BEGIN|END) [A-Z0-9 ]+-----")


def spellings(value: str | bytes) -> set[bytes]:
    """Every spelling of a value that is looked for; none for a value that is too short.

    As it is, URL-escaped, JSON-escaped, in hex and in base64, wherever in a longer text the base64
    begins. Of several lines each is looked for by itself, as it is or escaped. White space around
    a value or a line is no part of it: a file's last newline is seldom printed. Of a JSON object
    the members that are secrets by their names count as values too.

    No spelling contains a newline, and none is longer than `LONGEST`.
    """
    raw = (as_bytes(value) if isinstance(value, str) else value)[:READ].strip()
    found: set[bytes] = set()
    if len(raw) >= SHORTEST:
        found.update(_escaped(raw), _encoded(raw))
        if b"\n" in raw:
            for line in map(bytes.strip, raw.split(b"\n")):
                if len(line) >= SHORTEST and not _BOUNDARY.fullmatch(line):
                    found.update(_escaped(line))
        for member in _members(raw):
            found |= spellings(member)
    return {
        piece
        for text in found
        if b"\n" not in text
        for piece in _pieces(text)
        if len(piece) >= SHORTEST
    }


def as_bytes(text: str) -> bytes:
    """Text as a program writes it; bytes that Python could not read are as they were."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")


def _escaped(raw: bytes) -> Iterator[bytes]:
    """The value itself, and with what is special in some syntax escaped."""
    yield raw
    for left in _LEFT_ALONE:
        for form in ("%%%02X", "%%%02x"):
            quoted = _quoted(raw, left, form)
            yield quoted
            yield quoted.replace(b"%20", b"+")
    yield repr(raw)[2:-1].encode()  # bytes, and below a text, in something that Python prints
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode()
        yield escaped
        yield escaped.replace(b"/", rb"\/")
        yield _upper_escapes(escaped)
        yield _html_safe(escaped)
    yield repr(text)[1:-1].encode()


def _quoted(raw: bytes, left: frozenset[int], form: str) -> bytes:
    return "".join(
        chr(byte) if byte in _UNRESERVED or byte in left else form % byte for byte in raw
    ).encode("ascii")


def _upper_escapes(escaped: bytes) -> bytes:
    r"""`\u00E9` as Java writes it, where Python has `\u00e9`."""
    return re.sub(rb"\\u[0-9a-f]{4}", lambda found: b"\\u" + found[0][2:].upper(), escaped)


def _html_safe(escaped: bytes) -> bytes:
    """JSON as Go writes it, which can stand in a page."""
    for char in (b"<", b">", b"&"):
        escaped = escaped.replace(char, rb"\u%04x" % char[0])
    return escaped


def _encoded(raw: bytes) -> Iterator[bytes]:
    """The value as hex and as base64."""
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for before in range(3):
        piece = _base64(raw, before)
        yield piece
        yield piece.translate(_URL_SAFE)


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _base64(raw: bytes, before: int) -> bytes:
    """What of the value's base64 is the same whatever stands around it.

    `before`: bytes of something else that share the first group of three. A character of base64
    is six bits; those that hold bits of a neighbour are left out, and so is the padding.
    """
    text = b2a_base64(bytes(before) + raw, newline=False)
    first = -(-before * 8 // 6)
    last = (before + len(raw)) * 8 // 6
    return text[first:last]


def _members(raw: bytes) -> Iterator[str]:
    """Of a JSON object, the texts whose names say that they are secret; a database's password."""
    if not raw.startswith(b"{"):
        return
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return
    if isinstance(body, dict):
        for key, value in body.items():
            if isinstance(value, str) and _SECRET_KEY.search(key):
                yield value


def _pieces(text: bytes) -> Iterator[bytes]:
    """The text in as few pieces of about the same length as keep to `LONGEST`."""
    count = -(-len(text) // LONGEST)
    size = -(-len(text) // count)
    for start in range(0, len(text), size):
        yield text[start : start + size]
