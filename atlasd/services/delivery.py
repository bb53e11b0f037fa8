"""What a program is handed beside its environment: how it is told, and what a change of it means.

The names, kinds and paths of files and descriptors are part of a service's definition, as only a
new process can be told of them. Their contents, and variables, are no part of it: when only these
change, `on_change` says what is done.
"""

import binascii
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atlasd.services.spec import Delivery, ServiceSpec

FOLDER = "SECRETS_DIR"
"""Variable that names the folder of the delivered files."""
LIVE_WAYS = ("reload", "signal", "swap")
"""Values of on_change by which a running process goes on with other files."""
LATER = "the next start has it"


def content(delivery: "Delivery") -> bytes:
    """Its bytes. Raises `ValueError`, which doesn't show them, when they are no base64."""
    try:
        return binascii.a2b_base64(delivery.content, strict_mode=True)
    except ValueError:
        raise ValueError(f"what is to be delivered as {delivery.name} is no base64") from None


def variables(deliveries: Iterable["Delivery"], folder: str) -> dict[str, str]:
    """The variables by which files are told of, and those that are delivered themselves.

    `folder` is where the files are. Descriptors have numbers that only a start can know.
    """
    told = {}
    for one in deliveries:
        if one.kind == "file":
            told[FOLDER] = folder
            told[f"{one.name}_FILE"] = f"{folder}/{one.path or one.name}"
        elif one.kind == "env":
            told[one.name] = content(one).decode(errors="surrogateescape")
    return told


def files(deliveries: Iterable["Delivery"]) -> dict[str, bytes]:
    """The files by their names. Raises `ValueError` for a name that would leave the folder."""
    found = {}
    for one in deliveries:
        if one.kind == "file":
            name = one.path or one.name
            if "/" in name or "\0" in name or name in ("", ".", ".."):
                raise ValueError(f"{name!r} is no name for a file")
            found[name] = content(one)
    return found


def shape(deliveries: Iterable["Delivery"]) -> list[list[str]]:
    """What only a new process can be told: which files and descriptors there are."""
    return sorted([one.name, one.kind, one.path] for one in deliveries if one.kind != "env")


# --- what has changed


def fingerprints(deliveries: Iterable["Delivery"]) -> dict[str, str]:
    """Name → a short digest of what is delivered under it."""
    return {
        one.name: hashlib.blake2b(
            f"{one.kind}\0{one.path}\0{one.content}".encode(), digest_size=6
        ).hexdigest()
        for one in deliveries
    }


def digest(deliveries: Sequence["Delivery"]) -> str:
    """Digest of everything that is delivered; empty when nothing is."""
    if not deliveries:
        return ""
    text = "\n".join(f"{name} {mark}" for name, mark in sorted(fingerprints(deliveries).items()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def differing(given: Mapping[str, str], wanted: Mapping[str, str]) -> tuple[str, ...]:
    """Names under which two sets of `fingerprints` differ, sorted."""
    return tuple(sorted(n for n in given.keys() | wanted.keys() if given.get(n) != wanted.get(n)))


def out_of_reach(spec: "ServiceSpec", names: Iterable[str]) -> tuple[str, ...]:
    """Of these names, those whose new values a running process cannot have, whatever is done."""
    exchanged = {one.name for one in spec.deliveries if one.kind == "file"}
    return tuple(name for name in names if name not in exchanged)


def in_words(spec: "ServiceSpec", names: Sequence[str]) -> str:
    """What has changed and what is done about it, without any value."""
    text = f"changed: {', '.join(names) or 'what it is handed'}"
    way = spec.on_change.kind
    if way == "none":
        return f"{text}; {LATER}"
    if way == "restart":
        return text
    missed = out_of_reach(spec, names)
    if len(missed) < len(names):
        doing = {
            "reload": "the program reloads",
            "signal": f"the program is sent {spec.on_change.signal}",
            "swap": "files are exchanged, nobody is told",
        }
        text += f"; {doing[way]}"
    if missed:
        text += f"; the running process keeps its {', '.join(missed)}, {LATER}"
    return text
