"""`atlasd import`: existing configuration taken over, with this host's plugins and store."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from atlasd import logs
from atlasd.config import files, literal
from atlasd.config.files import Sources
from atlasd.config.load import load
from atlasd.contracts.config import Layer
from atlasd.contracts.secrets import SecretsPolicy, SecretStore, SecretValue, SecretVersion
from atlasd.daemon.ground import offers, plugins, sources
from atlasd.daemon.secrets import Vault
from atlasd.errors import AtlasError
from atlasd.paths import Paths
from atlasd.secrets.audit import Entry
from atlasd.settings.legacy import report
from atlasd.settings.legacy.carry import carry_out
from atlasd.settings.legacy.plan import Wanted, plan

T = TypeVar("T")

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class _References:
    """The rules of references, as the taking over asks for them."""

    def escape(self, text: str) -> str | None:
        return literal.escape(text)

    def meaning(self, text: str, secrets: Mapping[str, str]) -> str:
        return literal.meaning(text, secrets)


class _Kept:
    """The default store of secrets of the environment; every use is entered in the audit log."""

    def __init__(self, vault: Vault, policy: SecretsPolicy) -> None:
        self._vault = vault
        self._policy = policy

    def get(self, name: str) -> str | None:
        try:
            found = self._call(lambda store: store.get(name), "get", name)
        except AtlasError as error:
            if error.code == "secret.not_found":
                return None
            raise
        assert found.value is not None
        return found.value.text()

    def put(self, name: str, value: str) -> None:
        actor = f"uid:{os.getuid()}"
        self._call(lambda store: store.put(name, SecretValue(value), actor=actor), "set", name)

    def drop(self, name: str) -> None:
        from datetime import timedelta

        async def work(store: SecretStore) -> SecretVersion:
            await store.delete(name, recovery=timedelta(0))
            return SecretVersion(name=name, version="")

        self._call(work, "delete", name)

    def _call(
        self, work: Callable[[SecretStore], Awaitable[SecretVersion]], action: str, name: str
    ) -> SecretVersion:
        policy = self._policy

        async def call() -> SecretVersion:
            async def within(engine: Any) -> SecretVersion:
                outcome, version = "done", ""
                try:
                    found: SecretVersion = await engine.backends.call(
                        policy, policy.backend, work, expect=SecretVersion
                    )
                    version = found.version
                except AtlasError as error:
                    outcome = error.code
                    raise
                finally:
                    if action != "get" or outcome == "done":
                        entry = Entry(
                            action=action, name=name, backend=policy.backend, version=version,
                            environment=policy.environment, actor=f"uid:{os.getuid()}",
                            pid=os.getpid(), consumer="import", outcome=outcome,
                        )  # fmt: skip
                        await engine.enter(policy, [entry])
                return found

            return await self._vault.run(within)

        return asyncio.run(call())


def take_over(
    *,
    paths: Paths,
    env: str | None,
    files_wanted: tuple[Path, ...],
    out: Path,
    options: Mapping[str, Any],
    force: bool,
    dry_run: bool,
) -> tuple[list[str], dict[str, Any]]:
    """Take over existing files; the report for people and for programs. Raises `AtlasError`."""
    logs.configure(role="import", level="error")
    host = plugins(paths, [])
    known = Sources(sources(host))

    def parse(text: str, origin: str, name: str, dialect: str) -> Layer:
        source = known.named(name)
        if source is None:
            raise AtlasError("plugin.unknown", f"there is no configuration source {name!r}")
        return files.parse(text, origin, source, dialect=dialect, variables={})

    wanted = Wanted(files=files_wanted, out=out, **options)
    references = _References()
    taken = plan(wanted, parse, references)
    name = _set_name(wanted)
    if not dry_run:
        vault = Vault(host, paths, "import")
        try:
            store = None
            if any(one.secrets for one in taken):
                store = _Kept(vault, _policy(paths, host, env))
            carry_out(taken, store, parse, references, force=force)
        finally:
            vault.close()
    told = report.lines(taken, done=not dry_run)
    told += ["", "to give a service these settings:", "", report.declaration(taken, name)]
    return told, report.body(taken, name, done=not dry_run)


def _policy(paths: Paths, host: Any, env: str | None) -> SecretsPolicy:
    try:
        return load(paths, sources(host), env=env, offers=offers(host)).secrets
    except AtlasError as error:
        raise AtlasError(
            error.code,
            f"where secrets are kept is not known: {error.message}",
            hint="mend or write the configuration first, or leave them: --secrets keep",
        ) from None


def _set_name(wanted: Wanted) -> str:
    """A name for the set of settings, made of what is known."""
    for text in (wanted.name, wanted.out.stem, wanted.out.parent.name):
        found = _NAME.search(text.lower())
        if found is not None:
            return found[0]
    return "app"
