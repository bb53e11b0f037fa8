"""Names of variables: made of paths, and led back to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.settings.names import AmbiguousError, Known, variable
from atlasd.settings.tree import dotted, undotted

KEYS = st.text("abcdefghij-", min_size=1, max_size=6).filter(lambda key: key.strip("-"))


def known(*paths: str, prefix: str = "SHOP_", **variables: str) -> Known:
    return Known.of(prefix, variables, [undotted(path) for path in paths])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("db", "host"), "SHOP_DB_HOST"),
        (("retry-after",), "SHOP_RETRY_AFTER"),
        (("Größe",), "SHOP_GR_SSE"),
    ],
)
def test_a_name_is_made_of_the_path(path: tuple[str, ...], name: str) -> None:
    assert variable("SHOP_", path) == name


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("SHOP_DB_HOST", "db.host"),  # as it is made
        ("DB_HOST", "db.host"),  # as it was before there was a prefix
        ("DB__HOST", "db.host"),
        ("SHOP_DB__HOST", "db.host"),
        ("SHOP_RETRY_AFTER", "retry-after"),
        ("CACHE__TTL", "cache.ttl"),  # nobody knows of it: each part is a key
        ("SHOP_DEBUG", "debug"),
        ("SENTRY_URL", "SENTRY_URL"),  # nothing is known of it: it stays as it is
        ("SHOP_", "SHOP_"),
        ("http_proxy", "http_proxy"),
        ("PGHOST", "db.host"),  # declared
        ("DB", "db"),  # a table, as JSON
        ("__X", "__X"),
    ],
)
def test_a_variable_means_a_setting(name: str, key: str) -> None:
    settings = known("db", "db.host", "retry-after", PGHOST="db.host")
    assert dotted(settings.path(name)) == key


def test_a_name_that_fits_several_settings_is_refused_with_all_of_them() -> None:
    with pytest.raises(AmbiguousError) as caught:
        known("a.b_c", "a_b.c").path("A_B_C")
    assert caught.value.keys == ["a.b_c", "a_b.c"]
    assert dotted(known("a", "a.b_c", "a_b", "a_b.c").path("A__B_C")) == "a.b_c"


@given(st.lists(KEYS, min_size=1, max_size=3), st.sampled_from(["", "SHOP_"]))
def test_every_made_name_leads_back_to_its_setting(keys: list[str], prefix: str) -> None:
    path = tuple(keys)
    settings = Known.of(prefix, {}, [path[:n] for n in range(1, len(path) + 1)])
    assert settings.path(variable(prefix, path)) == path


@given(st.lists(st.text(max_size=5) | st.integers(0, 9), min_size=1, max_size=4))
def test_a_dotted_key_is_read_back(parts: list[str | int]) -> None:
    path = ("top", *parts)
    assert undotted(dotted(path)) == path
