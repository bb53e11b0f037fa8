"""What may stand where, as sources of variables ask it: the schema, and what is there already."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from atlasd.config import shape
from atlasd.config.schema import Settings
from atlasd.config.shape import Shape
from atlasd.contracts.config import KeyPath

Further = Callable[[KeyPath, Mapping[str, Any]], type[BaseModel] | None]
"""The model of the further keys of the table at a path, which a plugin has declared; given what
stands there. None where nobody knows."""

_VARIABLES = ("env", "secrets")
"""Tables of a service whose keys are names of variables, and keep their capitals."""


def nothing_further(_path: KeyPath, _table: Mapping[str, Any]) -> None:
    """For who knows of no plugins."""


class SchemaOutline:
    """The `Outline` of one place, made of the models; see `atlasd.contracts.config.Outline`."""

    def __init__(
        self,
        found: Shape | None,
        path: KeyPath,
        below: Any,
        further: Further = nothing_further,
    ) -> None:
        self._shape = found
        self._path = path
        self._below = below
        self._further = further

    @property
    def kinds(self) -> frozenset[str]:
        """See `Outline`. Where the schema takes anything, it is what lower layers have there."""
        if self._shape is not None and self._shape.annotation is not Any:
            return self._shape.kinds
        return frozenset() if self._below is None else frozenset({shape.kind_of(self._below)})

    @property
    def keys(self) -> tuple[str, ...]:
        """See `Outline`."""
        own = self._shape.keys if self._shape is not None else ()
        more = self._extra()
        return own if more is None else (*own, *more.model_fields)

    @property
    def open(self) -> bool:
        """See `Outline`."""
        if self._shape is None or self._shape.annotation is Any:
            return True
        if self._shape.model is None:
            return "table" in self._shape.kinds
        return self._shape.model.model_config.get("extra") == "allow" and self._extra() is None

    @property
    def names(self) -> tuple[str, ...]:
        """See `Outline`."""
        return tuple(self._below) if isinstance(self._below, dict) else ()

    @property
    def expected(self) -> str:
        """What is taken here, for people."""
        if self._shape is not None and self._shape.annotation is not Any:
            return self._shape.expected
        return shape.kind_in_words(self._below)

    def new_name(self, word: str, /) -> str:
        """See `Outline`: in small letters, but for what is itself the name of a variable."""
        return word if self._path[2:] and self._path[-1] in _VARIABLES else word.lower()

    def child(self, key: str, /) -> "SchemaOutline | None":
        """See `Outline`."""
        below = self._below.get(key) if isinstance(self._below, dict) else None
        path = (*self._path, key)
        found = self._shape.child(key) if self._shape is not None else None
        if found is None:
            more = self._extra()
            if more is not None and key in more.model_fields:
                found = shape.of_field(more.model_fields[key])
            elif not self.open:
                return None
        return SchemaOutline(found, path, below, self._further)

    def _extra(self) -> type[BaseModel] | None:
        return self._further(self._path, self._below if isinstance(self._below, dict) else {})


def outline(
    below: Mapping[str, Any],
    further: Further = nothing_further,
    model: type[BaseModel] = Settings,
) -> SchemaOutline:
    """The outline of a whole configuration, of which lower layers have `below`."""
    return SchemaOutline(Shape(annotation=model, spelling=None), (), below, further)
