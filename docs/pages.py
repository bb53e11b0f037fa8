"""The pages of the reference, each made from what the code says about itself."""

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from enum import StrEnum
from types import FunctionType, ModuleType
from typing import Any

import click
from pydantic import BaseModel, RootModel

from atlasd import errors as declared_errors
from atlasd import events as declared_events
from atlasd import hookspecs
from atlasd import states as declared_states
from atlasd.contracts.context import PluginContext
from atlasd.control import models, wire
from docs import schema
from docs.markdown import attributes, prose, table


def errors() -> str:
    """Error codes, and what they become for an HTTP client and a shell."""
    codes = declared_errors.CODES.items()
    return "\n".join(
        [
            "# Errors and exit codes\n",
            (
                "An error has a stable code, a sentence that says what is wrong, and a hint that "
                "says what to do. The control socket answers it as JSON with the status below; a "
                "command prints it on two lines and ends with the exit code.\n"
            ),
            "## Error codes\n",
            table(
                ("code", "status", "exit", "meaning"),
                [(f"`{name}`", code.status, code.exit, code.meaning) for name, code in codes],
            ),
            "## Exit codes\n",
            table(
                ("exit", "meaning"),
                [(code, text) for code, text in declared_errors.EXIT_CODES.items()],
            ),
        ]
    )


def states() -> str:
    """The words for what is wanted and what is, and the legal moves."""
    words: list[type[StrEnum]] = [
        declared_states.Wanted,
        declared_states.Lifecycle,
        declared_states.Health,
        declared_states.Traffic,
        declared_states.Reason,
    ]
    parts = [
        "# States and reasons\n",
        (
            "One word per state, the same in code, configuration, API, metrics and here. What they "
            "mean together is told in {doc}`../explanation/states`.\n"
        ),
    ]
    for enum in words:
        meanings = attributes(enum)
        parts += [f"## {enum.__name__}\n", prose(enum)]
        parts.append(
            table(("word", "meaning"), [(f"`{m.value}`", meanings.get(m.name, "")) for m in enum])
        )
    moves = [
        (f"`{old}`", ", ".join(f"`{new}`" for new in declared_states.Lifecycle if new in news))
        for old, news in declared_states.MOVES.items()
    ]
    parts += ["## Moves\n", "Every legal move of an instance.\n", table(("from", "to"), moves)]
    return "\n".join(parts)


def events() -> str:
    """Every kind of fact, with its fields."""
    parts = [
        "# Events\n",
        (
            "Facts, in the past tense: `atlasctl events -f` shows them, subscribers get them, the "
            "journal keeps them. As JSON each has `kind` and the fields below.\n"
        ),
    ]
    for kind, cls in declared_events.KINDS.items():
        meanings = attributes(cls)
        parts += [f"## {kind}\n", prose(cls)]
        parts.append(
            table(
                ("field", "type", "meaning"),
                [
                    (f"`{f.name}`", f"`{_annotation(f.type)}`", meanings.get(f.name, ""))
                    for f in dataclasses.fields(cls)
                ],
            )
        )
    return "\n".join(parts)


def operations() -> str:
    """What the control socket can be asked, and the shapes of requests and answers."""
    parts = [
        "# Operations\n",
        (
            "What core can be asked on `control.sock`: HTTP/1.1 and JSON, so `curl --unix-socket` "
            "works. The same table as an OpenAPI document: `GET /v1/openapi.json`.\n"
        ),
        "## Rights\n",
        table(
            ("right", "what it is for"),
            [(f"`{r.value}`", attributes(wire.Right).get(r.name, "")) for r in wire.Right],
        ),
        "## All operations\n",
    ]
    rows = [(f"`{o.method} {o.path}`", f"`{o.right}`", o.summary) for o in wire.OPERATIONS]
    parts.append(table(("request", "right", "what it does"), rows))
    shown: dict[str, dict[str, Any]] = {}
    for operation in wire.OPERATIONS:
        parts += [f"## {operation.name}\n", f"`{operation.method} {operation.path}`\n"]
        parts.append(operation.summary + "\n")
        if operation.request != "Nothing":
            parts += ["Request:\n", _fields_of(operation.request, shown)]
        if operation.answer == "str":
            parts.append(f"Answer: text, `{operation.media}`.\n")
        else:
            lines = ", one a line" if operation.stream else ""
            parts += [f"Answer{lines}:\n", _fields_of(operation.answer, shown)]
    parts += ["## Shapes\n", "What the fields above refer to.\n"]
    for name, definition in sorted(shown.items()):
        if "properties" in definition:
            parts += [f"### {name}\n", str(definition.get("description", "")) + "\n"]
            parts.append(schema.fields(definition, shown))
    return "\n".join(parts)


