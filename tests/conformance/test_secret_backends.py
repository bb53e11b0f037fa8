"""Every secret backend that is shipped, and the double for tests, keeps what a backend promises."""

from pathlib import Path
from typing import Any

import pytest

from atlasd.contracts.secrets import Capability, SecretBackend
from atlasd.testing.descriptors import load_module
from atlasd.testing.memory_backend import MemoryBackend
from atlasd.testing.secrets import Disable, SecretBackendSuite
from atlasd_plugins import (
    secrets_aws,
    secrets_azure,
    secrets_environ,
    secrets_fernet,
    secrets_systemd,
)
from tests.plugins import azure_vault, moto_server
from tests.plugins.listeners import free_port


class TestMemory(SecretBackendSuite):
    @pytest.fixture
    def memory(self) -> MemoryBackend:
        return MemoryBackend()

    @pytest.fixture
    def backend(self, memory: MemoryBackend) -> SecretBackend:
        return memory.descriptor

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {}

    @pytest.fixture
    def down(self, memory: MemoryBackend) -> dict[str, Any]:
        memory.fail("secret.unavailable")
        return {}

    @pytest.fixture
    def disable(self, memory: MemoryBackend) -> Disable:
        async def disable(name: str, version: str) -> None:
            memory.disable(name, version)

        return disable


class TestMemoryToBeRead(TestMemory):
    """The same without a single capability: what is missing is refused by name."""

    @pytest.fixture
    def memory(self) -> MemoryBackend:
        memory = MemoryBackend(capabilities=frozenset())
        memory.plant("tls.key", "planted")
        return memory

    @pytest.fixture
    def present(self) -> dict[str, str]:
        return {"tls.key": "planted"}


class TestMemoryWithoutRecovery(TestMemory):
    @pytest.fixture
    def memory(self) -> MemoryBackend:
        return MemoryBackend(capabilities=frozenset({Capability.PUT, Capability.DELETE}))


class TestAws(SecretBackendSuite):
    """boto3 against moto's server; its pages are made short, so that there are several."""

    @pytest.fixture
    def backend(self, monkeypatch: pytest.MonkeyPatch) -> SecretBackend:
        monkeypatch.setattr(secrets_aws.store, "PAGE", 8)
        moto_server.read_models_once(monkeypatch)
        return load_module(secrets_aws, SecretBackend, "aws")

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {
            "region": "eu-central-1",
            "endpoint_url": moto_server.emptied(),
            **moto_server.KEYS,
        }

    @pytest.fixture
    def down(self) -> dict[str, Any]:
        return {
            "region": "eu-central-1",
            "endpoint_url": f"http://127.0.0.1:{free_port()}",
            "attempts": 1,
            **moto_server.KEYS,
        }


class TestAzure(SecretBackendSuite):
    """The SDK against a vault over TLS; its pages are short, so that there are several."""

    @pytest.fixture
    def vault(self) -> azure_vault.Vault:
        return azure_vault.emptied()

    @pytest.fixture
    def backend(self) -> SecretBackend:
        return load_module(secrets_azure, SecretBackend, "azure")

    @pytest.fixture
    def settings(self, vault: azure_vault.Vault) -> dict[str, Any]:
        return vault.settings

    @pytest.fixture
    def down(self, vault: azure_vault.Vault) -> dict[str, Any]:
        return {**vault.settings, "vault_url": f"https://localhost:{free_port()}", "attempts": 1}

    @pytest.fixture
    def disable(self, vault: azure_vault.Vault) -> Disable:
        async def disable(name: str, version: str) -> None:
            vault.change(f"production--{name}", version, {"attributes": {"enabled": False}})

        return disable


class TestFernet(SecretBackendSuite):
    @pytest.fixture
    def backend(self) -> SecretBackend:
        return load_module(secrets_fernet, SecretBackend, "fernet")

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"keep_versions": 10}


class TestSystemd(SecretBackendSuite):
    @pytest.fixture
    def backend(self) -> SecretBackend:
        return load_module(secrets_systemd, SecretBackend, "systemd")

    @pytest.fixture
    def present(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
        folder = tmp_path / "credentials"
        folder.mkdir()
        (folder / "tls.key").write_text("handed over")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
        return {"tls.key": "handed over"}

    @pytest.fixture
    def settings(self, present: dict[str, str]) -> dict[str, Any]:
        return {"hidden": []}


class TestEnviron(SecretBackendSuite):
    @pytest.fixture
    def backend(self) -> SecretBackend:
        return load_module(secrets_environ, SecretBackend, "environ")

    @pytest.fixture
    def present(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        monkeypatch.setenv("MINE_TLS_KEY", "inherited")
        return {"tls_key": "inherited"}

    @pytest.fixture
    def settings(self, present: dict[str, str]) -> dict[str, Any]:
        return {"prefix": "MINE_", "allow_in_production": True}
