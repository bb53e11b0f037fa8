"""The page on the protocol, played over a real socket."""

import json
from pathlib import Path

from atlasd.jobs.framed import _OPERATIONS
from tests.integration.jobs.served import Served
from tests.integration.jobs.test_protocol import Line

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "jobs-protocol.md"
MOMENT = 1_000_000_000_000
"""A number from here on is a moment, and another each time."""


def like(said: object, heard: object) -> bool:
    """Whether an answer is as the page has it, but for moments."""
    if isinstance(said, dict) and isinstance(heard, dict):
        return said.keys() == heard.keys() and all(like(said[key], heard[key]) for key in said)
    if isinstance(said, list) and isinstance(heard, list):
        return len(said) == len(heard) and all(map(like, said, heard))
    if isinstance(said, int) and said >= MOMENT:
        return isinstance(heard, int) and heard >= MOMENT
    return said == heard


def test_the_page_says_what_is_so(engine: Served) -> None:
    lines = PAGE.read_text().splitlines()
    asked = [line[2:] for line in lines if line.startswith("→ ")]
    answered = [json.loads(line[2:]) for line in lines if line.startswith("← ")]
    assert len(asked) == len(answered) > 10
    line = Line(engine.path)
    for request, answer in zip(asked, answered, strict=True):
        line.say(request + "\n")
        heard = line.hear()
        if "session" in answer:
            heard["session"] = answer["session"]
        assert like(answer, heard), f"{request}\nsaid {answer}\nwas  {heard}"
    line.close()


def test_the_page_has_every_operation() -> None:
    titles = {line[3:] for line in PAGE.read_text().splitlines() if line.startswith("## ")}
    assert titles == {"Errors", *_OPERATIONS}
