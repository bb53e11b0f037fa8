"""Secret backends and rotators behind their guards: honest errors pass, all else is caught."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from atlasd.contracts.secrets import Reference, SecretValue, SecretVersion
from atlasd.contracts.settings import NoSettings
from atlasd.errors import AtlasError
from atlasd.pluginhost.work import RunningThing

SOON = timedelta(seconds=20)

PLUGIN = """
import asyncio
import sys
from contextlib import asynccontextmanager
from pydantic import Field
from atlasd import hookimpl
from atlasd.contracts.secrets import RotatorType, SecretBackend, SecretValue, SecretVersion
from atlasd.contracts.settings import Settings
from atlasd.errors import AtlasError

ATLASD_API = 1
opened = []

class Store:
    def __init__(self, context):
        self.context = context

    async def get(self, name, *, version="", stage="current"):
        {body}

@asynccontextmanager
async def open_backend(settings, context):
    opened.append(context.environment)
    if settings.broken:
        raise AtlasError("secret.key", "there is no key")
    yield Store(context)

class VaultSettings(Settings):
    broken: bool = False

class RotatorSettings(Settings):
    dsn: str = Field(description="Where.")

class Rotator:
    async def create(self, name, current):
        return SecretValue("made for " + name)

@asynccontextmanager
async def open_rotator(settings, context):
    yield Rotator()

@hookimpl
def register_secret_backends():
    return [SecretBackend(name="vault", summary="x", settings=VaultSettings, open=open_backend)]

@hookimpl
def register_secret_rotators():
    return [RotatorType(name="pg", summary="x", settings=RotatorSettings, open=open_rotator)]
"""


def host_of(desk: Any, body: str = 'return SecretVersion(name=name, version="1")') -> Any:
    desk.write("vault.py", PLUGIN.replace("{body}", body))
    host = desk.host()
    host.setting.environment = "production"
    return host


def settings_of(host: Any, **values: object) -> BaseModel:
    from atlasd.contracts.secrets import SecretBackend

    model: type[BaseModel] = host.find(SecretBackend, "vault").descriptor.settings
    return model(**values)


async def get(running: RunningThing[Any], *, limit: timedelta = SOON) -> SecretVersion:
    return await running.call(lambda store: store.get("db"), limit=limit, expect=SecretVersion)


async def test_a_backend_answers(desk: Any) -> None:
    host = host_of(desk)
    async with host.secret_backend("vault", settings_of(host), "main", "production") as running:
        assert (await get(running)).name == "db"
    assert host.costs()["vault", "secret_backend"].calls == 1


async def test_each_environment_has_a_context_of_its_own(desk: Any) -> None:
    body = 'return SecretVersion(name=self.context.environment, version="1")'
    host = host_of(desk, body)
    for environment in ("production", "staging"):
        async with host.secret_backend("vault", settings_of(host), "main", environment) as running:
            assert (await get(running)).name == environment
    assert host.context("vault").environment == "production"


@pytest.mark.parametrize("code", ["secret.not_found", "secret.unavailable", "secret.denied"])
async def test_honest_errors_pass_and_are_no_failure(desk: Any, code: str) -> None:
    host = host_of(desk, f"raise AtlasError({code!r}, 'so it is')")
    async with host.secret_backend("vault", settings_of(host), "main", "production") as running:
        for _ in range(20):
            with pytest.raises(AtlasError) as caught:
                await get(running)
            assert (caught.value.code, caught.value.message) == (code, "so it is")
    assert host.costs()["vault", "secret_backend"].failures == 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("sys.exit(3)", "tried to end the daemon"),
        ("return 'hunter2'", "it gave a str, not a SecretVersion"),
        ("await asyncio.sleep(3600)", "did not return within"),
    ],
)
async def test_what_is_against_the_contract_is_a_failure(desk: Any, body: str, says: str) -> None:
    host = host_of(desk, body)
    async with host.secret_backend("vault", settings_of(host), "main", "production") as running:
        with pytest.raises(AtlasError) as caught:
            await get(running, limit=timedelta(seconds=0.2))
    assert caught.value.code == "plugin.failed"
    assert says in caught.value.message
    assert "secret backend main (plugin vault)" in caught.value.message
    assert "hunter2" not in caught.value.message
    assert host.costs()["vault", "secret_backend"].failures == 1


async def test_one_that_does_not_open_says_why_and_is_tried_again(desk: Any) -> None:
    host = host_of(desk)
    settings = settings_of(host, broken=True)
    async with host.secret_backend("vault", settings, "main", "production") as running:
        for _ in range(2):
            with pytest.raises(AtlasError) as caught:
                await get(running)
            assert caught.value.code == "secret.key"


async def test_an_unknown_type_is_refused(desk: Any) -> None:
    host = host_of(desk)
    with pytest.raises(AtlasError) as caught:
        async with host.secret_backend("valt", NoSettings(), "main", "production"):
            pass
    assert "secrets.backends.main.type: no plugin supplies a secret backend 'valt'" in str(
        caught.value
    )


async def test_a_rotator_needs_its_settings(desk: Any) -> None:
    host = host_of(desk)
    with pytest.raises(AtlasError) as caught:
        async with host.secret_rotator("pg", {}, "db", "production"):
            pass
    assert caught.value.code == "plugin.settings"
    assert caught.value.hint == "write a table [plugins.pg]"
    model = host.plugin_settings()["pg"]
    settings = {"pg": model(dsn="x")}
    async with host.secret_rotator("pg", settings, "db", "production") as running:
        made = await running.call(
            lambda rotator: rotator.create("db", None), limit=SOON, expect=SecretValue
        )
    assert made == SecretValue("made for db")


def test_tables_have_owners_and_backends_have_none(desk: Any) -> None:
    host = host_of(desk)
    assert host.table_owners() == {"pg": "vault"}
    assert set(host.plugin_settings()) == {"pg"}


async def test_a_plugin_is_given_what_it_asks_for_by_whoever_knows(desk: Any) -> None:
    host = host_of(desk)
    asked = []

    async def fetch(plugin: str, name: str) -> SecretValue:
        asked.append((plugin, name, Reference(name=name)))
        return SecretValue(b"\xff" if name == "binary" else "value")

    host.setting.secret = fetch
    assert await host.context("vault").secret("db") == "value"
    assert asked == [("vault", "db", Reference(name="db"))]
    with pytest.raises(AtlasError) as caught:
        await host.context("vault").secret("binary")
    assert caught.value.code == "plugin.secret"
