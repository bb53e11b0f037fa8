"""Layers of settings laid over each other, by rules that name every surprise.

Tables are merged key by key; everything else is replaced. A key that ends in `+` appends to the
list below it, one that ends in `-` removes items from it, `{ unset = true }` drops what lower
layers say. Lists of tables that each have an `id` are merged table by table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from atlasd.config.merged import Complaint, Conflict, Merged, Misuse, Operator
from atlasd.config.places import DEFAULTS, Origin, Places
from atlasd.contracts.config import UNSET, KeyPath, Layer, Position

__all__ = ["Conflict", "Kinds", "Merged", "Merging", "Misuse", "Rules", "merge"]

Kinds = Callable[[KeyPath], frozenset[str]]
"""The kinds of value that may stand at a path; empty where nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the schema says to a merge; without one, nothing."""

    kind_of: Callable[[Any], str]
    """The kind of a value: `table`, `list`, `string` and so on."""
    kinds: Kinds = lambda _path: frozenset()
    as_list: Callable[[KeyPath, Any], list[Any] | None] = lambda _path, _value: None
    """The list that a short form stands for (`requires = "db"`); None where it stands for none."""
    default: Callable[[KeyPath], Any] = lambda _path: None
    """What holds at a path where no layer says anything: what an operator is applied to then."""
    operators: bool = True
    """Whether `key+`, `key-` and unset mean anything; files of others may have such keys."""
    id_key: str = "id"
    """The key that makes a list of tables be merged table by table; empty: none does."""
    stands_for_any: Callable[[Any], bool] = lambda _value: False
    """Whether a value stands for another one of unknown kind, as a reference does."""


def merge(layers: Sequence[Layer], rules: Rules) -> Merged:
    """All layers in one, the first one lowest. No layer is changed.

    A value of another kind than the one below it is a conflict, unless `rules.kinds` allows both
    there (a command may be a string or a list).
    """
    merging = Merging(rules)
    for layer in layers:
        merging.add(layer)
    return merging.result()


class Merging:
    """A merge under way: layers are added, the lowest first."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.data: dict[str, Any] = {}
        """What the layers up to now say."""
        self._top = Layer(origin="", data={})
        self._origin = Origin(self._top, ())
        self._shadowed: dict[KeyPath, list[tuple[Layer, KeyPath, Any]]] = {}
        self._conflicts: list[Conflict] = []
        self._misuses: list[Misuse] = []
        self._unset: dict[KeyPath, Position] = {}

    def add(self, layer: Layer) -> None:
        """Lay one more layer over the others."""
        self._top = layer
        self._table(layer, layer.data, (), self.data, self._origin, ())

    def result(self) -> Merged:
        """What the layers say together."""
        return Merged(
            layer=Layer(
                origin=self._top.origin,
                data=self.data,
                values=Places(self._origin, self.data, keys=False),
                keys=Places(self._origin, self.data, keys=True),
            ),
            conflicts=tuple(self._conflicts),
            misuses=tuple(self._misuses),
            unset={p: where for p, where in self._unset.items() if not _is_there(self.data, p)},
            _origin=self._origin,
            _shadowed=self._shadowed,
        )

    # `source` is a path in the layer, `path` the one in the result: they differ below operators,
    # and in lists that were merged.

    def _table(
        self,
        layer: Layer,
        above: dict[str, Any],
        source: KeyPath,
        below: dict[str, Any],
        origin: Origin,
        path: KeyPath,
    ) -> None:
        """Lay the table `above` over the table `below`, whose origin is `origin`."""
        operators = []
        meaning = self._rules.operators
        for key, value in above.items():
            # Asked of every key of every layer, so in the order in which most are let through.
            if meaning and key[-1:] in _SIGNS and len(key) > 1:
                operators.append(key)
            elif meaning and type(value) is dict and value == UNSET:
                self._drop(layer, (*source, key), below, origin, (*path, key))
            elif key in below and type(value) is type(below[key]) and type(value) in _SCALARS:
                # As `_over` does: nearly all values are of this kind.
                self._shadow(origin, key, below[key], (*path, key))
                origin.below[key] = Origin(layer, (*source, key))
                below[key] = value
            elif key in below:
                self._over(layer, value, (*source, key), below, origin, (*path, key))
            else:
                self._new(layer, value, (*source, key), below, origin, (*path, key))
        # Removing first: a layer that replaces an item of a list says it with both.
        for key in sorted(operators, key=lambda key: key[-1] == "+"):
            self._operate(layer, above[key], (*source, key), below, origin, (*path, key[:-1]))

    def _new(
        self,
        layer: Layer,
        value: Any,
        source: KeyPath,
        below: dict[str, Any],
        origin: Origin,
        path: KeyPath,
    ) -> None:
        """Take over a key that no lower layer has."""
        key = path[-1]
        assert isinstance(key, str)
        mine = Origin(layer, source)
        origin.below[key] = mine
        below[key] = self._taken(layer, value, source, mine, path)

    def _taken(
        self, layer: Layer, value: Any, source: KeyPath, origin: Origin, path: KeyPath
    ) -> Any:
        """A copy of a value, the operators in its tables carried out."""
        if isinstance(value, dict):
            if not self._rules.operators or _is_plain(value):
                return _copy(value)
            taken: dict[str, Any] = {}
            self._table(layer, value, source, taken, origin, path)
            return taken
        return _copy(value)

    def _over(
        self,
        layer: Layer,
        value: Any,
        source: KeyPath,
        below: dict[str, Any],
        origin: Origin,
        path: KeyPath,
    ) -> None:
        """Lay a value over the one that a lower layer has at the same key."""
        key = path[-1]
        assert isinstance(key, str)
        old = below[key]
        if isinstance(value, dict) and isinstance(old, dict):
            self._table(layer, value, source, old, _part(origin, key), path)
        elif not self._compatible(old, value, path):
            self._conflict(layer, value, source, old, origin, path)
        elif self._by_id(old, value, layer, source, path):
            self._list_by_id(layer, value, source, old, _part(origin, key), path)
        else:
            self._shadow(origin, key, old, path)
            origin.below[key] = Origin(layer, source)
            below[key] = self._taken(layer, value, source, origin.below[key], path)

    def _compatible(self, old: Any, new: Any, path: KeyPath) -> bool:
        if type(old) is type(new):
            return True
        if old is None or (new is None and not isinstance(old, dict)):
            # A null says that there is no value: over a table, it would hide a whole section.
            return True
        kinds = {self._rules.kind_of(old), self._rules.kind_of(new)}
        if len(kinds) == 1 or kinds <= self._rules.kinds(path):
            return True
        stands = self._rules.stands_for_any(old) or self._rules.stands_for_any(new)
        return stands and "table" not in kinds

    def _conflict(
        self, layer: Layer, value: Any, source: KeyPath, old: Any, origin: Origin, path: KeyPath
    ) -> None:
        from_layer, lower = origin.at(path[-1:])
        self._conflicts.append(
            Conflict(
                path=path,
                lower=from_layer.layer.where(lower),
                higher=layer.where(source),
                lower_value=old,
                higher_value=value,
            )
        )

    def _shadow(self, origin: Origin, key: str, old: Any, path: KeyPath) -> None:
        """Note a value that is about to go, and those of the tables in it one by one."""
        if isinstance(old, dict) and old:
            within = _part(origin, key)
            for name, value in old.items():
                self._shadow(within, name, value, (*path, name))
            return
        piece = origin.below.get(key)
        if piece is None:
            gone = (origin.layer, (*origin.path, key), old)
        else:
            gone = (piece.layer, piece.path, old)
        self._shadowed.setdefault(path, []).append(gone)

    def _misuse(
        self,
        complaint: Complaint,
        path: KeyPath,
        where: Position,
        operator: Operator = "",
        value: Any = None,
    ) -> None:
        self._misuses.append(
            Misuse(path=path, complaint=complaint, where=where, operator=operator, value=value)
        )

    # --- unset

    def _drop(
        self, layer: Layer, source: KeyPath, below: dict[str, Any], origin: Origin, path: KeyPath
    ) -> None:
        key = path[-1]
        assert isinstance(key, str)
        if key in below:
            self._shadow(origin, key, below[key], path)
            # Nothing of it is left: a key that comes back starts anew.
            origin.below.pop(key, None)
            del below[key]
        elif path not in self._unset:
            self._misuse("nothing below", path, layer.where(source), "unset")
        self._unset[path] = layer.where(source)

    # --- lists

    def _operate(
        self,
        layer: Layer,
        value: Any,
        source: KeyPath,
        below: dict[str, Any],
        origin: Origin,
        path: KeyPath,
    ) -> None:
        """Append the value to the list below, or remove its items from there."""
        key = path[-1]
        assert isinstance(key, str)
        where = layer.where(source)
        operator: Operator = "+" if str(source[-1]).endswith("+") else "-"
        given = self._as_list(path, value)
        if given is None:
            self._misuse("no list", path, where, operator, value)
            return
        items = self._items_below(below, origin, path)
        if items is None:
            self._misuse("no list below", path, where, operator, below[key])
            return
        if key not in below and not items and operator == "-":
            self._misuse("nothing below", path, where, operator)
            return
        if operator == "+":
            items = items + [
                (item, Origin(layer, (*source, index) if isinstance(value, list) else source))
                for index, item in enumerate(given)
            ]
        else:
            items = self._without(items, given, layer, source, path)
        if key in below:
            self._shadow(origin, key, below[key], path)
        mine = Origin(layer, source)
        mine.below = dict(enumerate(piece for _, piece in items))
        origin.below[key] = mine
        below[key] = [_copy(item) for item, _ in items]

    def _as_list(self, path: KeyPath, value: Any) -> list[Any] | None:
        return value if isinstance(value, list) else self._rules.as_list(path, value)

    def _items_below(
        self, below: dict[str, Any], origin: Origin, path: KeyPath
    ) -> list[tuple[Any, Origin]] | None:
        """The items of the list that is there, or that holds by default; each with its origin."""
        key = path[-1]
        assert isinstance(key, str)
        if key not in below:
            preset = self._rules.default(path)
            items = self._as_list(path, preset) if preset is not None else []
            defaults = Layer(origin=DEFAULTS, data={}, name="built-in defaults")
            return [(item, Origin(defaults, path)) for item in items or []]
        found = self._as_list(path, below[key])
        if found is None:
            return None
        list_origin = _part(origin, key)
        if not isinstance(below[key], list):
            return [(item, list_origin) for item in found]
        return [(item, _part(list_origin, index)) for index, item in enumerate(found)]

    def _without(
        self,
        items: list[tuple[Any, Origin]],
        given: list[Any],
        layer: Layer,
        source: KeyPath,
        path: KeyPath,
    ) -> list[tuple[Any, Origin]]:
        """The items but those that are equal to one of `given`, or are tables with that id."""
        for index, unwanted in enumerate(given):
            left = [pair for pair in items if not self._is(pair[0], unwanted)]
            if len(left) == len(items):
                where = layer.where((*source, index))
                self._misuse("no such item", path, where, "-", unwanted)
            items = left
        return items

    def _is(self, item: Any, unwanted: Any) -> bool:
        if isinstance(item, dict) and not isinstance(unwanted, dict) and self._rules.id_key in item:
            item = item[self._rules.id_key]
        return type(item) is type(unwanted) and bool(item == unwanted)

    def _by_id(self, old: Any, new: Any, layer: Layer, source: KeyPath, path: KeyPath) -> bool:
        """Whether two lists are merged table by table: each table in both says who it is."""
        key = self._rules.id_key
        if not key or not isinstance(old, list) or not isinstance(new, list):
            return False
        lists = [[_id(item, key) for item in items] for items in (old, new)]
        if not all(lists) or not all(isinstance(item, dict) for item in (*old, *new)):
            return False
        if all(None not in ids and len(set(ids)) == len(ids) for ids in lists):
            return True
        if all(any(one is not None for one in ids) for ids in lists):
            # One that nobody can tell from the others would be lost, or be there twice.
            self._misuse("ids", path, layer.where(source))
        return False

    def _list_by_id(
        self,
        layer: Layer,
        value: list[dict[str, Any]],
        source: KeyPath,
        below: list[dict[str, Any]],
        origin: Origin,
        path: KeyPath,
    ) -> None:
        key = self._rules.id_key
        places = {_id(item, key): index for index, item in enumerate(below)}
        gone = []
        for number, item in enumerate(value):
            index = places.get(_id(item, key))
            removes = self._rules.operators and item == {key: item[key], **UNSET}
            if index is not None and removes:
                gone.append(index)
            elif index is not None:
                piece = _part(origin, index)
                self._table(layer, item, (*source, number), below[index], piece, (*path, index))
            elif removes:
                where = layer.where((*source, number))
                self._misuse("no such item", path, where, "unset", item[key])
            else:
                piece = Origin(layer, (*source, number))
                origin.below[len(below)] = piece
                there = (*path, len(below))
                below.append(self._taken(layer, item, (*source, number), piece, there))
        if gone:
            stay = [index for index in range(len(below)) if index not in gone]
            for index in gone:
                self._shadowed.setdefault(path, []).append((*_source(origin, index), below[index]))
            pieces = [_part(origin, index) for index in stay]
            below[:] = [below[index] for index in stay]
            origin.below = dict(enumerate(pieces))


_SIGNS = frozenset("+-")
_SCALARS = frozenset((str, int, float, bool))


def _id(item: Any, key: str) -> tuple[type, Any] | None:
    """What tells a table from others, if it has a plain one; 1 and true are two."""
    found = item.get(key) if isinstance(item, dict) else None
    return (type(found), found) if isinstance(found, str | int | float) else None


def _part(origin: Origin, key: str | int) -> Origin:
    """The origin of a part; made where there is none of its own yet, so that it can have parts."""
    found = origin.below.get(key)
    if found is None:
        found = origin.below[key] = Origin(origin.layer, (*origin.path, key))
    return found


def _source(origin: Origin, key: str | int) -> tuple[Layer, KeyPath]:
    piece, path = origin.at((key,))
    return piece.layer, path


def _is_plain(table: dict[str, Any]) -> bool:
    """Whether no key of a table, however deep, is an operator, and none is unset."""
    for key, value in table.items():
        if (key[-1:] in _SIGNS and len(key) > 1) or (
            isinstance(value, dict) and (value == UNSET or not _is_plain(value))
        ):
            return False
    return True


def _is_there(value: Any, path: KeyPath) -> bool:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item if type(item) in _SCALARS else _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
