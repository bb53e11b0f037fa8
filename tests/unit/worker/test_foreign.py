"""What exit codes, statuses and outputs of foreign handlers mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.errors import AtlasError
from atlasd.worker import command, push
from atlasd.worker.__main__ import arguments, handlers_of
from atlasd.worker.errors import Bury, Discard, Retry, TargetFailed
from atlasd.worker.foreign import LONGEST, result_of, retry_after

NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("code", "said", "kind", "after"),
    [
        (1, b"no such file", Retry, 0.0),
        (65, b"not an address", Bury, 0.0),
        (69, b"mail is down\nRetry-After: 30\n", TargetFailed, 30.0),
        (75, b"busy\nretry-after: 12.5", Retry, 12.5),
        (75, b"busy", Retry, 0.0),
        (1, b"Retry-After: 30", Retry, 0.0),
        (78, b"", Bury, 0.0),
        (100, b"gone", Discard, 0.0),
        (-9, b"", Retry, 0.0),
    ],
)
def test_an_exit_code_decides(code: int, said: bytes, kind: type, after: float) -> None:
    error = command.judged(code, said)
    assert type(error) is kind
    assert getattr(error, "after", 0.0) == after
    assert error.kind == ("signal KILL" if code == -9 else f"exit {code}")
    assert str(error) == (
        said.decode().strip() or f"the command ended with {error.kind} and said nothing"
    )


@pytest.mark.parametrize(
    ("status", "asked", "kind", "after"),
    [
        (429, "7", Retry, 7.0),
        (503, "9", TargetFailed, 9.0),
        (500, "", TargetFailed, 0.0),
        (408, "", Retry, 0.0),
        (410, "", Discard, 0.0),
        (404, "5", Bury, 0.0),
        (301, "", Bury, 0.0),
    ],
)
def test_a_status_decides(status: int, asked: str, kind: type, after: float) -> None:
    error = push.judged(status, asked, b"because", NOW)
    assert type(error) is kind
    assert getattr(error, "after", 0.0) == after
    assert (error.kind, str(error)) == (
        f"HTTP {status}", f"the server answered {status}: because",
    )  # fmt: skip


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after(" 30 ", NOW) == 30.0
    assert retry_after("Wed, 18 Nov 2026 11:07:10 GMT", NOW) == 1_795_000_030.0 - NOW
    assert retry_after("Wed, 18 Nov 2020 11:07:10 GMT", NOW) == 0.0


@given(st.text(), st.floats(0, 4e9))
def test_any_retry_after_is_read(text: str, now: float) -> None:
    assert 0.0 <= retry_after(text, now) < LONGEST


def test_a_result_is_read_as_was_asked() -> None:
    assert result_of(b'{"a": 1}\n', "json", "it") == {"a": 1}
    assert result_of(b" \n", "json", "it") is None
    assert result_of(b"plain", "text", "it") == "plain"
    assert result_of(b"plain", "none", "it") is None
    assert result_of(b'{"a"', "json", "it", whole=False) is None
    with pytest.raises(Bury, match="it succeeded, but what it gave is no JSON"):
        result_of(b"plain", "json", "it")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to run jobs"),
        (("shop", "--exec", "cat"), "modules and --exec are given"),
        (("--exec", "cat"), "--exec does not say of which jobs"),
        (("--http", "http://localhost/"), "--http does not say of which jobs"),
        (("--exec", "cat '", "--queue", "a"), "--exec: no closing quotation"),
        (("--exec", "no-such-program x", "--queue", "a"), "no program 'no-such-program'"),
        (("--http", "ftp://localhost/", "--queue", "a"), "begins neither with"),
        (("--http", "http://", "--queue", "a"), "begins neither with"),
        (("--http", "http://a:b@localhost/", "--queue", "a"), "has credentials in it"),
        (("--http", "http://localhost:99999/", "--queue", "a"), "it is no URL"),
    ],
)
def test_a_command_line_that_cannot_be_meant(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(AtlasError) as caught:
        handlers_of(arguments(words))
    assert said in caught.value.message
    assert "a:b" not in caught.value.message
