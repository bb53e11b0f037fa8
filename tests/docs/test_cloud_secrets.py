"""The pages about secrets in a cloud grant what the backends need, and show their real names."""

import json
import re
from pathlib import Path

from atlasd_plugins.secrets_aws import store
from atlasd_plugins.secrets_azure.names import encode

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


def actions_on_page() -> set[str]:
    text = (PAGES / "keep-secrets-in-aws.md").read_text()
    blocks = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for block in map(json.loads, blocks):
        for statement in block.get("Statement", [block]):
            actions = statement["Action"]
            found |= {actions} if isinstance(actions, str) else set(actions)
    return found


def test_the_policies_allow_what_is_called_and_nothing_else() -> None:
    source = Path(store.__file__).read_text()
    called = re.findall(r'"([a-z]+_secrets?(?:_[a-z]+)*)"', source)
    names = {"".join(word.capitalize() for word in call.split("_")) for call in called}
    assert len(names) == 9
    assert actions_on_page() == {f"secretsmanager:{name}" for name in names}


def test_the_names_of_key_vault_are_as_shown() -> None:
    text = (PAGES / "keep-secrets-in-azure.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", text, re.MULTILINE)
    assert len(rows) == 4
    assert {name: encode(name) for name, _ in rows} == dict(rows)
