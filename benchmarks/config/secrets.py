"""Secrets: reads a second from the cache, and the time that new keys take for 10,000 secrets.

    python -m benchmarks.config.secrets [--secrets 10000] [--seconds 2]

The real engine over the real local store (fernet), through the guard that plugins are called by,
in a scratch folder. A read from the cache is what a reload costs for each reference; one "past the
cache" decrypts. Re-wrapping opens and seals the data key of every secret, and each is durable.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from atlasd.contracts.secrets import (
    KeyProgress,
    KeyRing,
    Reference,
    SecretsPolicy,
    SecretStore,
    SecretValue,
    SecretVersion,
)
from atlasd.daemon.ground import offers, plugins
from atlasd.daemon.secrets import Vault
from atlasd.paths import find
from atlasd.secrets.engine import Engine
from atlasd.secrets.keyring import REWRAP_LIMIT

AT_ONCE = 500
"""References of one reading."""


def ring(store: SecretStore) -> KeyRing:
    assert isinstance(store, KeyRing)
    return store


async def put(engine: Engine, policy: SecretsPolicy, count: int) -> float:
    """Fill the store; seconds."""
    await engine.backends.call(policy, "fernet", lambda store: ring(store).keygen(), expect=object)
    begun = time.perf_counter()

    async def all_of_them(store: SecretStore) -> int:
        await asyncio.gather(
            *(store.put(f"app/secret-{n}", SecretValue(f"value {n}" * 4)) for n in range(count))
        )
        return count

    await engine.backends.call(policy, "fernet", all_of_them, expect=int, limit=REWRAP_LIMIT)
    return time.perf_counter() - begun


async def cached(engine: Engine, policy: SecretsPolicy, seconds: float) -> float:
    """Reads a second, `AT_ONCE` in each round."""
    wanted = [Reference(name=f"app/secret-{n}") for n in range(AT_ONCE)]
    answers = await engine.resolve(policy, wanted, consumer="benchmark", actor="benchmark")
    assert all(not isinstance(answer, Exception) for answer in answers.values())
    rounds = 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        await engine.resolve(policy, wanted, consumer="benchmark", actor="benchmark")
        rounds += 1
    return rounds * AT_ONCE / (time.perf_counter() - begun)


async def decrypted(engine: Engine, policy: SecretsPolicy, seconds: float, count: int) -> float:
    """Reads a second of the store itself."""
    done = 0
    begun = time.perf_counter()

    async def one(store: SecretStore) -> SecretVersion:
        return await store.get(f"app/secret-{done % count}")

    async def several(store: SecretStore) -> int:
        nonlocal done
        while time.perf_counter() - begun < seconds:
            await one(store)
            done += 1
        return done

    await engine.backends.call(policy, "fernet", several, expect=int, limit=REWRAP_LIMIT)
    return done / (time.perf_counter() - begun)


async def rewrapped(engine: Engine, policy: SecretsPolicy) -> tuple[float, KeyProgress]:
    """Seconds for a new key, with everything wrapped by it and the old one dropped."""
    begun = time.perf_counter()
    await engine.backends.call(policy, "fernet", lambda store: ring(store).keygen(), expect=object)
    done = await engine.backends.call(
        policy,
        "fernet",
        lambda store: ring(store).rotate_keys(lambda _progress: None),
        expect=KeyProgress,
        limit=REWRAP_LIMIT,
    )
    return time.perf_counter() - begun, done


async def measure(vault: Vault, policy: SecretsPolicy, count: int, seconds: float) -> None:
    async def of(work: Callable[[Engine], Awaitable[float]]) -> float:
        return await vault.run(work)

    took = await of(lambda engine: put(engine, policy, count))
    print(f"put                  {count / took:>12,.0f} a second, each durable")
    rate = await of(lambda engine: cached(engine, policy, seconds))
    print(f"read from the cache  {rate:>12,.0f} a second, {AT_ONCE} at once")
    rate = await of(lambda engine: decrypted(engine, policy, seconds, count))
    print(f"read past the cache  {rate:>12,.0f} a second, one after the other")
    took, done = await vault.run(lambda engine: rewrapped(engine, policy))
    print(
        f"new key              {took:>12.2f} s for {done.total:,} secrets, "
        f"{done.total / took:,.0f} a second; keys dropped: {len(done.retired)}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secrets", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args(arguments)
    if options.secrets < AT_ONCE:
        parser.error(f"--secrets: at least {AT_ONCE}, which are read at once")
    folder = Path(tempfile.mkdtemp(prefix="atlasd-secrets-"))
    try:
        paths = find(root=str(folder))
        paths.prepare()
        host = plugins(paths, [])
        known = offers(host).secret_backends
        policy = SecretsPolicy(
            environment="production", backends={"fernet": ("fernet", known["fernet"].settings())}
        )
        vault = Vault(host, paths, "benchmark", keeps=False)
        asyncio.run(measure(vault, policy, options.secrets, options.seconds))
        vault.close()
        host.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
