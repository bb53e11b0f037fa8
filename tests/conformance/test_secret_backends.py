"""Every secret backend that is shipped, and the double for tests, keeps what a backend promises."""

from typing import Any

import pytest

from atlasd.contracts.secrets import Capability, SecretBackend
from atlasd.testing.memory_backend import MemoryBackend
from atlasd.testing.secrets import Disable, SecretBackendSuite


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
