"""The engine: one fetch for all, an outage survived, a revocation obeyed, every use written."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from atlasd.contracts.secrets import Capability, Reference, Resolved, Sealed, SecretValue
from atlasd.errors import AtlasError
from atlasd.events import SecretChanged, SecretRevoked, SecretStale
from atlasd.secrets.cache import Key, State
from atlasd.secrets.engine import COOL_DOWN
from atlasd.testing.memory_backend import MemoryBackend
from tests.unit.secrets.house import House, Labelled, until

HOUR = 3600.0


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A backend with one secret."""
    house = House(folder=tmp_path)
    house.memory.plant("db", "first")
    return house


async def failing(house: House, engine: object, address: str = "db", **parts: str) -> AtlasError:
    with pytest.raises(AtlasError) as caught:
        await house.get(engine, address, **parts)  # type: ignore[arg-type]
    return caught.value


async def test_a_secret_is_fetched_once_and_kept(house: House) -> None:
    engine = house.engine()
    for _ in range(3):
        found = await house.ask(engine)
        assert found == Resolved(
            value=SecretValue("first"), backend="memory", version="v1", fetched=found.fetched
        )
    assert house.memory.calls["get"] == 1
    assert house.known == [("db", SecretValue("first"))], "logs keep it out"
    assert engine.numbers.fetches == {("memory", "done"): 1}
    assert engine.numbers.served["memory", State.FRESH] == 3


async def test_all_who_want_it_at_the_same_time_share_one_fetch(house: House) -> None:
    engine = house.engine()
    house.memory.delay = timedelta(seconds=1)
    asking = [asyncio.create_task(house.get(engine)) for _ in range(50)]
    await until(lambda: house.memory.waiting > 0)
    await house.memory.wind(1)
    assert await asyncio.gather(*asking) == ["first"] * 50
    assert house.memory.calls["get"] == 1


async def test_one_who_gives_up_takes_nothing_from_the_others(house: House) -> None:
    engine = house.engine()
    house.memory.delay = timedelta(seconds=1)
    first = asyncio.create_task(house.get(engine))
    second = asyncio.create_task(house.get(engine))
    await until(lambda: house.memory.waiting > 0)
    first.cancel()
    await asyncio.sleep(0)
    await house.memory.wind(1)
    assert await second == "first"
    assert house.memory.calls["get"] == 1


async def test_a_stale_value_is_given_at_once_and_fetched_beside(house: House) -> None:
    engine = house.engine()
    await house.get(engine)
    house.memory.plant("db", "second")
    house.clock.wind(301)
    assert await house.get(engine) == "first"
    await until(lambda: bool(house.changed))
    assert await house.get(engine) == "second"
    assert [type(event) for event in house.events] == [SecretChanged]
    assert house.memory.calls["get"] == 2


async def test_an_outage_of_an_hour_is_survived(house: House) -> None:
    engine = house.engine()
    engine.watch(house.policy, [Reference(name="db")])
    await engine.refresh_due()
    house.memory.fail("secret.unavailable")
    for _ in range(360):
        house.clock.wind(10)
        await engine.refresh_due()
        assert await house.get(engine) == "first"
    assert (await house.ask(engine)).stale
    assert [type(event) for event in house.events] == [SecretStale]
    assert 10 <= house.memory.calls["get"] <= 25
    house.memory.works()
    house.clock.wind(300)
    await engine.refresh_due()
    found = await house.ask(engine)
    assert not found.stale
    # The next outage is told again.
    house.memory.fail("secret.unavailable")
    house.clock.wind(301)
    await engine.refresh_due()
    assert [type(event) for event in house.events] == [SecretStale, SecretStale]


@pytest.mark.parametrize("code", ["secret.denied", "secret.disabled", "secret.not_found"])
async def test_a_revocation_during_that_hour_ends_it_at_once(house: House, code: str) -> None:
    engine = house.engine()
    await house.get(engine)
    house.memory.fail("secret.unavailable")
    house.clock.wind(HOUR / 2)
    assert await house.get(engine) == "first"
    house.memory.works()
    house.memory.fail(code)
    house.clock.wind(HOUR / 2)
    engine.watch(house.policy, [Reference(name="db")])
    await engine.refresh_due()
    assert (await failing(house, engine)).code == code
    revoked = [event for event in house.events if isinstance(event, SecretRevoked)]
    assert [(event.secret, event.reason) for event in revoked] == [("db", code)]
    # Nor does a restart in the next outage bring it back.
    house.memory.works()
    house.memory.fail("secret.unavailable")
    assert (await failing(house, house.engine())).code == "secret.unavailable"


async def test_an_outage_is_survived_across_a_restart(house: House) -> None:
    await house.get(house.engine())
    house.memory.fail("secret.unavailable")
    house.clock.wind(HOUR)
    later = house.engine()
    found = await house.ask(later)
    assert found.value == SecretValue("first")
    assert found.stale
    assert found.fetched is not None
    assert house.clock.wall() - found.fetched.timestamp() == pytest.approx(HOUR)
    house.clock.wind(23 * HOUR + 1)
    assert (await failing(house, later)).code == "secret.unavailable"
    assert (await failing(house, house.engine())).code == "secret.unavailable"


