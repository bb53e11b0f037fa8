"""One member of a secret that is a JSON object: `secret://db#password`."""

import json

from atlasd.contracts.secrets import SecretValue
from atlasd.errors import AtlasError, nearest


def pick(value: SecretValue, member: str, name: str) -> SecretValue:
    """The member's text; numbers, truths, lists and tables as JSON.

    Raises `AtlasError`, without the value: `secret.invalid` for what is no JSON object,
    `secret.not_found` for a member that isn't there.
    """
    try:
        found = json.loads(value.reveal())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise AtlasError(
            "secret.invalid",
            f"the secret {name!r} is no JSON object, so it has no member {member!r}",
            hint=f"refer to all of it, without #{member}",
        )
    if found.get(member) is None:
        raise AtlasError(
            "secret.not_found",
            f"the secret {name!r} has no member {member!r}",
            hint=nearest(member, tuple(found)),
        )
    part = found[member]
    return SecretValue(part if isinstance(part, str) else json.dumps(part, ensure_ascii=False))
