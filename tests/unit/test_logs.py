import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd import logs, redaction
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
        ("secret://aws/prod/db is missing", "secret://aws/prod/db is missing"),
        ("url = db://u:${secret:prod/db}@h", "url = db://u:${secret:prod/db}@h"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, left: str) -> None:
    assert Redactor()(text) == left


names = st.text("abc/#", min_size=1, max_size=5)
values = st.text(min_size=6, max_size=20)
LABEL = re.compile(r"\[secret(:[abc/#]+)?\]|" + re.escape(REDACTED))


@given(st.lists(st.tuples(names, values), max_size=5), st.text(), st.text())
def test_a_learnt_value_never_gets_through(
    named: list[tuple[str, str]], before: str, after: str
) -> None:
    redact = Redactor()
    redact.learn(named)
    for _, value in named:
        if len(value.strip()) >= 6 and "\n" not in value:
            for part in LABEL.split(redact(before + value + after)):
                assert value not in (part or "")


def test_a_value_is_replaced_by_its_name_in_any_spelling_and_style() -> None:
    redact = Redactor()
    redact.learn([("prod/db#password", "hunter22/ä")])
    told = redact("raw hunter22/ä json hunter22\\/\\u00e4 url hunter22%2F%C3%A4")
    assert told == " ".join(f"{how} [secret:prod/db#password]" for how in ("raw", "json", "url"))
    assert redact("password=hunter22/ä") == "password=[secret:prod/db#password]"
    assert redact("db://u:hunter22/ä@h/d") == "db://u:[secret:prod/db#password]@h/d"
    made = record("it failed")
    try:
        raise ValueError({"value": "hunter22/ä"}) from KeyError(b"hunter22/\xc3\xa4")
    except ValueError:
        made.exc_info = sys.exc_info()
    for style in logs.STYLES:
        with logs.context(note="hunter22/ä"):
            text = Formatter(style, role="core", redact=redact).format(made)
        assert "hunter22" not in text
        assert text.count("[secret:prod/db#password]") >= 3


def test_the_last_values_of_a_name_are_known_and_older_ones_forgotten() -> None:
    redact = Redactor()
    for number in range(50):
        redact.learn([("db", f"password-{number:02}")])
        assert redact(f"password-{number:02}") == "[secret:db]"
    redact.learn([("other", "of no concern")])
    assert redact("password-49 password-46") == "[secret:db] [secret:db]"
    redact.forget("other")
    assert redact("password-49 password-46") == "[secret:db] [secret:db]"
    assert redact("password-45 of no concern") == "password-45 of no concern"


def test_what_is_known_has_a_limit() -> None:
    redact = Redactor()
    redact.learn((f"name{n}", f"value-of-{n:05}") for n in range(logs.KEPT_NAMES + 5))
    assert redact("value-of-00004") == "value-of-00004"
    assert redact("value-of-00005") == "[secret:name5]"


def test_learning_one_by_one_prepares_nothing_until_something_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    class Counted(redaction.Redactor):
        def __init__(self, known: Iterable[tuple[str, str | bytes]] = ()) -> None:
            super().__init__(known)
            made.append(self)

    monkeypatch.setattr(redaction, "Redactor", Counted)
    redact = Redactor()
    made.clear()
    for number in range(200):
        redact.learn([(f"name{number}", f"value-of-{number:05}")])
    assert made == []
    assert redact("value-of-00150") == "[secret:name150]"
    assert redact("value-of-00151") == "[secret:name151]"
    assert len(made) == 2


def test_several_threads_learn_and_log_at_once() -> None:
    redact = Redactor()
    slips: list[str] = []

    def work(who: int) -> None:
        for number in range(40):
            value = f"value {who} of {number}"
            redact.learn([(f"name{who}", value)])
            if value in redact(f"<{value}>"):
                slips.append(value)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slips == []


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
    redact.learn([("one", "a"), ("other", "yes")])
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
