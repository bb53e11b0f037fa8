"""Any name as a name of Key Vault, which has letters, digits and dashes only, and back.

Key Vault does not tell capitals from small letters, and takes at most 127 characters of
`0-9a-zA-Z-`. So:

- small letters and digits are what they are;
- `-` is `-`, and `/` is `--`, where one of them follows and no dash stands before:
  `shop/db-url` is `shop--db-url`;
- everything else is `---` and two hexadecimal digits for each of its bytes in UTF-8: `API_KEY` is
  `---41---50---49---5f---4b---45---59`.

No two names have the same name in Key Vault, and one that somebody has given there by hand is read
as what it says: `db-password` is `db-password`.
"""

import re

LONGEST = 127
_PLAIN = frozenset("0123456789abcdefghijklmnopqrstuvwxyz")
_SHORT = {"-": "-", "/": "--"}
_TOKEN = re.compile(r"((?:---[0-9a-f]{2})+)|(--?)(?!-)|([0-9a-z]+)")


def encode(text: str) -> str:
    """The name in Key Vault."""
    parts: list[str] = []
    for at, letter in enumerate(text):
        followed = text[at + 1 : at + 2] in _PLAIN
        if letter in _PLAIN:
            parts.append(letter)
        elif letter in _SHORT and parts and not parts[-1].endswith("-") and followed:
            parts.append(_SHORT[letter])
        else:
            parts += (f"---{byte:02x}" for byte in letter.encode())
    return "".join(parts)


def decode(name: str) -> str | None:
    """What was encoded; None for a name that `encode` would not give."""
    name = name.lower()
    found = bytearray()
    at = 0
    while at < len(name):
        token = _TOKEN.match(name, at)
        if token is None:
            return None
        escaped, dashes, plain = token.groups()
        if escaped:
            found += bytes.fromhex(escaped.replace("---", ""))
        elif dashes:
            found += b"-" if dashes == "-" else b"/"
        else:
            found += plain.encode()
        at = token.end()
    try:
        text = found.decode()
    except UnicodeDecodeError:
        return None
    return text if encode(text) == name else None
