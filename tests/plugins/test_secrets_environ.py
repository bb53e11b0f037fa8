"""Secrets from the environment: for development, and refused in production."""

from pathlib import Path

import pytest

from atlasd.contracts.secrets import SecretValue
from atlasd.errors import AtlasError
from atlasd.testing import PlainContext
from atlasd_plugins.secrets_environ import EnvironSettings, Variables, open_backend

ENVIRON = {"SECRET_SHOP_DB": "pass\udcff", "SECRET_A": "", "SECRET_": "x", "HOME": "/root"}


def variables(environment: str = "development", **settings: object) -> Variables:
    return Variables(EnvironSettings.model_validate(settings), environment, ENVIRON)


async def refused(call: object) -> tuple[str, str]:
    with pytest.raises(AtlasError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.hint
    return caught.value.code, caught.value.message


@pytest.mark.parametrize("name", ["shop/db", "shop-db", "shop_db", "Shop.DB"])
async def test_a_name_is_the_variable_of_its_letters(name: str) -> None:
    got = await variables().get(name)
    assert got.value == SecretValue(b"pass\xff")
    assert (got.name, got.version, got.stages) == (name, "1", ("current",))
    assert (await variables().get(name, version="1")).value == got.value


async def test_what_is_not_there() -> None:
    assert await refused(variables().get("shop/cache")) == (
        "secret.not_found",
        "there is no secret 'shop/cache': the variable SECRET_SHOP_CACHE is not set",
    )
    assert (await refused(variables().describe("home")))[0] == "secret.not_found"
    assert (await refused(variables().get("shop/db", version="2")))[0] == "secret.not_found"
    assert (await refused(variables().get("shop/db", stage="pending")))[0] == "secret.not_found"
    assert (await refused(variables().get("a b")))[0] == "secret.invalid"
    assert (await variables().get("a")).value == SecretValue("")


async def test_only_what_has_the_prefix_is_listed() -> None:
    assert [info.name for info in await variables().list()] == ["a", "shop_db"]
    assert [info.name for info in await variables().list("shop/")] == ["shop_db"]
    assert [info.name for info in await variables(prefix="HO").list()] == ["me"]


async def test_production_refuses_it_unless_it_is_allowed() -> None:
    for call in (
        variables("production").get("shop/db"),
        variables("production").describe("shop/db"),
        variables("production").list(),
    ):
        code, message = await refused(call)
        assert (code, "in production" in message) == ("secret.denied", True)
    allowed = variables("production", allow_in_production=True)
    assert (await allowed.get("shop/db")).value == SecretValue(b"pass\xff")


async def test_nothing_can_be_changed() -> None:
    store = variables()
    for call in (
        store.put("a", SecretValue("v")),
        store.versions("a"),
        store.stage("a", "1", "current"),
        store.delete("a"),
        store.recover("a"),
    ):
        assert (await refused(call))[0] == "secret.unsupported"


async def test_it_reads_the_environment_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_SHOP_DB", "v")
    context = PlainContext(tmp_path, environment="development")
    async with open_backend(EnvironSettings(), context) as store:
        assert (await store.get("shop/db")).value == SecretValue("v")
    context.close()
