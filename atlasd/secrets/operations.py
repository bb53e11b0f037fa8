"""What is done when somebody asks about secrets, or changes one: plain values in and out."""

import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import cast

from atlasd.contracts.config import KeyPath
from atlasd.contracts.secrets import (
    CURRENT,
    PREVIOUS,
    STAGES,
    Capability,
    Reference,
    Resolved,
    SecretInfo,
    SecretValue,
    SecretVersion,
)
from atlasd.errors import AtlasError
from atlasd.secrets import bulk
from atlasd.secrets.desk import Asker, Body, Use
from atlasd.secrets.fields import pick
from atlasd.secrets.impact import reached
from atlasd.secrets.keyring import KeyOperations
from atlasd.secrets.rotation import IDLE


class SecretOperations(KeyOperations):
    """Operations on secrets.

    Each method takes who asks and the fields of its request in `atlasd.control.models`, gives the
    body of its answer, and raises `AtlasError` for what is expected to go wrong.
    """

    # --- looking

    async def list(self, asker: Asker, *, prefix: str = "", backend: str = "") -> Body:
        """`secret.list`."""
        del asker
        use = self._use()
        backend = self._demand(use, backend, Capability.LIST)
        found: Sequence[SecretInfo] = await self._call(
            use, backend, lambda store: store.list(prefix), (list, tuple)
        )
        used = {
            (one.backend or use.policy.backend, one.name)
            for references in use.uses.values()
            for one in references
        }
        return {
            "backend": backend,
            "environment": use.policy.environment,
            "secrets": [{**_info(one), "used": (backend, one.name) in used} for one in found],
        }

    async def versions(self, asker: Asker, *, name: str) -> Body:
        """`secret.versions`."""
        del asker
        use = self._use()
        backend, plain = self._named(use, name)
        self._demand(use, backend, Capability.VERSIONS)
        found: Sequence[SecretVersion] = await self._call(
            use, backend, lambda store: store.versions(plain), (list, tuple)
        )
        row = self._rotations.standing(backend, plain) if self._rotations else None
        return {
            "backend": backend,
            "name": plain,
            "versions": [_version(one) for one in found],
            "rotation": row.step if row is not None and row.step != IDLE else "",
            "rotation_error": row.error if row is not None else "",
        }

    async def impact(self, asker: Asker, *, name: str) -> Body:
        """`secret.impact`."""
        del asker
        use = self._use()
        backend, plain = self._named(use, name)
        found = reached(
            backend,
            plain,
            default_backend=use.policy.backend,
            uses=use.uses,
            consumers=use.consumers,
        )
        return {
            "backend": backend,
            "name": plain,
            "reached": [
                {
                    "kind": one.kind,
                    "name": one.name,
                    "keys": [_dotted(key) for key in one.keys],
                    "effect": one.effect,
                }
                for one in found
            ],
        }

    async def check(self, asker: Asker) -> Body:
        """`secret.check`: every secret that the configuration refers to, and the keys."""
        use = self._use()
        uses: dict[Reference, list[KeyPath]] = {}
        for path, references in use.uses.items():
            for one in references:
                uses.setdefault(one, []).append(path)
        answers = await self._engine.resolve(
            use.policy, tuple(uses), consumer="check", actor=asker.actor
        )
        rows = []
        for wanted, answer in answers.items():
            one = cast("Reference", wanted)
            good = isinstance(answer, Resolved)
            rows.append(
                {
                    "reference": str(one),
                    "backend": one.backend or use.policy.backend,
                    "version": answer.version if isinstance(answer, Resolved) else "",
                    "fetched": answer.fetched if isinstance(answer, Resolved) else None,
                    "state": _state(answer),
                    "error": "" if good else str(answer),
                    "hint": answer.hint if isinstance(answer, AtlasError) else "",
                    "keys": [_dotted(key) for key in uses[one]],
                }
            )
        return {
            "environment": use.policy.environment,
            "backend": use.policy.backend,
            "secrets": rows,
            "keys": await self._rings(use),
        }

    # --- values

    async def reveal(
        self, asker: Asker, *, name: str, version: str = "", stage: str = "", purpose: str = "get"
    ) -> Body:
        """`secret.reveal`: past the cache, for a person; written before it is given."""
        use = self._use()
        reference = self._reference(use, name)
        if not version and not stage:
            selector = reference.selector or CURRENT
            version, stage = ("", selector) if selector in STAGES else (selector, "")
        backend = reference.backend or use.policy.backend
        choice = {"version": version} if version else {"stage": stage}
        async with self._entered(use, asker, purpose, backend, reference.name, reads=True) as entry:
            found: SecretVersion = await self._call(
                use, backend, lambda store: store.get(reference.name, **choice), SecretVersion
            )
            entry.version = found.version
        value = found.value
        assert value is not None
        if reference.field:
            value = pick(value, reference.field, reference.name)
        return {**_version(found), "name": reference.name, "backend": backend, **_written(value)}

    async def set(
        self,
        asker: Asker,
        *,
        name: str,
        value: str | None = None,
        base64: str | None = None,
        stage: str = CURRENT,
    ) -> Body:
        """`secret.set`; `value` is text, `base64` anything."""
        use = self._use()
        backend, plain = self._named(use, name)
        given = _read(value, base64)
        self._demand(use, backend, Capability.PUT)
        async with self._entered(use, asker, "set", backend, plain) as entry:
            made: SecretVersion = await self._call(
                use,
                backend,
                lambda store: store.put(plain, given, stage=stage, actor=asker.actor),
                SecretVersion,
            )
            entry.version = made.version
        self._touched(use, backend, plain)
        return {**_version(made), "name": plain, "backend": backend}

    async def rollback(self, asker: Asker, *, name: str, version: str = "") -> Body:
        """`secret.rollback`: the version before, or another one, is current again."""
        use = self._use()
        backend, plain = self._named(use, name)
        self._demand(use, backend, Capability.STAGE)
        async with self._entered(use, asker, "rollback", backend, plain) as entry:
            chosen = version
            if not chosen:
                before: SecretVersion = await self._call(
                    use, backend, lambda store: store.get(plain, stage=PREVIOUS), SecretVersion
                )
                chosen = before.version
            entry.version = chosen
            await self._call(
                use, backend, lambda store: store.stage(plain, chosen, CURRENT), type(None)
            )
        self._touched(use, backend, plain)
        return {"backend": backend, "name": plain, "version": chosen}

    async def delete(
        self, asker: Asker, *, name: str, recovery: float | None = None, force: bool = False
    ) -> Body:
        """`secret.delete`; one that is in use only with `force`."""
        use = self._use()
        backend, plain = self._named(use, name)
        self._demand(use, backend, Capability.DELETE)
        users = (await self.impact(asker, name=name))["reached"]
        if users and not force:
            names = ", ".join(f"{one['kind']} {one['name']}" for one in users[:5])
            raise AtlasError(
                "secret.conflict",
                f"the secret {plain!r} is in use: {names}",
                hint="take the references to it out of the configuration, or delete it with "
                "--force: the next reload and the next start are refused then",
            )
        window = None if recovery is None else timedelta(seconds=recovery)
        async with self._entered(use, asker, "delete", backend, plain):
            info: SecretInfo = await self._call(
                use, backend, lambda store: store.delete(plain, recovery=window), SecretInfo
            )
        self._touched(use, backend, plain)
        return {"backend": backend, **_info(info)}

    async def recover(self, asker: Asker, *, name: str) -> Body:
        """`secret.recover`."""
        use = self._use()
        backend, plain = self._named(use, name)
        self._demand(use, backend, Capability.RECOVER)
        async with self._entered(use, asker, "recover", backend, plain):
            info: SecretInfo = await self._call(
                use, backend, lambda store: store.recover(plain), SecretInfo
            )
        self._touched(use, backend, plain)
        return {"backend": backend, **_info(info)}

    async def refresh(self, asker: Asker, *, name: str, reason: str = "") -> Body:
        """`secret.refresh`: fetched anew, though not more often than its cool-down allows."""
        use = self._use()
        reference = self._reference(use, name)
        backend = reference.backend or use.policy.backend
        async with self._entered(use, asker, "refresh", backend, reference.name) as entry:
            entry.reason = reason
            found = await self._engine.refresh(use.policy, reference)
            entry.version = found.version
        return {
            "backend": backend,
            "name": reference.name,
            "fetched": found.fetched,
            "changed": found.changed,
            "version": found.version,
            "wait_seconds": found.wait,
        }

    # --- many at once

    async def import_(
        self,
        asker: Asker,
        *,
        text: str,
        format: str = "env",
        prefix: str = "",
        overwrite: bool = False,
        backend: str = "",
    ) -> Body:
        """`secret.import`: nothing is put before all of it was looked at."""
        use = self._use()
        backend = self._demand(use, backend, Capability.PUT)
        values = bulk.read(text, format, self._parse_env)
        names = {name: self._named(use, f"{backend}/{prefix}{name}")[1] for name in values}
        rows: list[Body] = []
        todo: list[tuple[str, SecretValue]] = []
        for name, plain in sorted(names.items()):
            value = SecretValue(values[name])
            known = await self._present(use, backend, plain)
            if known is not None and (known == value or not overwrite):
                done = "unchanged" if known == value else "kept"
                rows.append({"name": plain, "done": done})
            else:
                rows.append({"name": plain, "done": "put" if known is None else "replaced"})
                todo.append((plain, value))
        for plain, value in todo:
            encoded = base64.b64encode(value.reveal()).decode()
            await self.set(asker, name=f"{backend}/{plain}", base64=encoded)
        return {"backend": backend, "secrets": rows}

    async def _present(self, use: Use, backend: str, name: str) -> SecretValue | None:
        try:
            found: SecretVersion = await self._call(
                use, backend, lambda store: store.get(name), SecretVersion
            )
        except AtlasError as error:
            if error.code != "secret.not_found":
                raise
            return None
        return found.value

    async def export(
        self,
        asker: Asker,
        *,
        format: str = "json",
        prefix: str = "",
        backend: str = "",
    ) -> Body:
        """`secret.export`: every one of them is written to the audit log."""
        use = self._use()
        backend = self._demand(use, backend, Capability.LIST)
        found: Sequence[SecretInfo] = await self._call(
            use, backend, lambda store: store.list(prefix), (list, tuple)
        )
        values: dict[str, str] = {}
        for one in found:
            if one.deleted is not None:
                continue
            got = await self.reveal(asker, name=f"{backend}/{one.name}", purpose="export")
            if got["value"] is None:
                raise AtlasError(
                    "secret.invalid",
                    f"the secret {one.name!r} is not text",
                    hint="get it alone: `atlasctl secret get --reveal --file PATH`",
                )
            values[one.name.removeprefix(prefix)] = got["value"]
        return {"backend": backend, "count": len(values), "text": bulk.write(values, format)}

    async def rotate(self, asker: Asker, *, name: str, force: bool = False) -> AsyncIterator[Body]:
        """`secret.rotate`: each step when it is done."""
        use = self._use()
        backend, plain = self._named(use, name)
        if self._rotations is None:
            raise AtlasError(
                "core.unreachable",
                "rotating a secret needs the daemon, which goes on with it after a crash",
                hint="start it: `atlasd run`",
            )
        async for done in self._rotations.rotate(backend, plain, actor=asker.actor, force=force):
            yield {
                "backend": backend,
                "name": plain,
                "step": done.step,
                "version": done.version,
            }

    # --- the audit log

    async def audit(
        self, asker: Asker, *, limit: int = 50, name: str = "", action: str = ""
    ) -> Body:
        """`secret.audit`."""
        del asker
        plain = self._named(self._use(), name)[1] if name else ""
        found = await self._in_thread(self._audit.read, limit=limit, name=plain, action=action)
        return {"records": found, "file": str(self._audit.path)}

    async def audit_verify(self, asker: Asker) -> Body:
        """`secret.audit-verify`."""
        del asker
        found = await self._in_thread(self._audit.verify)
        return {
            "records": found.records,
            "last": found.last or None,
            "problems": list(found.problems),
            "file": str(self._audit.path),
        }


