"""What is kept of a secret: an outage is survived, a revocation is not served; hand-wound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.contracts.secrets import SecretValue, SecretVersion
from atlasd.errors import AtlasError
from atlasd.secrets.cache import REVOKING, TRANSIENT, Cache, Key, Rules, State

KEY = Key("vault", "db", "current")
HOUR = 3600.0


def version(number: int = 1) -> SecretVersion:
    return SecretVersion(name="db", version=f"v{number}", value=SecretValue(f"value {number}"))


def error(code: str, **details: object) -> AtlasError:
    return AtlasError(code, f"{code} says the test", details=details)


def fetched(rules: Rules | None = None, *, now: float = 0.0) -> Cache:
    cache = Cache(rules or Rules())
    cache.keep(KEY, version(), now, 0.5)
    return cache


def test_what_is_not_known_has_to_be_fetched() -> None:
    look = Cache().look(KEY, 0.0)
    assert (look.state, look.value, look.fetch) == (State.MISSING, None, True)


def test_a_fresh_value_is_used_and_nobody_is_asked() -> None:
    look = fetched().look(KEY, 299.0)
    assert (look.state, look.value, look.fetch, look.age) == (State.FRESH, version(), False, 299.0)


def test_a_stale_value_is_used_while_it_is_fetched() -> None:
    look = fetched().look(KEY, 300.0)
    assert (look.state, look.value, look.fetch) == (State.STALE, version(), True)


@given(st.floats(0, 1, exclude_max=True))
def test_chance_varies_freshness_by_a_tenth(chance: float) -> None:
    cache = Cache()
    cache.keep(KEY, version(), 1000.0, chance)
    assert cache.look(KEY, 1000.0 + 269.9).state is State.FRESH
    assert cache.look(KEY, 1000.0 + 330.1).state is State.STALE


def test_an_outage_of_an_hour_is_survived() -> None:
    cache = fetched()
    asked = 0
    now = 300.0
    while now < HOUR:
        look = cache.look(KEY, now)
        assert look.value == version()
        if look.fetch:
            asked += 1
            assert not cache.failed(KEY, error("secret.unavailable"), now, 0.5)
        now += 1.0
    # 1, 2, 4 … 256 s, then every five minutes: not each second, and not never.
    assert 15 <= asked <= 22
    assert look.state is State.STALE
    assert look.error is not None
    assert not cache.keep(KEY, version(), now, 0.5)
    assert cache.look(KEY, now + 1).state is State.FRESH


def test_an_outage_longer_than_the_policy_allows_ends_in_the_error() -> None:
    cache = fetched(Rules(max_stale=HOUR))
    cache.failed(KEY, error("secret.unavailable"), HOUR - 1, 0.5)
    assert cache.look(KEY, HOUR - 0.1).value == version()
    look = cache.look(KEY, HOUR + 10)
    assert (look.state, look.value, look.fetch) == (State.EXPIRED, None, True)
    assert look.error is not None
    cache.failed(KEY, error("secret.unavailable"), HOUR + 10, 0.5)
    assert cache.look(KEY, HOUR + 10).value is None
    # The clock cannot bring it back.
    assert cache.look(KEY, HOUR - 1).value is None


@pytest.mark.parametrize("code", sorted(REVOKING))
def test_a_revocation_ends_it_at_once(code: str) -> None:
    cache = fetched()
    assert cache.failed(KEY, error(code), 400.0, 0.5)
    look = cache.look(KEY, 400.0)
    assert look.value is None
    assert look.error is not None
    assert look.error.code == code
    assert not cache.failed(KEY, error(code), 500.0, 0.5)  # told once


@pytest.mark.parametrize("code", sorted(REVOKING))
def test_a_grace_lets_it_be_used_for_a_while(code: str) -> None:
    cache = fetched(Rules(grace=60.0))
    assert cache.failed(KEY, error(code), 400.0, 0.5)
    look = cache.look(KEY, 459.0)
    assert (look.state, look.value) == (State.REVOKED, version())
    look = cache.look(KEY, 460.0)
    assert (look.state, look.value, look.fetch) == (State.REVOKED, None, True)


def test_a_revocation_during_an_outage_is_not_forgotten_by_it() -> None:
    cache = fetched(Rules(grace=60.0))
    cache.failed(KEY, error("secret.denied"), 400.0, 0.5)
    cache.failed(KEY, error("secret.unavailable"), 430.0, 0.5)
    assert cache.look(KEY, 461.0).value is None


def test_a_secret_that_is_there_again_is_used_again() -> None:
    cache = fetched()
    cache.failed(KEY, error("secret.disabled"), 400.0, 0.5)
    assert cache.keep(KEY, version(2), 500.0, 0.5)
    assert cache.look(KEY, 501.0).value == version(2)


def test_the_backend_says_when_it_may_be_asked_again() -> None:
    cache = fetched()
    cache.failed(KEY, error("secret.throttled", retry_after=90), 400.0, 0.5)
    assert not cache.look(KEY, 489.0).fetch
    assert cache.look(KEY, 490.0).fetch


@pytest.mark.parametrize("said", ["soon", -3, True, None, float("nan")])
def test_nonsense_in_retry_after_is_passed_over(said: object) -> None:
    cache = fetched()
    cache.failed(KEY, error("secret.throttled", retry_after=said), 400.0, 0.5)
    assert cache.look(KEY, 401.0).fetch


def test_a_backend_cannot_ask_to_be_left_alone_for_ever() -> None:
    cache = fetched()
    cache.failed(KEY, error("secret.throttled", retry_after=1e12), 400.0, 0.5)
    assert cache.look(KEY, 400.0 + HOUR).fetch


def test_another_version_is_noticed() -> None:
    cache = fetched()
    assert not cache.keep(KEY, version(1), 300.0, 0.5)
    assert cache.keep(KEY, version(2), 600.0, 0.5)
    old = SecretVersion(name="db", version="v2", value=SecretValue("changed in place"))
    assert cache.keep(KEY, old, 900.0, 0.5)


def test_what_was_missing_and_is_there_now_is_noticed() -> None:
    cache = Cache()
    cache.failed(KEY, error("secret.not_found"), 0.0, 0.5)
    assert cache.keep(KEY, version(1), 1.0, 0.5)
    assert not Cache().keep(KEY, version(1), 1.0, 0.5)


def test_versions_are_kept_apart() -> None:
    cache = fetched()
    other = KEY._replace(selector="previous")
    assert cache.look(other, 1.0).state is State.MISSING
    cache.keep(other, version(7), 1.0, 0.5)
    assert cache.look(KEY, 1.0).value == version()
    cache.forget("vault", "db")
    assert tuple(cache) == ()


def test_what_is_restored_is_as_old_as_it_is() -> None:
    cache = Cache(Rules(max_stale=HOUR))
    cache.keep(KEY, version(), 5.0, 0.5, age=HOUR - 10)
    look = cache.look(KEY, 5.0)
    assert (look.state, look.value, look.fetch) == (State.STALE, version(), True)
    assert cache.look(KEY, 16.0).value is None


MOVES = st.lists(
    st.tuples(
        st.floats(0.0, 4000.0),
        st.sampled_from(["look", "fetch", *sorted(TRANSIENT | REVOKING), "secret.corrupt"]),
        st.floats(0, 1, exclude_max=True),
    ),
    max_size=40,
)


@given(MOVES, st.floats(0, 8000), st.floats(0, 100))
def test_whatever_happens_nothing_is_served_that_must_not_be(
    moves: list[tuple[float, str, float]], max_stale: float, grace: float
) -> None:
    cache = Cache(Rules(fresh_for=300.0, max_stale=max_stale, grace=grace))
    now = 0.0
    good: float | None = None
    revoked: float | None = None
    for wait, move, chance in moves:
        now += wait
        if move == "fetch":
            cache.keep(KEY, version(), now, chance)
            good, revoked = now, None
        elif move != "look":
            cache.failed(KEY, error(move), now, chance)
            if move in REVOKING and good is not None and revoked is None:
                revoked = now
        look = cache.look(KEY, now)
        if look.value is not None:
            assert good is not None
            assert now - good < max(max_stale, 330.0)
            assert revoked is None or now < revoked + grace
        else:
            assert look.fetch or look.error is not None
