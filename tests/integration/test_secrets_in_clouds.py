"""The engine over real SDKs: an hour without the cloud, by the hand-wound clock, and its end."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from pydantic import BaseModel

from atlasd.clock import HandClock
from atlasd.contracts.secrets import Reference, SecretBackend, SecretsPolicy, SecretStore
from atlasd.errors import AtlasError
from atlasd.secrets.engine import Engine
from atlasd.secrets.lastknown import LastKnown
from atlasd.testing import PlainContext
from atlasd.testing.descriptors import load_module
from atlasd_plugins import secrets_aws, secrets_azure
from tests.plugins import azure_vault, moto_server
from tests.plugins.front import front_of

T = TypeVar("T")
HOUR = 3600.0
REFERENCE = Reference(name="shop/db")


class Cloud(Protocol):
    """A cloud as its own console shows it."""

    backend: SecretBackend
    settings: dict[str, Any]

    def put(self, text: str) -> None: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...
    def close(self) -> None: ...
    def revoke(self) -> str:
        """Take the secret away; the code with which it is told."""

    def take_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let who asks from now on have none."""


class Aws:
    def __init__(self) -> None:
        self._moto = moto_server.emptied()
        self._stack = ExitStack()
        front = self._stack.enter_context(front_of(self._moto))
        self._port = int(front.url.rpartition(":")[2])
        self.backend = load_module(secrets_aws, SecretBackend, "aws")
        self.settings = {
            "region": "eu-central-1",
            "endpoint_url": front.url,
            "attempts": 1,
        }

    def _client(self) -> Any:
        import boto3

        session = boto3.session.Session("test", "test", region_name="eu-central-1")
        return session.client("secretsmanager", endpoint_url=self._moto)

    def put(self, text: str) -> None:
        client = self._client()
        known = [entry["Name"] for entry in client.list_secrets()["SecretList"]]
        if "production/shop/db" in known:
            client.put_secret_value(SecretId="production/shop/db", SecretString=text)
        else:
            client.create_secret(Name="production/shop/db", SecretString=text)

    def stop(self) -> None:
        self._stack.close()

    def start(self) -> None:
        self._stack.enter_context(front_of(self._moto, port=self._port))

    def close(self) -> None:
        self._stack.close()

    def revoke(self) -> str:
        self._client().delete_secret(SecretId="production/shop/db")
        return "secret.not_found"

    def take_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")


class Azure:
    def __init__(self) -> None:
        self._vault = azure_vault.emptied()
        self.backend = load_module(secrets_azure, SecretBackend, "azure")
        self.settings = {**self._vault.settings, "attempts": 1}
        self._running = True

    def put(self, text: str) -> None:
        self._vault.put("production--shop--db", {"value": text, "tags": {}})
        for content in list(self._vault.find("production--shop--db").versions.values())[:-1]:
            content["attributes"]["created"] -= 60  # the vault counts in whole seconds

    def stop(self) -> None:
        if self._running:
            azure_vault.server().stop()
        self._running = False

    def start(self) -> None:
        if not self._running:
            azure_vault.server().start()
        self._running = True

    def close(self) -> None:
        self.start()

    def revoke(self) -> str:
        secret = self._vault.find("production--shop--db")
        self._vault.change(secret.name, secret.latest, {"attributes": {"enabled": False}})
        return "secret.disabled"

    def take_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._vault.token_answers = [(503, {"error": "temporarily_unavailable"})] * 9


@dataclass
class Direct:
    """A backend without a guard."""

    store: SecretStore

    async def call(
        self,
        work: Callable[[SecretStore], Awaitable[T]],
        *,
        limit: timedelta,
        expect: type | tuple[type, ...],
    ) -> T:
        answer = await work(self.store)
        assert isinstance(answer, expect)
        return answer


@dataclass
class Host:
    """What outlives an engine: the clock, and the disk."""

    cloud: Cloud
    folder: Path
    clock: HandClock = field(default_factory=HandClock)

    @property
    def policy(self) -> SecretsPolicy:
        name = self.cloud.backend.name
        settings = self.cloud.backend.settings.model_validate(self.cloud.settings)
        return SecretsPolicy(
            environment="production", backend=name, backends={name: (name, settings)}
        )

    def engine(self) -> Engine:
        return Engine(
            open_backend=self._open,
            descriptors={self.cloud.backend.name: self.cloud.backend},
            clock=self.clock,
            last_known=LastKnown(self.folder / "known", lambda: b"k" * 32),
            chance=lambda: 0.5,
            pause=self._pause,
        )

    async def _pause(self, seconds: float) -> None:
        self.clock.wind(seconds)

    @asynccontextmanager
    async def _open(
        self, kind: str, settings: BaseModel, name: str, environment: str
    ) -> AsyncIterator[Direct]:
        context = PlainContext(self.folder / "state", environment=environment, clock=self.clock)
        try:
            async with self.cloud.backend.open(settings, context) as store:
                yield Direct(store)
        finally:
            context.close()

    async def ask(self, engine: Engine) -> tuple[str, bool]:
        """The text of the secret, and whether it is from before."""
        found = await engine.fetch(self.policy, REFERENCE, consumer="test", actor="core")
        return found.value.text(), found.stale

    async def code(self, engine: Engine) -> str:
        with pytest.raises(AtlasError) as caught:
            await self.ask(engine)
        return caught.value.code


@pytest.fixture(params=[Aws, Azure], ids=["aws", "azure"])
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    moto_server.read_models_once(monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent/aws")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    cloud = request.param()
    cloud.put("first")
    yield cloud
    cloud.close()


@pytest.fixture
async def engines(cloud: Cloud, tmp_path: Path) -> AsyncIterator[tuple[Host, Sequence[Engine]]]:
    host = Host(cloud, tmp_path)
    engines = [host.engine(), host.engine()]
    yield host, engines
    for engine in engines:
        await engine.close()


async def test_an_hour_without_the_cloud_is_survived_also_across_a_restart(
    engines: tuple[Host, Sequence[Engine]],
) -> None:
    host, (engine, later) = engines
    engine.watch(host.policy, [REFERENCE])
    await engine.refresh_due()
    assert await host.ask(engine) == ("first", False)
    host.cloud.put("second")
    host.cloud.stop()
    for _ in range(12):
        host.clock.wind(HOUR / 12)
        await engine.refresh_due()
        assert await host.ask(engine) == ("first", True)
    assert await host.ask(later) == ("first", True)
    host.cloud.start()
    host.clock.wind(HOUR)
    await engine.refresh_due()
    assert await host.ask(engine) == ("second", False)


async def test_what_is_revoked_is_used_no_longer(
    engines: tuple[Host, Sequence[Engine]],
) -> None:
    host, (engine, later) = engines
    engine.watch(host.policy, [REFERENCE])
    await engine.refresh_due()
    assert await host.ask(engine) == ("first", False)
    host.cloud.stop()
    host.clock.wind(HOUR / 2)
    await engine.refresh_due()
    assert await host.ask(engine) == ("first", True)
    code = host.cloud.revoke()
    host.cloud.start()
    host.clock.wind(HOUR / 2)
    await engine.refresh_due()
    assert await host.code(engine) == code
    host.cloud.stop()
    assert await host.code(later) == "secret.unavailable"


async def test_credentials_that_are_missing_for_a_moment_are_an_outage(
    engines: tuple[Host, Sequence[Engine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, (engine, later) = engines
    assert await host.ask(engine) == ("first", False)
    host.cloud.take_credentials(monkeypatch)
    host.clock.wind(HOUR)
    assert await host.ask(later) == ("first", True)
