"""What is asked about the configuration, and changes nothing: one method an operation."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from atlasd.clock import utc
from atlasd.config import jsonschema, shape
from atlasd.config.difference import MISSING, differing, settings_users, summary
from atlasd.config.effects import effect
from atlasd.config.exporting import Format, revealed, text_of
from atlasd.config.history import Generation, History, change_to_wire
from atlasd.config.load import Config, Offers
from atlasd.config.problems import dotted, undotted
from atlasd.config.schema import Settings
from atlasd.config.shape import Shape
from atlasd.config.shown import leaves, safe
from atlasd.contracts.config import KeyPath
from atlasd.errors import AtlasError, nearest

Body = dict[str, Any]

NOTHING = object()
"""What stands where nothing stands."""


class Questions:
    """Operations that read the configuration in force, as plain values.

    Each method takes the caller's name and the fields of its request in `atlasd.control.models`,
    and gives the body of its answer.
    """

    def __init__(
        self,
        current: Callable[[], Config],
        *,
        load: Callable[[str], Config],
        offers: Callable[[], Offers],
    ) -> None:
        """`current` gives the generation in force, `load` that of the files for an environment."""
        self._current = current
        self._load = load
        self._offers = offers

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
        if value is NOTHING and (found is None or _names_nothing(path, config.data)):
            raise AtlasError(
                "config.unknown", f"there is no setting {key}", hint=_nearest(path, config.data)
            )
        default = _default(field)
        referenced = config.references.get(path)
        specs = {spec.name: spec for spec in config.specs()}
        return {
            "key": dotted(path),
            "set": value is not NOTHING,
            "value": default if value is NOTHING else safe(value, path),
            "where": "" if value is NOTHING else str(config.origin(path)),
            "layer": config.layer_of(path),
            "shadows": [
                {"where": str(old.place), "layer": old.layer, "value": safe(old.value, path)}
                for old in config.shadowed(path)
            ],
            "secrets": [
                {
                    "reference": str(source),
                    "backend": source.backend,
                    "version": source.version,
                    "fetched": source.fetched,
                    "stale": source.stale,
                }
                for source in (referenced.sources if referenced is not None else ())
            ],
            "default": default,
            "expected": found.expected if found is not None else "",
            "description": (field.description or "") if field is not None else "",
            "effect": effect(path, specs, specs, users=settings_users(config.data)),
        }

    async def diff(self, *, left: str, right: str, actor: str = "") -> Body:
        """`config.diff`. Raises as `atlasd.config.load.load` for an environment with errors."""
        del actor
        one = await asyncio.to_thread(self._load, left)
        other = await asyncio.to_thread(self._load, right)
        return {
            "left": left,
            "right": right,
            "differences": [
                {
                    "key": dotted(path),
                    "left": None if was is MISSING else safe(was, path),
                    "left_where": "" if was is MISSING else str(one.origin(path)),
                    "right": None if is_now is MISSING else safe(is_now, path),
                    "right_where": "" if is_now is MISSING else str(other.origin(path)),
                }
                for path, was, is_now in differing(one.data, other.data)
            ],
        }

    async def sources(self, *, actor: str = "") -> Body:
        """`config.sources`."""
        del actor
        config = self._current()
        return {
            "environment": config.environment,
            "environment_chosen_by": config.environment_chosen_by,
            "layers": [layer.to_wire() for layer in config.layers],
        }

    async def schema(self, *, actor: str = "") -> Body:
        """`config.schema`."""
        del actor
        return await asyncio.to_thread(jsonschema.schema, self._offers())

    async def export(self, *, format: Format, defaults: bool = False, actor: str = "") -> Body:
        """`config.export`."""
        shown = await self.show(defaults=defaults, actor=actor)
        return {"format": format, "text": text_of(shown["settings"], format)}

    async def reveal(self, *, format: Format, defaults: bool = False, actor: str = "") -> Body:
        """`config.reveal`: with the values of secrets."""
        del actor
        config = self._current()
        settings: Body = revealed(config)
        if defaults:
            settings = with_defaults(settings, config.data, Settings)
        return {"format": format, "text": text_of(settings, format)}


class Past:
    """Operations that read what is kept of earlier generations."""

    def __init__(self, history: History, current: Callable[[], int]) -> None:
        """`current` gives the number of the generation in force, 0 for none."""
        self._history = history
        self._current = current

    async def history(self, *, actor: str = "") -> Body:
        """`config.history`."""
        del actor
        current = self._current()
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
    """What stands at a path, or `NOTHING`."""
    value: Any = data
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return NOTHING
    return value


def _names_nothing(path: KeyPath, data: Mapping[str, Any]) -> bool:
    """Whether a path goes through a name that the operator would choose, and has not."""
    for depth, key in enumerate(path):
        around = shape.at(path[:depth])
        if around is None or around.model is None:
            table = value_at(data, path[:depth])
            if not isinstance(table, Mapping | list) or value_at(data, (*path[:depth], key)) is (
                NOTHING
            ):
                return True
    return False


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
