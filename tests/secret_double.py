"""Secrets of a core that plays along: the real operations, over a backend in memory."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from atlasd.config import envfile, references
from atlasd.contracts.config import KeyPath
from atlasd.contracts.secrets import Reference
from atlasd.control import models
from atlasd.control.rights import Caller
from atlasd.control.wire import BY_NAME
from atlasd.daemon.secret_desk import ANSWERS, STREAMS
from atlasd.secrets.audit import Audit
from atlasd.secrets.desk import Asker, Use
from atlasd.secrets.impact import Consumer
from atlasd.secrets.operations import SecretOperations
from atlasd.secrets.rotation import RotationEngine
from atlasd.secrets.steps import Commands, Plan
from tests.unit.secrets.house import House
from tests.unit.secrets.kept import Kept, opened


class FakeSecrets:
    """One host's secrets; `db` is in use by the service `web`, and rotated."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="atlasd-secrets-"))
        self.house = House(folder=self.folder, with_disk=False)
        self.audit = Audit(
            self.folder / "audit.jsonl", self.folder / "anchor", lambda: b"k" * 32, self.house.clock
        )
        self.uses: dict[KeyPath, list[Reference]] = {
            ("services", "web", "secrets", "DB", "value"): [Reference(name="db")]
        }
        self.plans = {("memory", "db"): Plan(overlap=0.0)}
        self.changed: list[str] = []
        self.kept = Kept()
        self._operations: SecretOperations | None = None

    def use(self) -> Use:
        """What the configuration says."""
        return Use(
            policy=self.house.policy,
            uses=self.uses,
            consumers=(Consumer(name="web", on_change="reload"),),
            rotated=tuple(self.plans),
        )

    async def operations(self) -> SecretOperations:
        """The operations, of the loop that asks first."""
        if self._operations is None:
            engine = self.house.engine()
            engine._audit = self.audit.append
            rotations = RotationEngine(
                engine,
                self.kept,
                open_steps=lambda _name, plan: opened(
                    Commands(plan=plan, environment="production")
                ),
                clock=self.house.clock,
            )
            await rotations.configure(self.house.policy, self.plans)
            self._operations = SecretOperations(
                engine,
                self.audit,
                self.use,
                address=references.address,
                parse_env=envfile.parse,
                in_thread=asyncio.to_thread,
                rotations=rotations,
                changed=self.changed.append,
            )
        return self._operations

    def method(self, name: str) -> Callable[[Any, Caller], Any]:
        """What performs an operation of the table."""
        answer = getattr(models, BY_NAME[name].answer)

        async def handler(request: Any, caller: Caller) -> Any:
            fields = {key: getattr(request, key) for key in type(request).model_fields}
            asker = Asker(actor=caller.actor, pid=caller.pid)
            operations = await self.operations()
            if name in STREAMS:
                return _lines(getattr(operations, STREAMS[name])(asker, **fields), answer)
            body = await getattr(operations, ANSWERS[name])(asker, **fields)
            return answer.model_validate(body, strict=False)

        return handler


async def _lines(given: AsyncIterator[Any], answer: Any) -> AsyncIterator[Any]:
    async for body in given:
        yield answer.model_validate(body, strict=False)
