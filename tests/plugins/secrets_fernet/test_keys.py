"""Keys and the text of the ring file: what is kept, what is refused, and what is never shown."""

import base64
import os
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from atlasd.errors import AtlasError
from atlasd_plugins.secrets_fernet.keys import (
    Key,
    UnreadableTokenError,
    fingerprint,
    joined,
    parse,
    parse_words,
    with_key,
    without_keys,
)

raws = st.binary(min_size=32, max_size=32)
comments = st.sampled_from(["# old\n", "#\n", "# größer = # \n", "  # indented\n"])


@given(raws, st.binary(), st.integers(0, 2**40))
def test_what_a_key_encrypts_it_decrypts(raw: bytes, data: bytes, at: int) -> None:
    assert Key(raw).decrypt(Key(raw).encrypt(data, at)) == data


def test_another_key_does_not() -> None:
    with pytest.raises(UnreadableTokenError):
        Key(b"a" * 32).decrypt(Key(b"b" * 32).encrypt(b"data", 0))


def test_an_id_is_stable_short_and_a_hash_of_its_own_kind() -> None:
    # A changed id would orphan every record and every sealed value.
    assert fingerprint(bytes(32)) == "b95bcc47cd46d564"
    assert len({fingerprint(os.urandom(32)) for _ in range(100)}) == 100


def test_a_key_does_not_print() -> None:
    key = Key(b"k" * 32)
    assert key.text() not in f"{key!r} {key}"
    assert base64.b64encode(b"k" * 32).decode() not in repr(key)


@given(
    st.lists(st.tuples(st.lists(comments, max_size=3), raws), max_size=5, unique_by=lambda b: b[1])
)
def test_a_ring_file_is_kept_but_for_what_is_changed(
    blocks: list[tuple[list[str], bytes]],
) -> None:
    text = "# head\n\n" + "".join("".join(lines) + Key(raw).text() + "\n" for lines, raw in blocks)
    keys = [Key(raw) for _, raw in blocks]
    assert [key.id for key in parse(text, "ring")] == [key.id for key in keys]
    new = Key(os.urandom(32))
    longer = with_key(text, new, "2026-11-25T00:00:00Z", "ring")
    assert [key.id for key in parse(longer, "ring")] == [new.id, *(key.id for key in keys)]
    assert f"# {new.id} made 2026-11-25T00:00:00Z\n{new.text()}\n" in longer
    assert without_keys(longer, {new.id}, "ring") == text
    for (lines, _), key in zip(blocks, keys, strict=True):
        shorter = without_keys(text, {key.id}, "ring")
        assert key.text() not in shorter
        assert len(parse(shorter, "ring")) == len(keys) - 1
        assert all(line in text for line in lines)


def test_a_first_file_says_what_it_is() -> None:
    key = Key(b"k" * 32)
    text = with_key("", key, "now", "ring")
    assert text.startswith("# The keys of atlasd's secrets")
    assert [found.id for found in parse(text, "ring")] == [key.id]


@given(st.from_regex(r"[!-~ ]{4,50}", fullmatch=True), st.integers(0, 3))
def test_a_line_that_is_no_key_is_named_and_not_shown(junk: str, before: int) -> None:
    word = junk.partition("#")[0].strip()
    assume(len(word) > 3 and not re.fullmatch(r"[\w-]{43}=", word))
    text = f"{Key(b'k' * 32).text()}\n" * before + f"{junk}\n"
    with pytest.raises(AtlasError) as caught:
        parse(text, "ring")
    assert caught.value.code == "secret.key"
    assert caught.value.message.startswith(f"ring:{before + 1}: ")
    assert word not in caught.value.message.removeprefix(f"ring:{before + 1}: expected a key")
    assert caught.value.hint


def test_a_broken_key_is_found_in_its_line() -> None:
    text = f"# one\n{Key(b'k' * 32).text()}\n\n{Key(b'l' * 32).text()[:-3]}\n"
    with pytest.raises(AtlasError) as caught:
        parse(text, "/etc/atlasd/secrets.key")
    assert caught.value.message.startswith("/etc/atlasd/secrets.key:4: ")
    assert "bGxs" not in caught.value.message + caught.value.hint


def test_a_variable_has_keys_with_anything_between_them() -> None:
    one, two = Key(b"k" * 32), Key(b"l" * 32)
    found = parse_words(f" {one.text()},\n{two.text()} ", "environment X")
    assert [(key.id, key.source) for key in found] == [
        (one.id, "environment X"),
        (two.id, "environment X"),
    ]
    assert parse_words("  \n", "environment X") == []


def test_a_key_stands_once_in_a_ring_where_it_came_first() -> None:
    one, again, two = Key(b"k" * 32, source="a"), Key(b"k" * 32, source="b"), Key(b"l" * 32)
    ring = joined([two, one, again])
    assert ring.ids == (two.id, one.id)
    assert ring.primary is two
    assert ring.find(one.id) is one
    assert ring.find("0" * 16) is None
