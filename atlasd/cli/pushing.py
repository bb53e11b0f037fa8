"""`atlasctl job push`: one job from the command line, or many from a file of JSON lines."""

import json
import sys
from typing import Any

from atlasd.cli import jsonlines, style
from atlasd.cli.progress import progress
from atlasd.cli.session import Session, emit
from atlasd.errors import AtlasError

Made = dict[str, Any]


def as_object(text: str | None) -> dict[str, Any]:
    """Arguments that were given as JSON, `-` for standard input. Raises `AtlasError` `usage`."""
    if text == "-":
        text = sys.stdin.read()
    try:
        found = json.loads(text) if text and text.strip() else {}
    except (ValueError, RecursionError) as error:
        said = f"the arguments are no JSON: {error}"
        raise AtlasError("usage", said, hint="""write '{"name": "value"}'""") from None
    if not isinstance(found, dict):
        raise AtlasError("usage", "the arguments are no JSON object", hint="write { … } around")
    return found


def push_one(session: Session, job: dict[str, Any], key: str) -> None:
    """Enqueue one job, and say what became of it."""
    (made,) = session.client().call("job.enqueue", jobs=[job], key=key)["jobs"]
    if made["outcome"] == "rejected":
        raise AtlasError(
            "job.rejected", f"job {made['id']} ({made['state']}) has the unique key",
            hint=f"`atlasctl job show {made['id']}` shows it",
        )  # fmt: skip
    if session.as_json:
        emit(made)
        return
    what = "" if made["outcome"] == "created" else f" ({made['outcome']})"
    print(f"job {made['id']} is {made['state']}{what}")


def push_lines(session: Session, path: str, template: dict[str, Any] | None, key: str) -> None:
    """Enqueue a job for each line: its arguments where there is a template, else the whole job.

    A thousand lines are enqueued at a time, all or none of them. With an idempotency key the same
    file can be pushed again after an error, and nothing is enqueued twice.
    """
    name = "standard input" if path == "-" else path
    with jsonlines.opened(path) as file:
        lines = jsonlines.read(file, name)
    outcomes: dict[str, int] = {}
    done = 0
    client = session.client()
    with progress("enqueued", len(lines)) as shown:
        for number, piece in enumerate(jsonlines.pieces(lines)):
            jobs = [
                line.body if template is None else {**template, "args": line.body} for line in piece
            ]
            try:
                made: list[Made] = client.call(
                    "job.enqueue", jobs=jobs, key=f"{key}/{number}" if key else ""
                )["jobs"]
            except AtlasError as error:
                raise _placed(error, piece, name, done) from None
            for one in made:
                outcomes[one["outcome"]] = outcomes.get(one["outcome"], 0) + 1
            done += len(made)
            shown.at(done)
    if session.as_json:
        emit({"jobs": done, "outcomes": outcomes})
        return
    others = [f"{count} {word}" for word, count in sorted(outcomes.items()) if word != "created"]
    print(f"{style.count(outcomes.get('created', 0), 'job')} enqueued"
          + (f", {', '.join(others)}" if others else ""))  # fmt: skip


def _placed(error: AtlasError, piece: list[jsonlines.Line], name: str, done: int) -> AtlasError:
    """The daemon's error about a piece of the file, in terms of the file."""
    message = error.message
    if message.startswith("jobs["):
        index, _, rest = message.removeprefix("jobs[").partition("]")
        if index.isdecimal() and int(index) < len(piece):
            message = f"{name}, line {piece[int(index)].number}: {rest.lstrip('.')}"
    before = f"{style.count(done, 'job')} of the lines before were enqueued" if done else ""
    hint = "; ".join(part for part in (error.hint, before or "nothing was enqueued") if part)
    return AtlasError(error.code, message, hint=hint, details=error.details)
