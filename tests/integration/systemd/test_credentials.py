from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.systemd.installed import Installed

pytestmark = [pytest.mark.xdist_group("systemd"), pytest.mark.timeout(600)]

# What core does with the two backends, as a program: root makes a key and puts, a unit reads.
_PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from atlasd.contracts.secrets import SecretValue
from atlasd.errors import AtlasError
from atlasd.testing import PlainContext
from atlasd_plugins import secrets_fernet, secrets_systemd

async def main():
    state = Path("/var/lib/atlasd/plugins/tried")
    if sys.argv[1:] == ["prepare"]:
        state.mkdir(parents=True)
        os.chown(state, Path("/var/lib/atlasd").stat().st_uid, -1)
        state.chmod(0o700)
    context = PlainContext(state, config_dir=Path("/etc/atlasd"))
    told = {}
    async with (
        secrets_fernet.open_backend(secrets_fernet.FernetSettings(), context) as store,
        secrets_systemd.open_backend(secrets_systemd.SystemdSettings(), context) as credentials,
    ):
        if sys.argv[1:] == ["prepare"]:
            await store.keygen()
            await store.put("db", SecretValue("from the store"))
        for name, call in {
            "store": lambda: store.get("db"),
            "credential": lambda: credentials.get("shop/db"),
        }.items():
            try:
                told[name] = (await call()).value.text()
            except AtlasError as error:
                told[name] = error.code
        try:
            told["listed"] = [info.name for info in await credentials.list()]
            told["keys"] = [key.source for key in await store.keys()]
        except AtlasError as error:
            told["error"] = error.code
    print(json.dumps(told))

asyncio.run(main())
"""


def told(atlasd: Installed, *properties: str) -> dict[str, Any]:
    """What the program says when a unit of atlasd's user with these properties runs it."""
    done = atlasd.machine.run(
        *("systemd-run", "--quiet", "--wait", "--pipe", "-p", "User=atlasd", "-p", "Group=atlasd"),
        *(word for each in properties for word in ("-p", each)),
        *("/opt/atlasd/bin/python", "/usr/local/lib/secrets-tried"),
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_keys_and_secrets_come_as_credentials(atlasd: Installed) -> None:
    atlasd.machine.write("/usr/local/lib/secrets-tried", _PROGRAM)
    atlasd.machine.write("/etc/credstore/shop.db", "from systemd", 0o600)
    atlasd.machine.run("/opt/atlasd/bin/python", "/usr/local/lib/secrets-tried", "prepare")
    ring = "/etc/atlasd/secrets.key"

    # As `keygen` by root has left it: the daemon's own, and nobody else's.
    owner = atlasd.machine.run("stat", "-c", "%U %a", ring).stdout.split()
    assert owner == ["atlasd", "400"]
    found = told(atlasd, "LoadCredential=shop.db:/etc/credstore/shop.db")
    assert found["store"] == "from the store"
    assert found["credential"] == "from systemd"
    assert found["listed"] == ["shop.db"]
    assert found["keys"] == [f"file {ring}"]

    # Root's alone: the daemon cannot read it, unless systemd hands it over.
    atlasd.machine.run("chown", "root:root", ring)
    found = told(atlasd)
    assert (found["store"], found["credential"]) == ("secret.key", "secret.unavailable")
    found = told(atlasd, f"LoadCredential=secrets.key:{ring}")
    assert found["store"] == "from the store"
    assert found["keys"] == ["credential secrets.key"]
    assert found["listed"] == []
