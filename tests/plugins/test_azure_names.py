"""Names in Key Vault: every name has one of its own, and comes back."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd_plugins.secrets_azure.names import decode, encode

NAMES = st.text(
    st.one_of(st.sampled_from("aZ09-/_.@ -/"), st.characters(codec="utf-8")),
    min_size=1,
    max_size=24,
)
VAULT_NAMES = st.text(st.sampled_from("a0fF2d-"), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("db", "db"),
        ("db-password", "db-password"),
        ("production/shop/db", "production--shop--db"),
        ("API_KEY", "---41---50---49---5f---4b---45---59"),
        ("tls.crt", "tls---2ecrt"),
        ("a--b", "a---2d-b"),
        ("a//b", "a---2f--b"),
        ("a/-b", "a---2f-b"),
        ("-a/", "---2da---2f"),
        ("a_/b", "a---5f--b"),
        ("ü", "---c3---bc"),
        ("2d", "2d"),
    ],
)
def test_how_names_look(name: str, encoded: str) -> None:
    assert encode(name) == encoded
    assert decode(encoded) == name


@given(NAMES)
def test_every_name_comes_back(name: str) -> None:
    encoded = encode(name)
    assert set(encoded) <= set(string.ascii_lowercase + string.digits + "-")
    assert decode(encoded) == name
    assert decode(encoded.upper()) == name


@given(NAMES, NAMES)
def test_no_two_names_are_one(one: str, other: str) -> None:
    assert (encode(one) == encode(other)) == (one == other)


@given(VAULT_NAMES)
def test_a_name_of_the_vault_is_read_as_what_it_says_or_not_at_all(name: str) -> None:
    decoded = decode(name)
    assert decoded is None or encode(decoded) == name.lower()


@pytest.mark.parametrize("name", ["a----b", "a---b", "a---zz", "---ff", "a-", "-a", "a---61"])
def test_a_name_that_nothing_has_is_not_read(name: str) -> None:
    assert decode(name) is None
