"""An existing application's configuration, as it is found: taken over, delivered, changed back."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from atlasd.errors import AtlasError
from tests.integration.daemons import Atlas, atlas, until

LEGACY = Path(__file__).parent / "legacy_shop"
PASSPHRASE = "a passphrase for this test alone"
SECRETS = {
    "DB_PASSWORD": 'p@ss"w0rd with $dollar and \\backslash',
    "DATABASE_URL": "postgres://shop:s3cr%74t@db.internal:5432/shop?sslmode=require",
    "STRIPE_SECRET_KEY": "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
}
PROGRAM = """
import os, shutil, signal, sys
out = sys.argv[1]
def take(*_):
    shutil.copy(os.environ["SETTINGS_FILE"], out + ".new")
    os.chmod(out + ".new", 0o600)
    os.rename(out + ".new", out)
signal.signal(signal.SIGHUP, take)
take()
while True:
    signal.pause()
"""


def sourced(path: Path) -> dict[str, str]:
    """What the file means to the program that has read it so far."""
    done = subprocess.run(
        ["/bin/bash", "--norc", "--noprofile", "-c", 'set -a; . "$1"; exec env -0', "-", path],
        capture_output=True, check=True, env={},
    )  # fmt: skip
    pairs = (one.split("=", 1) for one in done.stdout.decode().split("\0") if one)
    return {name: value for name, value in pairs if name not in ("PWD", "SHLVL", "_")}


@pytest.fixture
def house() -> Iterator[Atlas]:
    """A root folder of its own."""
    with atlas() as found:
        yield found


@pytest.fixture
def shop(house: Atlas, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The application's folder, as it was found."""
    monkeypatch.setenv("ATLASD_SECRETS_PASSPHRASE", PASSPHRASE)
    folder = house.root / "srv"
    shutil.copytree(LEGACY, folder)
    house.configure("")
    return folder


def take_over(house: Atlas, shop: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    names = ("shop.env", "base.yaml", "production.yaml", "routing.json")
    return subprocess.run(
        [sys.executable, "-m", "atlasd", "import", *(str(shop / name) for name in names),
         "--out", str(shop / "new"), "--name", "shop", "--root", str(house.root), *more],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_it_is_taken_over_delivered_changed_and_changed_back(house: Atlas, shop: Path) -> None:
    before = {path.name: path.read_bytes() for path in shop.iterdir()}
    done = take_over(house, shop)
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert "base.yaml:5:9: shop.open: on is true, as YAML 1.1 reads it" in told
    assert "base.yaml:6:12: shop.opening: 8:30 is the number 510, to the base of 60" in told
    assert "base.yaml:7:10: shop.umask: 0022 is octal, 18" in told
    assert "production.yaml:6:10: limits.burst: null is left out" in told
    assert 'routing.json:4:44: routing.paths."/static/*": null is left out' in told
    assert "SHOP_WORKERS again, which line 7 has set" in told
    assert {path.name: path.read_bytes() for path in shop.iterdir() if path.is_file()} == before

    new = {path.name: path.read_text() for path in (shop / "new").iterdir()}
    assert sorted(new) == ["base.toml", "production.toml", "routing.toml", "shop.toml"]
    for value in SECRETS.values():
        assert value not in told
        assert all(value not in text for text in new.values())
    base = yaml.safe_load((shop / "base.yaml").read_text())
    assert tomllib.loads(new["base.toml"]) == base
    flat = tomllib.loads(new["shop.toml"])
    variables = sourced(shop / "shop.env")
    assert {name: SECRETS.get(name, value) for name, value in flat.items()} == variables
    assert "# --- database\nDB_HOST" in new["shop.toml"]

    seen, environ = house.root / "seen.json", house.root / "environ"
    (shop / "program.py").write_text(PROGRAM)
    house.configure(configuration(shop, seen, environ))
    house.up()
    house.wait_state("web", "running")
    given: dict[str, Any] = until(lambda: json.loads(seen.read_text()), "the settings")
    assert given["shop"] == {**base["shop"], "name": "The Shop, production"}
    assert given["limits"] == {"body": 1_000_000, "rate": 500}
    assert given["since"] == "2019-04-01"
    assert {name: given[name] for name in variables} == variables
    (pid,) = house.pids("web")
    held = Path(f"/proc/{pid}/environ").read_bytes().decode()
    assert not any(value in held for value in SECRETS.values())

    # The old program, which knows nothing of all this, finds every variable that it knows.
    old = until(lambda: environ.exists() and environ.read_bytes(), "the old names")
    pairs = dict(one.split("=", 1) for one in old.decode().split("\0") if one)
    assert {name: pairs.get(name) for name in variables} == variables

    production = shop / "new" / "production.toml"
    text = production.read_text()
    production.write_text(text.replace("rate = 500", 'rate = 0\nrtae = "x"'))
    with pytest.raises(AtlasError) as refused:
        house.client.call("config.reload")
    said = refused.value.message
    assert "limits.rate: expected at least 1, got 0" in said
    assert "limits.rtae: unknown key" in said
    assert json.loads(seen.read_text())["limits"]["rate"] == 500

    production.write_text(text.replace("rate = 500", "rate = 750"))
    house.client.call("config.reload")
    until(lambda: json.loads(seen.read_text())["limits"]["rate"] == 750, "the change")
    assert house.pids("web") == [pid]

    house.client.call("config.rollback")
    until(lambda: json.loads(seen.read_text())["limits"]["rate"] == 500, "the way back")
    assert production.read_text() == text
    assert house.pids("web") == [pid]

    shown = house.client.call("settings.show", name="shop")
    places = {one["key"]: one["where"] for one in shown["settings"]}
    assert places["limits.rate"].startswith(f"{production}:")
    assert not any(value in json.dumps(shown) for value in SECRETS.values())
    rendered = house.client.call("settings.render", service="web")
    assert "secret://shop/db_password" in rendered["files"][0]["content"]
    revealed = house.client.call("settings.reveal", service="web")
    assert json.loads(revealed["files"][0]["content"]) == given
    assert not any(value in house.output() for value in SECRETS.values())


def configuration(shop: Path, seen: Path, environ: Path) -> str:
    new = shop / "new"
    return f"""
[settings.shop]
files = ["{new}/base.toml", "{new}/{{environment}}.toml", "{new}/routing.toml", "{new}/shop.toml"]
schema = "{shop}/schema.json"

[settings.old]
files = ["{new}/shop.toml"]
variables = {{ http_proxy = "http_proxy" }}

[services.web]
command = ["{sys.executable}", "{shop}/program.py", "{seen}"]
settings = ["shop"]
reload = {{ signal = "HUP" }}
on_change = "reload"

[services.web.settings_file]
path = "shop.json"
check = ["{sys.executable}", "-m", "json.tool", "{{file}}"]

[services.old]
command = ["sh", "-c", "env -0 >{environ}.new && mv {environ}.new {environ}; exec sleep 600"]
settings = ["old"]
"""


def test_without_a_key_it_says_what_to_do_first_and_changes_nothing(
    house: Atlas, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATLASD_SECRETS_PASSPHRASE")
    done = take_over(house, shop)
    assert done.returncode != 0
    assert "there is no key" in done.stderr
    assert "atlasctl secret keygen" in done.stderr
    assert not (shop / "new").exists()
    kept = take_over(house, shop, "--secrets", "keep", "--json")
    assert kept.returncode == 0, kept.stderr
    assert json.loads(kept.stdout)["done"] is True
    assert "STRIPE_SECRET_KEY" in (shop / "new" / "shop.toml").read_text()
