"""Runs in the application's own Python: imports a pydantic model and holds settings against it.

Only the standard library and that interpreter's pydantic are used, as nothing of atlasd need be
installed there. Two questions come in as lines of JSON, two answers go out the same way:

    {"module": "shop.settings", "name": "Settings"}   {"schema": …}
    {"data": {…}}                                     {"errors": [...], "defaults": [[path, value]]}

or `{"failed": "why"}` in the place of either.
"""

import importlib
import json
import os
import sys
from typing import Any


def main() -> None:
    """Answer the two questions."""
    # What the application prints while it is imported must not get among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        model = _model(**json.loads(sys.stdin.readline()))
        say({"schema": _schema(model)})
        line = sys.stdin.readline()
        if line:
            say(_judge(model, json.dumps(json.loads(line)["data"])))
    except Failed as error:
        say({"failed": str(error)})


class Failed(Exception):  # noqa: N818  it says what happened, and crosses no module
    """Why the model cannot be asked."""


def _model(module: str, name: str) -> Any:
    try:
        found = getattr(importlib.import_module(module), name)
    except AttributeError:
        raise Failed(f"there is no {name} in {module}") from None
    except BaseException as error:  # noqa: BLE001  the application's code may also exit
        raise Failed(f"{module} cannot be imported: {_said(error)}") from None
    try:
        from pydantic import BaseModel
    except ImportError:
        raise Failed("pydantic 2 is not installed for this Python") from None
    if not hasattr(BaseModel, "model_validate_json"):
        raise Failed("the pydantic of this Python is older than 2")
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise Failed(f"{module}:{name} is no pydantic model")
    return found


def _said(error: BaseException) -> str:
    """An error with the place where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<"):
        place = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})"
    return f"{type(error).__name__}: {error}{place}"


def _schema(model: Any) -> Any:
    try:
        return model.model_json_schema()
    except Exception:  # noqa: BLE001  a type without JSON Schema: nothing is known beforehand
        return True


def _judge(model: Any, text: str) -> dict[str, Any]:
    from pydantic import ValidationError

    try:
        settings = model.model_validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return {"errors": found, "defaults": []}
    except Exception as error:  # noqa: BLE001  a validator of the application's own
        raise Failed(f"the model failed: {_said(error)}") from None
    return {"errors": [], "defaults": list(_defaults(settings, json.loads(text), []))}


def _defaults(settings: Any, given: Any, path: list[Any]) -> Any:
    """The path and value of everything that was not given and that the model has filled in."""
    from pydantic import BaseModel

    if isinstance(settings, list | tuple) and isinstance(given, list):
        for index, (item, one) in enumerate(zip(settings, given, strict=False)):
            yield from _defaults(item, one, [*path, index])
    elif isinstance(settings, dict) and isinstance(given, dict):
        for key, item in settings.items():
            yield from _defaults(item, given.get(key), [*path, key])
    elif isinstance(settings, BaseModel) and isinstance(given, dict):
        for name, field in type(settings).model_fields.items():
            value = getattr(settings, name)
            alias = field.validation_alias if isinstance(field.validation_alias, str) else None
            names = [alias, field.alias, name]
            if name in settings.model_fields_set:
                key = next((n for n in names if n in given), None)
                if key is not None:
                    yield from _defaults(value, given[key], [*path, key])
            elif not _secret(value):
                dumped = settings.model_dump(mode="json", include={name})
                yield [[*path, next(n for n in names if n)], next(iter(dumped.values()), None)]


def _secret(value: Any) -> bool:
    """Whether a default holds something that pydantic would write as asterisks."""
    from pydantic import BaseModel

    if hasattr(value, "get_secret_value"):
        return True
    if isinstance(value, BaseModel):
        return any(_secret(getattr(value, name)) for name in type(value).model_fields)
    if isinstance(value, dict):
        return any(_secret(item) for item in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return any(_secret(item) for item in value)
    return False


if __name__ == "__main__":
    main()
