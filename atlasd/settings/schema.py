"""JSON Schema (draft 2020-12, unless it says another): what may stand where, and what does not."""

import hashlib
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from atlasd.contracts.applications import Complaint
from atlasd.contracts.config import KeyPath
from atlasd.errors import AtlasError, nearest
from atlasd.settings.tree import plain
from atlasd.settings.words import Speaker

if TYPE_CHECKING:
    from referencing import Resource
    from referencing._core import Resolver

DEEPEST = 16
"""Levels of tables that names of variables are made for; a schema may contain itself."""
MOST = 20_000
"""Settings that names are made for."""
MOST_REMEMBERED = 64
_IN_WORDS = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a table",
}


class Schema:
    """One schema, with whatever files it refers to; only files are read, never the network."""

    def __init__(self, document: Mapping[str, Any] | bool, uri: str) -> None:  # noqa: FBT001
        """Raises `AtlasError` `settings.invalid` for what is no schema."""
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry
        from referencing.jsonschema import DRAFT202012, specification_with

        said = document.get("$schema") if isinstance(document, dict) else None
        kind = validator_for(document, default=Draft202012Validator)
        if said is not None and kind.META_SCHEMA.get("$id", "").rstrip("#") != str(said).rstrip(
            "#"
        ):
            raise _not_a_schema("it says an unknown $schema", "/$schema")
        try:
            _check(kind, document)
        except SchemaError as error:
            place = "/" + "/".join(str(part) for part in error.absolute_path)
            raise _not_a_schema(error.message[:200], place) from None
        specification = specification_with(said, default=DRAFT202012) if said else DRAFT202012
        self.files: list[str] = []
        """The files that were read because the schema refers to them."""
        self._read: dict[str, Resource[Any]] = {}
        self._paths: list[KeyPath] | None = None
        self._uri = uri
        self._registry: Registry[Any] = Registry(
            retrieve=self._retrieve  # type: ignore[call-arg]
        ).with_resource(uri, specification.create_resource(document))
        self._validator = kind(
            {"$ref": uri}, registry=self._registry, format_checker=kind.FORMAT_CHECKER
        )

    @classmethod
    def load(cls, path: Path) -> "Schema":
        """The schema in a JSON file. Raises `AtlasError`: `config.missing`, `settings.invalid`."""
        try:
            document = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise AtlasError("config.missing", f"{path}: there is no such file") from None
        except OSError as error:
            raise AtlasError(
                "settings.invalid", f"{path}: cannot be read: {error.strerror}"
            ) from None
        except json.JSONDecodeError as error:
            place = f"{path}:{error.lineno}:{error.colno}"
            raise AtlasError(
                "settings.invalid",
                f"{place}: not JSON: {error.msg}",
                hint="a JSON Schema is written in JSON",
            ) from None
        except (UnicodeDecodeError, RecursionError, ValueError):
            raise AtlasError("settings.invalid", f"{path}: not JSON in UTF-8") from None
        if not isinstance(document, dict | bool):
            raise AtlasError("settings.invalid", f"{path}: a schema is a JSON object")
        try:
            return cls(document, path.absolute().as_uri())
        except AtlasError as error:
            raise AtlasError(error.code, f"{path}: {error.message}", hint=error.hint) from None

    def _retrieve(self, uri: str) -> "Resource[Any]":
        from referencing import Resource
        from referencing.exceptions import NoSuchResource
        from referencing.jsonschema import DRAFT202012

        if uri in self._read:
            return self._read[uri]
        parts = urllib.parse.urlsplit(uri)
        if parts.scheme != "file" or parts.netloc:
            raise NoSuchResource(uri)
        path = Path(urllib.parse.unquote(parts.path))
        try:
            contents = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            raise NoSuchResource(uri) from None
        self.files.append(str(path))
        found = Resource.from_contents(contents, default_specification=DRAFT202012)
        self._read[uri] = found
        return found

    # --- asked about

    def kinds(self, path: KeyPath) -> frozenset[str]:
        """The types that may stand at a path; empty where any may, or nobody knows."""
        found: set[str] = set()
        for schema, _ in self._at(path):
            kinds = schema.get("type")
            if isinstance(kinds, str):
                found.add(kinds)
            elif isinstance(kinds, list):
                found.update(kinds)
            for value in _listed(schema):
                found.add(_type_of(value))
        return frozenset(found)

    def describe(self, path: KeyPath) -> str:
        """What may stand at a path, for people; empty where anything may."""
        for schema, _ in self._at(path):
            if "enum" in schema or "const" in schema:
                return _one_of(_listed(schema))
        words = [_IN_WORDS[kind] for kind in _IN_WORDS if kind in self.kinds(path)]
        return " or ".join(words)

    def paths(self) -> list[KeyPath]:
        """The paths of all settings and tables that the schema names."""
        if self._paths is None:
            self._paths = self._all_paths()
        return self._paths

    def _all_paths(self) -> list[KeyPath]:
        found: dict[KeyPath, None] = {}
        level: list[KeyPath] = [()]
        for _ in range(DEEPEST):
            following: dict[KeyPath, None] = {}
            for above in level:
                for schema, _resolver in self._at(above):
                    for key in schema.get("properties", {}):
                        if len(found) + len(following) < MOST:
                            following.setdefault((*above, key))
            found.update(following)
            level = list(following)
        return list(found)

    def _at(self, path: KeyPath) -> list[tuple[dict[str, Any], "Resolver[Any]"]]:
        """The schemas that speak of a path, each with the way to what it refers to."""
        resolver = self._registry.resolver()
        root = resolver.lookup(self._uri)
        here = list(self._parts(root.contents, root.resolver))
        for key in path:
            below: list[tuple[dict[str, Any], Resolver[Any]]] = []
            for schema, around in here:
                for inner in _children(schema, key):
                    below += self._parts(inner, around)
            here = below
        return here

    def _parts(
        self, schema: object, resolver: "Resolver[Any]", deep: int = 0
    ) -> Iterator[tuple[dict[str, Any], "Resolver[Any]"]]:
        """A schema, and those that it is made of by reference or combination."""
        from referencing.exceptions import Unresolvable

        if not isinstance(schema, dict) or deep > DEEPEST:
            return
        yield schema, resolver
        for word in ("$ref", "$dynamicRef"):
            if isinstance(schema.get(word), str):
                try:
                    found = resolver.lookup(schema[word])
                except Unresolvable:
                    continue
                yield from self._parts(found.contents, found.resolver, deep + 1)
        for word in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(word, ()):
                yield from self._parts(part, resolver, deep + 1)
        for word in ("if", "then", "else"):
            yield from self._parts(schema.get(word), resolver, deep + 1)

    # --- held against

    def complaints(self, data: Mapping[str, Any], speaker: Speaker) -> list[Complaint]:
        """Everything in which the settings do not fit, each with its place.

        Raises `AtlasError` `settings.invalid` for a reference of the schema that leads nowhere.
        """
        from referencing.exceptions import Unresolvable

        found: dict[tuple[object, ...], Complaint] = {}
        try:
            for error in self._validator.iter_errors(plain(data)):
                for complaint in self._told(error, speaker):
                    found.setdefault((complaint.key, complaint.expected, complaint.got), complaint)
        except Unresolvable as error:
            raise _not_a_schema(
                f"it refers to {error.ref}, which is not there",
                "",
                hint="references lead into the schema itself or to files beside it",
            ) from None
        except RecursionError:
            raise _not_a_schema("it refers to itself without end", "") from None
        return list(found.values())

    def _told(self, error: Any, speaker: Speaker) -> Iterator[Complaint]:
        path: KeyPath = tuple(error.absolute_path)
        word, says, value = str(error.validator), error.validator_value, error.instance
        if word == "required":
            for name in says:
                if name not in value:
                    expected = self.describe((*path, name)) or "a value"
                    yield speaker.about(
                        (*path, name), expected=expected, got="nothing", at_key=True
                    )
        elif word in ("additionalProperties", "unevaluatedProperties"):
            yield from self._unknown(error, path, speaker)
        elif word in ("anyOf", "oneOf") and error.context:
            yield from self._alternatives(error, path, speaker)
        else:
            yield speaker.about(path, value=value, expected=_expected(word, says, error.schema))

    def _unknown(self, error: Any, path: KeyPath, speaker: Speaker) -> Iterator[Complaint]:
        if error.validator == "additionalProperties":
            extra = [key for key in error.instance if not _named(key, error.schema)]
        else:
            known = {p[-1] for p in self.paths() if p[:-1] == path}
            extra = [key for key in error.instance if key not in known] or list(error.instance)
        names = {str(key) for schema, _ in self._at(path) for key in schema.get("properties", {})}
        free = tuple(names - error.instance.keys()) or tuple(names)
        for key in extra:
            yield speaker.about(
                (*path, key), got="unknown key", hint=nearest(str(key), free), at_key=True
            )

    def _alternatives(self, error: Any, path: KeyPath, speaker: Speaker) -> Iterator[Complaint]:
        """What is wrong with a value that fits none of several forms (or more than one)."""
        branches: dict[int, list[Any]] = {}
        for inner in error.context or ():
            branches.setdefault(int(inner.schema_path[0]), []).append(inner)
        meant = [
            found
            for found in branches.values()
            if not any(e.validator == "type" and not e.path for e in found)
        ]
        if len(meant) == 1:
            for inner in meant[0]:
                yield from self._told(inner, speaker)
            return
        expected = [
            _IN_WORDS.get(e.validator_value, "")
            if isinstance(e.validator_value, str)
            else " or ".join(_IN_WORDS[kind] for kind in e.validator_value)
            for found in branches.values()
            for e in found
            if e.validator == "type" and not e.path
        ]
        words = " or ".join(dict.fromkeys(expected)) if not meant else ""
        titles = [str(b["title"]) for b in error.validator_value if _titled(b)]
        forms = f": {', '.join(titles)}" if titles else ""
        count = len(error.validator_value)
        yield speaker.about(
            path,
            value=error.instance,
            expected=words or f"one of the {count} forms that the schema allows{forms}",
        )


