"""What all conformance suites ask: that the plugin is admitted, and offers what it should."""

from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import ValidationError

from atlasd.pluginhost import PluginHost, PluginState
from atlasd.pluginhost.candidates import Candidate
from atlasd.pluginhost.kinds import Descriptor
from atlasd.pluginhost.roll import Roll

D = TypeVar("D", bound=Descriptor)


def load_drop_in(path: Path, kind: type[D]) -> D:
    """The one thing of a kind that a drop-in offers, loaded as the daemon loads it.

    Fails the test, with the daemon's own sentence, when the plugin is refused.
    """
    host = PluginHost(drop_ins=path.parent, state_dir=path.parent / "state")
    host.load(entry_points=())
    for report in host.report():
        if report.name == path.stem and report.state is PluginState.REFUSED:
            pytest.fail(f"plugin {report.name} was refused: {report.reason}")
    found = [offer for offer in host.offers(kind) if offer.plugin == path.stem]
    if len(found) != 1:
        pytest.fail(f"plugin {path.stem} offers {len(found)} {kind.__name__}s, not one")
    return found[0].descriptor


def load_module(module: object, kind: type[D], name: str) -> D:
    """What a module, or any other object with hooks, offers under a name.

    Fails the test, with the daemon's own sentence, when the daemon would refuse the plugin.
    """
    roll = Roll()
    roll.take(Candidate(name="under_test", origin="a test", load=lambda: module, drop_in=False))
    for refused in roll.refused:
        pytest.fail(f"the plugin was refused: {refused.reason}")
    return roll.find(kind, name).descriptor


def assert_settings_are_strict(model: Any, good: dict[str, Any]) -> None:
    """Assert that settings are read, unknown names refused, and every field described."""
    model.model_validate(good)
    with pytest.raises(ValidationError):
        model.model_validate({**good, "no_such_setting_at_all": 1})
    undescribed = [name for name, field in model.model_fields.items() if not field.description]
    assert undescribed == [], "each field needs a description: the reference is made from it"
