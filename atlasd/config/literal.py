"""Texts that are to be put into a configuration: what they would mean there."""

from collections.abc import Mapping

from atlasd.config import references
from atlasd.config.references import Placeholder
from atlasd.config.units import WrongValueError


def escape(text: str) -> str | None:
    """The text such that it is read as itself; None if that cannot be said."""
    if itself(text) == text:
        return text
    escaped = references.escape(text)
    return escaped if itself(escaped) == text else None


def itself(text: str) -> str | None:
    """What a text without references is read as; None for one that has any, or is refused."""
    try:
        template = references.parse(text)
    except WrongValueError:
        return None
    if template is None:
        return text
    if template.placeholders:
        return None
    return "".join(str(part) for part in template.parts)


def meaning(text: str, secrets: Mapping[str, str]) -> str:
    """What a text stands for. Raises `KeyError` for a reference that is not to one of `secrets`."""
    plain = itself(text)
    if plain is not None:
        return plain
    try:
        template = references.parse(text)
    except WrongValueError:
        raise KeyError(text) from None
    whole = template.whole if template is not None else None
    if not isinstance(whole, Placeholder) or whole.kind != "secret" or whole.filters:
        raise KeyError(text)
    return secrets[whole.what]
