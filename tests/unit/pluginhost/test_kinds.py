"""What plugins that could not be loaded would have supplied, read from their texts."""

from pathlib import Path

import pytest

from atlasd import hookspecs
from atlasd.contracts.checks import CheckType
from atlasd.contracts.operations import Operation
from atlasd.pluginhost.kinds import KINDS, claims_in, kind_of


def test_every_registration_hook_has_its_kind() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("register_")}
    assert hooks == {kind.hook for kind in KINDS}
    assert len({kind.label for kind in KINDS}) == len({kind.words for kind in KINDS}) == len(KINDS)


def test_a_derived_descriptor_is_of_its_parents_kind() -> None:
    class Special(CheckType):
        pass

    special = Special(name="x", summary="x", settings=dict, open=print)  # type: ignore[arg-type]
    assert kind_of(special).label == "check"


@pytest.mark.parametrize(
    ("source", "claims"),
    [
        ("CheckType(name='disk')", {(CheckType, "disk")}),
        ("contracts.checks.CheckType(summary='x', name='disk')", {(CheckType, "disk")}),
        ("def f():\n  return [Operation(name='a.b'), CheckType(name='a')]",
         {(Operation, "a.b"), (CheckType, "a")}),
        ("CheckType(name=NAME)", set()),
        ("CheckType('disk')", set()),
        ("Other(name='disk')", set()),
        ("(lambda: CheckType)()(name='disk')", set()),
        ("CheckType(name='disk'", set()),
    ],
)  # fmt: skip
def test_claims_are_found_without_running_anything(
    source: str, claims: set[object], tmp_path: Path
) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(source)
    assert claims_in([file, tmp_path / "missing.py"]) == claims
