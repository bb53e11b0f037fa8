import io
import json
import logging
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd import logs
from atlasd.logs import REDACTED, Formatter, Redactor


def record(message: str, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("atlasd.core", level, "x.py", 1, message, args, None)
    made.created = 1_800_000_000.5
    return made


def test_text_is_for_people() -> None:
    line = Formatter("text", role="core").format(record("%d services", 3))
    assert line == "2027-01-15T08:00:00.500Z info    core: 3 services"


def test_json_is_for_programs() -> None:
    formatter = Formatter("json", role="core")
    with logs.context(service="web"):
        body = json.loads(formatter.format(record("up")))
    assert body == {
        "time": "2027-01-15T08:00:00.500Z",
        "level": "info",
        "role": "core",
        "source": "atlasd.core",
        "message": "up",
        "service": "web",
    }


def test_the_journal_gets_a_priority_on_each_line() -> None:
    text = Formatter("journal", role="core").format(record("a\nb", level=logging.ERROR))
    assert text == "<3>core: a\n<3>b"


def test_context_ends_with_its_block_and_nests() -> None:
    formatter = Formatter("text", role="core")
    with logs.context(service="web"):
        with logs.context(instance=1):
            assert formatter.format(record("x")).endswith("x service=web instance=1")
        assert formatter.format(record("x")).endswith("x service=web")
    assert formatter.format(record("x")).endswith("core: x")


def test_a_traceback_is_kept_and_redacted() -> None:
    made = record("it failed")
    try:
        raise ValueError("password=hunter22")
    except ValueError:
        made.exc_info = sys.exc_info()
    text = Formatter("text", role="core").format(made)
    assert "Traceback" in text
    assert "hunter22" not in text


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown log style"):
        Formatter("xml", role="core")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("password=hunter22", f"password={REDACTED}"),
        ('{"db_password": "hunter22", "x": 1}', f'{{"db_password": {REDACTED}, "x": 1}}'),
        ("Authorization: Bearer abc.def", f"Authorization: {REDACTED}"),
        ("API_KEY='s p a c e' next", f"API_KEY={REDACTED} next"),
        ("postgres://shop:pw@db/shop", f"postgres://shop:{REDACTED}@db/shop"),
        ("the password is wrong", "the password is wrong"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, left: str) -> None:
    assert Redactor()(text) == left


@given(st.lists(st.text(min_size=6, max_size=20), max_size=5), st.text(), st.text())
def test_a_learnt_value_never_gets_through(values: list[str], before: str, after: str) -> None:
    redact = Redactor()
    redact.learn(values)
    for value in values:
        if value not in REDACTED:
            assert value not in redact(before + value + after).replace(REDACTED, "")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("DB_PASSWORD", True),
        ("API_TOKEN", True),
        ("APIKEY", True),
        ("AWS_CREDENTIALS", True),
        ("PATH", False),
        ("TOKENIZERS_PARALLELISM", False),
        ("SECRET_NAME", False),
    ],
)
def test_variables_that_hold_secrets_are_known_by_their_names(name: str, secret: bool) -> None:
    assert logs.is_secret_name(name) is secret


def test_short_values_are_not_learnt() -> None:
    redact = Redactor()
    redact.learn(["a", "yes"])
    assert redact("yes, a banana") == "yes, a banana"


@pytest.fixture
def root_logger() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("atlasd")
    handlers, levels = list(root.handlers), (root.level, own.level)
    raising = logging.raiseExceptions
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])
    logging.raiseExceptions = raising


def test_configuring_again_replaces_what_was_there(root_logger: None) -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure(role="core", level="info", style="text", stream=first)
    logs.configure(role="core", level="debug", style="json", stream=second)
    logging.getLogger("atlasd.x").debug("hello")
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["message"] == "hello"


def test_auto_is_the_journal_only_when_the_stream_is_the_journals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream, os.fdopen(read):
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert logs.style_for("auto", stream) == "journal"
        assert logs.style_for("json", stream) == "json"
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        assert logs.style_for("auto", stream) == "text"
    assert logs.style_for("auto", io.StringIO()) == "text"
