"""What is asked about the configuration, and changes nothing: one method an operation."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from atlasd.clock import utc
from atlasd.config import shape
from atlasd.config.difference import settings_users, summary
from atlasd.config.effects import effect
from atlasd.config.history import Generation, History, change_to_wire
from atlasd.config.load import Config
from atlasd.config.problems import dotted, undotted
from atlasd.config.schema import Settings
from atlasd.config.shape import Shape
from atlasd.config.shown import leaves, safe
from atlasd.contracts.config import KeyPath
from atlasd.errors import AtlasError, nearest

Body = dict[str, Any]

_NOTHING = object()


class Questions:
    """Operations that read the configuration in force, as plain values.

    Each method takes the caller's name and the fields of its request in `atlasd.control.models`,
    and gives the body of its answer.
    """

    def __init__(self, current: Callable[[], Config], history: History) -> None:
        """`current` gives the generation in force."""
        self._current = current
        self._history = history

    async def show(self, *, defaults: bool = False, actor: str = "") -> Body:
        """`config.show`."""
        del actor
        config = self._current()
        settings = safe(config.data)
        if defaults:
            settings = with_defaults(settings, config.data, Settings)
        return {
            "generation": config.generation,
            "environment": config.environment,
            "environment_chosen_by": config.environment_chosen_by,
            "loaded": config.loaded_at,
            "settings": settings,
            "places": {
                dotted(path): str(config.origin(path)) for path, _ in leaves(config.data) if path
            },
        }

    async def explain(self, *, key: str, actor: str = "") -> Body:
        """`config.explain`. Raises `config.unknown` for what is neither set nor known."""
        del actor
        config = self._current()
        path = undotted(key)
        value = value_at(config.data, path)
        field = field_at(path)
        found = shape.at(path)
        if value is _NOTHING and found is None:
            raise AtlasError(
                "config.unknown", f"there is no setting {key}", hint=_nearest(path, config.data)
            )
        default = _default(field)
        specs = {spec.name: spec for spec in config.specs()}
        return {
            "key": dotted(path),
            "set": value is not _NOTHING,
            "value": default if value is _NOTHING else safe(value, path),
            "where": "" if value is _NOTHING else str(config.origin(path)),
            "layer": config.layer_of(path),
            "shadows": [
                {"where": str(old.place), "layer": old.layer, "value": safe(old.value, path)}
                for old in config.shadowed(path)
            ],
            "default": default,
            "expected": found.expected if found is not None else "",
            "description": (field.description or "") if field is not None else "",
            "effect": effect(path, specs, specs, users=settings_users(config.data)),
        }

    async def history(self, *, actor: str = "") -> Body:
        """`config.history`."""
        del actor
        current = self._current().generation
        return {"generations": [_generation(one, current) for one in await self._history.all()]}


def _generation(generation: Generation, current: int) -> Body:
    first = not generation.changes and generation.actor == "start"
    return {
        "number": generation.number,
        "time": utc(generation.time),
        "actor": generation.actor,
        "environment": generation.environment,
        "digest": generation.digest,
        "state": generation.state,
        "detail": generation.detail,
        "current": generation.number == current,
        "summary": "read at the start" if first else summary(generation.changes),
        "changes": [change_to_wire(change) for change in generation.changes],
    }


def value_at(data: Mapping[str, Any], path: KeyPath) -> Any:
    """What stands at a path, or a value of its own for nothing."""
    value: Any = data
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return _NOTHING
    return value


def field_at(path: KeyPath) -> FieldInfo | None:
    """The field of the schema that declares a setting; None for a name that the operator chose."""
    if not path:
        return None
    around = shape.at(path[:-1])
    if around is None or around.model is None:
        return None
    return around.model.model_fields.get(str(path[-1]))


def _default(field: FieldInfo | None) -> Any:
    if field is None or field.is_required():
        return None
    return as_written(field.get_default(call_default_factory=True), shape.of_field(field))


def as_written(value: Any, found: Shape | None) -> Any:
    """A value of a model as a file would say it: `30s`, not 30.0."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            name: as_written(getattr(value, name), shape.of_field(field))
            for name, field in fields.items()
            if getattr(value, name) is not None
        }
    if found is not None and found.spelling is not None and value is not None:
        return safe(found.spelling.show(value))
    return safe(value)


def with_defaults(shown: Any, data: Mapping[str, Any], model: type[BaseModel]) -> Body:
    """What is shown of a table, with the defaults of what it does not say."""
    given = dict(shown)
    for name, field in model.model_fields.items():
        inner = shape.of_field(field)
        value = given.get(name)
        if value is None:
            if field.is_required():
                continue
            default = _default(field)
            if default not in (None, {}, []):
                given[name] = default
        elif isinstance(value, dict):
            given[name] = _filled(value, data[name], inner)
    return given


def _filled(shown: dict[str, Any], data: Mapping[str, Any], inner: Shape) -> dict[str, Any]:
    if inner.model is not None:
        return with_defaults(shown, data, inner.model)
    found = dict(shown)
    for name, value in shown.items():
        below = inner.child(name)
        if isinstance(value, dict) and below is not None and below.model is not None:
            found[name] = with_defaults(value, data[name], below.model)
    return found


def _nearest(path: KeyPath, data: Mapping[str, Any]) -> str:
    """The known key that is nearest to the first unknown one of a path."""
    for depth in range(len(path)):
        above = path[:depth]
        found = shape.at(above)
        table = value_at(data, above)
        known = [*(found.keys if found is not None else ())]
        known += [str(key) for key in table] if isinstance(table, Mapping) else []
        if known and str(path[depth]) not in known:
            near = nearest(str(path[depth]), known)
            return f"{dotted(above)}: {near}" if above and near else near
    return "`atlasctl config show --defaults` lists what there is"
