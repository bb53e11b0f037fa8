"""The two lowest layers: what holds where nobody says anything, of atlasd itself and of plugins."""

from collections.abc import Iterator

from pydantic import BaseModel

from atlasd import __version__
from atlasd.config.layers import Described
from atlasd.config.schema import Settings
from atlasd.config.validate import Offers, Validated


def described(validated: Validated, offers: Offers | None) -> tuple[Described, Described]:
    """The defaults of atlasd's own tables, and those of what plugins supply, as layers."""
    models = [type(model) for model in validated.plugin_settings.values()]
    models += [type(model) for model in validated.check_settings.values()]
    names = dict.fromkeys(check.type for check in validated.settings.checks.values())
    used = [*(name for name in names if offers is not None), *validated.plugin_settings]
    return (
        Described(
            name="built-in defaults",
            origin=f"atlasd {__version__}",
            keys=sum(1 for _ in _defaults(Settings)),
        ),
        Described(
            name="plugin defaults",
            origin=", ".join(used) or "plugins",
            keys=sum(1 for model in dict.fromkeys(models) for _ in _defaults(model)),
            present=bool(used),
        ),
    )


def _defaults(model: type[BaseModel]) -> Iterator[str]:
    """The keys of a table, and of the tables in it, that have a default."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _defaults(kind)
        elif not field.is_required():
            yield name