def _fields_of(model_name: str, shown: dict[str, dict[str, Any]]) -> str:
    model = getattr(models, model_name)
    if issubclass(model, RootModel):
        body = model.model_json_schema()
        shown.update(body.get("$defs", {}))
        return f"{schema.kind(body, body.get('$defs', {}))}: {prose(model)}"
    assert issubclass(model, BaseModel)
    body = model.model_json_schema(by_alias=True, mode="serialization")
    shown.update(body.get("$defs", {}))
    return schema.fields(body, body.get("$defs", {}))


def hooks() -> str:
    """Every hook that a plugin may implement, and what it returns."""
    api = hookspecs.HOOK_API
    parts = ["# Hooks\n", prose(hookspecs)]
    parts.append(f"This is version {api} of the hooks: a drop-in says `ATLASD_API = {api}`.\n")
    for name, function in _functions(hookspecs):
        parts += [f"## {name}\n", f"```python\n{_signature(function)}\n```\n", prose(function)]
        for descriptor in typing.get_args(function.__annotations__["return"]):
            if dataclasses.is_dataclass(descriptor):
                parts += _contract(sys.modules[descriptor.__module__])
    parts += ["## What `open` is given\n", _protocol(PluginContext)]
    return "\n".join(parts)


def _contract(module: ModuleType) -> Iterator[str]:
    """The descriptor of one contract, the values it has to do with, and what is expected."""
    for name, value in vars(module).items():
        if not isinstance(value, type) or value.__module__ != module.__name__:
            continue
        if dataclasses.is_dataclass(value):
            meanings = attributes(value)
            yield f"### {name}\n"
            yield prose(value)
            yield table(
                ("field", "type", "meaning"),
                [
                    (f"`{f.name}`", f"`{_annotation(f.type)}`", meanings.get(f.name, ""))
                    for f in dataclasses.fields(value)
                ],
            )
        elif getattr(value, "_is_protocol", False):
            yield f"### {name}\n"
            yield _protocol(value)


def _protocol(protocol: type) -> str:
    parts = [prose(protocol)]
    for name, value in vars(protocol).items():
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(value, property):
            parts.append(f"```python\n{name}: {_annotation(_returned(value))}\n```\n")
            parts.append(prose(value))
        elif isinstance(value, FunctionType):
            parts += [f"```python\n{_signature(value)}\n```\n", prose(value)]
    return "\n".join(parts)


def _returned(value: property) -> object:
    assert value.fget is not None
    return value.fget.__annotations__["return"]


def _functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    for name, value in vars(module).items():
        if (
            isinstance(value, FunctionType)
            and value.__module__ == module.__name__
            and not name.startswith("_")
        ):
            yield name, value


def _signature(function: FunctionType) -> str:
    """The head of a function, as it would be written."""
    source = textwrap.dedent(inspect.getsource(function))
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
    word = "async def" if isinstance(tree, ast.AsyncFunctionDef) else "def"
    returned = f" -> {ast.unparse(tree.returns)}" if tree.returns else ""
    return f"{word} {tree.name}({ast.unparse(tree.args)}){returned}"


def _annotation(annotation: object) -> str:
    if isinstance(annotation, type):
        return annotation.__name__
    # names are known without the modules that they stand in
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", str(annotation))


def _commands_of(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, each with the words that call it."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in command.list_commands(context):
            below = command.get_command(context, word)
            if below is not None and not below.hidden:
                yield from _commands_of(below, f"{name} {word}")