_checked: dict[bytes, None] = {}
"""Digests of documents that were found to be schemas: looking at a large one takes seconds, and
at every reload it is most often the same."""


def _check(kind: Any, document: object) -> None:
    """Raise `SchemaError` for what is no schema of this kind."""
    text = json.dumps([kind.META_SCHEMA.get("$id"), document], sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    if digest not in _checked:
        kind.check_schema(cast("dict[Any, Any]", document))  # a boolean is a schema too
        if len(_checked) >= MOST_REMEMBERED:
            _checked.pop(next(iter(_checked)))
        _checked[digest] = None


def _named(key: str, schema: Any) -> bool:
    """Whether a schema itself names a key, or a pattern of it does."""
    patterns = schema.get("patternProperties", {})
    return key in schema.get("properties", {}) or any(re.search(p, key) for p in patterns)


def _titled(schema: object) -> bool:
    return isinstance(schema, dict) and "title" in schema


def _children(schema: Mapping[str, Any], key: str | int) -> Iterator[object]:
    """What a schema says of what lies below it at one key or index."""
    if isinstance(key, int):
        prefix = schema.get("prefixItems", [])
        items = schema.get("items")
        if not prefix and isinstance(items, list):  # as it was said up to draft 2019-09
            prefix, items = items, schema.get("additionalItems")
        yield prefix[key] if key < len(prefix) else items
        return
    properties = schema.get("properties", {})
    if key in properties:
        yield properties[key]
    matching = [s for p, s in schema.get("patternProperties", {}).items() if re.search(p, key)]
    yield from matching
    if key not in properties and not matching:
        yield schema.get("additionalProperties")


def _listed(schema: Mapping[str, Any]) -> list[Any]:
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum", [])
    return list(listed) if isinstance(listed, list) else []


def _type_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def _one_of(values: Sequence[object]) -> str:
    words = [json.dumps(value, ensure_ascii=False) for value in values]
    if len(words) <= 1:
        return "".join(words)
    shown = words if len(words) <= 12 else [*words[:11], "…"]
    return f"{', '.join(shown[:-1])} or {shown[-1]}"


def _expected(word: str, says: Any, schema: object) -> str:
    """What one keyword of a schema asks for, in words."""
    if word == "type":
        kinds = [says] if isinstance(says, str) else says
        return " or ".join(_IN_WORDS.get(kind, str(kind)) for kind in kinds)
    if word in ("enum", "const"):
        return _one_of([says] if word == "const" else says)
    simple = {
        "minimum": "at least {}",
        "maximum": "at most {}",
        "exclusiveMinimum": "more than {}",
        "exclusiveMaximum": "less than {}",
        "multipleOf": "a multiple of {}",
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "pattern": "text that fits {}",
        "format": "text of the format {}",
        "minItems": "at least {} items",
        "maxItems": "at most {} items",
        "minProperties": "at least {} keys",
        "maxProperties": "at most {} keys",
    }
    if word in simple:
        return simple[word].format(says)
    if word == "uniqueItems":
        return "each item once"
    if word == "contains":
        return "a list with an item that the schema asks for"
    if word == "dependentRequired":
        return "the keys that go together: " + "; ".join(
            f"{key} with {', '.join(others)}" for key, others in says.items()
        )
    title = schema.get("description") or schema.get("title") if isinstance(schema, dict) else ""
    about = f" ({title})" if title else ""
    return f"what the schema says with {word!r}{about}"


def _not_a_schema(what: str, place: str, hint: str = "") -> AtlasError:
    at = f" at {place}" if place and place != "/" else ""
    return AtlasError(
        "settings.invalid",
        f"not a JSON Schema that can be used{at}: {what}",
        hint=hint or "see https://json-schema.org; draft 2020-12 is meant unless $schema says so",
    )