async def test_without_a_disk_a_restart_in_an_outage_has_nothing(house: House) -> None:
    house.with_disk = False
    await house.get(house.engine())
    house.memory.fail("secret.unavailable")
    assert (await failing(house, house.engine())).code == "secret.unavailable"


async def test_local_backends_leave_no_second_copy(house: House) -> None:
    house.memory.descriptor = replace(house.memory.descriptor, local=True)
    await house.get(house.engine())
    assert not (house.folder / "known").exists()


async def test_two_roles_fetch_a_secret_once_for_the_host(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock is wound by each pause, so that a slow disk would look like a role that hangs.
    monkeypatch.setattr("atlasd.secrets.fetching.TURN_LIMIT", float("inf"))
    core, monitoring = house.engine(), house.engine()
    house.memory.delay = timedelta(seconds=1)
    asking = [asyncio.create_task(house.get(one)) for one in (core, monitoring)]
    await until(lambda: house.memory.waiting > 0 and bool(house.paused))
    await house.memory.wind(1)
    assert await asyncio.gather(*asking) == ["first", "first"]
    assert house.memory.calls["get"] == 1


async def test_a_role_that_hangs_while_it_fetches_holds_up_no_other(house: House) -> None:
    core = house.engine()
    key = Key("memory", "db", "current")
    kind, settings = house.policy.backends["memory"]
    disk = house.disk().at("production", kind, settings.model_dump_json())
    with disk.turn(key) as mine:
        assert mine
        assert await house.get(core) == "first"
    assert sum(house.paused) == pytest.approx(15.0)


async def test_what_another_role_fetched_long_ago_is_fetched_anew(house: House) -> None:
    await house.get(house.engine())
    house.memory.plant("db", "second")
    house.clock.wind(31)
    assert await house.get(house.engine()) == "second"


async def test_throttling_is_obeyed_by_all_that_ask_the_backend(house: House) -> None:
    house.memory.plant("other", "x")
    engine = house.engine()
    house.memory.fail("secret.throttled", name="db", retry_after=90)
    assert (await failing(house, engine)).code == "secret.throttled"
    house.memory.works()
    error = await failing(house, engine, "other")
    assert error.code == "secret.throttled"
    assert "for another 90 s" in error.message
    assert house.memory.calls["get"] == 1
    house.clock.wind(90)
    assert await house.get(engine) == "first"


async def test_a_secret_that_fails_is_not_asked_for_each_time(house: House) -> None:
    engine = house.engine()
    for _ in range(5):
        assert (await failing(house, engine, "nothing")).code == "secret.not_found"
    assert house.memory.calls["get"] == 1
    house.clock.wind(1)
    await failing(house, engine, "nothing")
    assert house.memory.calls["get"] == 2


async def test_what_we_put_is_seen_at_once(house: House) -> None:
    engine = house.engine()
    await house.get(engine)
    house.memory.plant("db", "second")
    engine.changed_by_us(house.policy, "memory", "db")
    assert await house.get(engine) == "second"


async def test_a_fetch_that_was_under_way_while_we_put_is_made_again(house: House) -> None:
    engine = house.engine()
    house.memory.delay = timedelta(seconds=1)
    asking = asyncio.create_task(house.get(engine))
    await until(lambda: house.memory.waiting > 0)
    engine.changed_by_us(house.policy, "memory", "db")
    await house.memory.wind(1)
    await until(lambda: house.memory.waiting > 0)
    house.memory.plant("db", "second")
    await house.memory.wind(1)
    assert await asking == "second"


async def test_a_forced_fetch_has_a_cool_down(house: House) -> None:
    engine = house.engine()
    await house.get(engine)
    house.memory.plant("db", "second")
    reference = Reference(name="db")
    refreshed = await engine.refresh(house.policy, reference)
    assert (refreshed.fetched, refreshed.changed, refreshed.version) == (True, True, "v2")
    assert await house.get(engine) == "second"
    house.clock.wind(COOL_DOWN - 10)
    refreshed = await engine.refresh(house.policy, reference)
    assert (refreshed.fetched, refreshed.changed, refreshed.wait) == (False, False, 10.0)
    house.clock.wind(10)
    refreshed = await engine.refresh(house.policy, reference)
    assert (refreshed.fetched, refreshed.changed) == (True, False)
    assert house.memory.calls["get"] == 3


async def test_a_forced_fetch_that_fails_says_so_and_keeps_what_is_known(house: House) -> None:
    engine = house.engine()
    await house.get(engine)
    house.memory.fail("secret.unavailable")
    with pytest.raises(AtlasError) as caught:
        await engine.refresh(house.policy, Reference(name="db"))
    assert caught.value.code == "secret.unavailable"
    assert await house.get(engine) == "first"


async def test_versions_stages_and_members(house: House) -> None:
    house.memory.plant("db", '{"user": "app", "port": 5432, "none": null}')
    engine = house.engine()
    assert await house.get(engine, field="user") == "app"
    assert await house.get(engine, field="port") == "5432"
    assert await house.get(engine, selector="previous") == "first"
    assert await house.get(engine, selector="v1") == "first"
    assert (await failing(house, engine, field="usr")).hint == "did you mean 'user'?"
    assert (await failing(house, engine, field="none")).code == "secret.not_found"
    error = await failing(house, engine, selector="v1", field="user")
    assert error.code == "secret.invalid"
    assert "first" not in f"{error.message} {error.hint}"


async def test_encrypted_values_are_opened_by_a_backend_that_can(house: House) -> None:
    engine = house.engine()
    store_call = house.policy
    text = await engine.backends.call(
        store_call,
        "memory",
        lambda store: store.seal(SecretValue("hidden"), binding="a.b"),  # type: ignore[attr-defined]
        expect=str,
    )
    wanted = [Sealed(text=text, binding="a.b"), Sealed(text=text, binding="a.c")]
    found = await engine.resolve(house.policy, wanted, consumer="test", actor="core")
    opened, refused = (found[one] for one in wanted)
    assert isinstance(opened, Resolved)
    assert opened.value == SecretValue("hidden")
    assert isinstance(refused, AtlasError)
    assert refused.code == "secret.corrupt"


async def test_without_a_backend_that_can_an_encrypted_value_is_refused(tmp_path: Path) -> None:
    house = House(folder=tmp_path, memory=MemoryBackend(capabilities=frozenset({Capability.PUT})))
    wanted = Sealed(text="enc:v1:k:x", binding="a")
    found = await house.engine().resolve(house.policy, [wanted], consumer="", actor="")
    answer = found[wanted]
    assert isinstance(answer, AtlasError)
    assert answer.code == "secret.unsupported"


async def test_every_use_is_written_and_no_value(house: House) -> None:
    engine = house.engine()
    wanted = [Reference(name="db"), Reference(name="gone")]
    await engine.resolve(house.policy, wanted, consumer="configuration", actor="core")
    assert [(e.action, e.name, e.version, e.consumer, e.outcome) for e in house.entries] == [
        ("read", "db", "v1", "configuration", "done"),
        ("read", "gone", "", "configuration", "secret.not_found"),
    ]
    assert "first" not in repr(house.entries)


async def test_a_log_that_cannot_be_written_stops_secrets_only_if_asked_to(house: House) -> None:
    engine = house.engine()
    house.audit_fault = AtlasError("audit.broken", "the disk is full")
    assert await house.get(engine) == "first"
    assert engine.numbers.audit_failures == 1
    house.policy = replace(house.policy, fail_closed=True)
    assert (await failing(house, engine)).code == "audit.broken"


async def test_another_environment_has_a_cache_and_a_backend_of_its_own(house: House) -> None:
    house.memory.plant("db", "of staging", environment="staging")
    engine = house.engine()
    assert await house.get(engine) == "first"
    house.policy = replace(house.policy, environment="staging")
    assert await house.get(engine) == "of staging"
    assert [environment for *_, environment in house.opened] == ["production", "staging"]


async def test_other_settings_of_a_backend_end_what_was_kept(house: House) -> None:
    engine = house.engine()
    await house.get(engine)
    house.memory.plant("db", "second")
    house.policy = replace(house.policy, backends={"memory": ("memory", Labelled(label="new"))})
    assert await house.get(engine) == "second"
    assert house.closed == ["memory"]
    await house.get(engine)
    assert len(house.opened) == 2


async def test_a_backend_that_is_not_there_is_named(house: House) -> None:
    error = await failing(house, house.engine(), backend="memori")
    assert error.code == "secret.not_found"
    assert "'memori'" in error.message
    assert error.hint == "did you mean 'memory'?"


async def test_what_a_backend_cannot_do_is_refused_by_name(tmp_path: Path) -> None:
    house = House(folder=tmp_path, memory=MemoryBackend(capabilities=frozenset({Capability.PUT})))
    with pytest.raises(AtlasError) as caught:
        house.engine().backends.demand(house.policy, "memory", Capability.STAGE)
    assert caught.value.code == "secret.unsupported"
    assert "cannot stage" in caught.value.message
    assert caught.value.hint == "it can put"


async def test_the_watch_keeps_fresh_and_says_what_changed(house: House) -> None:
    engine = house.engine()
    engine.watch(house.policy, [Reference(name="db"), Reference(name="db", field="x")])
    assert await engine.refresh_due() == 30.0
    assert [key.name for key in engine.watched] == ["db"]
    house.memory.plant("db", "second")
    house.clock.wind(300)
    await engine.refresh_due()
    assert [key.name for key in house.changed] == ["db"]
    (standing,) = engine.standing(house.policy, engine.watched)
    assert (standing.state, standing.version, standing.age) == (State.FRESH, "v2", 0.0)


async def test_closing_lets_go_of_everything(house: House) -> None:
    engine = house.engine()
    await house.get(engine)
    house.memory.delay = timedelta(seconds=1)
    house.clock.wind(301)
    await house.get(engine)
    await until(lambda: house.memory.waiting > 0)
    await engine.close()
    assert house.closed == ["memory"]
    assert house.memory.waiting == 0