def _read(value: str | None, encoded: str | None) -> SecretValue:
    if (value is None) == (encoded is None):
        raise AtlasError("secret.invalid", "one of value and base64 is needed, and only one")
    if value is not None:
        return SecretValue(value)
    assert encoded is not None
    try:
        return SecretValue(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        raise AtlasError("secret.invalid", "what is given in base64 is not base64") from None


def _written(value: SecretValue) -> Body:
    try:
        return {"value": value.text(), "base64": None}
    except ValueError:
        return {"value": None, "base64": base64.b64encode(value.reveal()).decode()}


def _version(found: SecretVersion) -> Body:
    return {
        "version": found.version,
        "stages": list(found.stages),
        "created": found.created,
        "created_by": found.created_by,
        "enabled": found.enabled,
        "key": found.key,
    }


def _info(info: SecretInfo) -> Body:
    return {
        "name": info.name,
        "current": info.current,
        "created": info.created,
        "changed": info.changed,
        "versions": info.versions,
        "deleted": info.deleted,
        "recoverable_until": info.recoverable_until,
    }


def _state(answer: Resolved | Exception) -> str:
    if isinstance(answer, Resolved):
        return "stale" if answer.stale else "ok"
    return answer.code if isinstance(answer, AtlasError) else "internal"


def _dotted(path: KeyPath) -> str:
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text
