"""A backend elsewhere (AWS, played by moto) that does not answer, changes, and revokes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemons import Atlas, atlas, until

PROGRAM = Path(__file__).parents[1] / "plugins" / "moto_program.py"
VALUE = "value-of-the-cloud-4711"

CONFIG = """
[secrets]
backend = "aws"
fresh_for = "{fresh}"
max_stale = "1h"

[secrets.backends.aws]
region = "eu-central-1"
endpoint_url = "{url}"
access_key_id = "test"
secret_access_key = "${{env:CLOUD_KEY}}"
attempts = 1

[services.web]
command = ["sleep", "3600"]
on_change = "swap"
env = {{ ATLAS_TEST_ROOT = "{root}" }}
[services.web.secrets]
TOKEN = "secret://token#password"
"""


class Cloud:
    """moto's server, which can be gone and come back at the same address."""

    def __init__(self) -> None:
        self.port = "0"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), self.port],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "moto's server has not started"
        self.port = self.url.rpartition(":")[2]

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "secretsmanager",
            region_name="eu-central-1",
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def put(self) -> None:
        self.client().create_secret(
            Name="production/token", SecretString=f'{{"password": "{VALUE}"}}'
        )


@contextmanager
def running() -> Iterator[Cloud]:
    cloud = Cloud()
    try:
        yield cloud
    finally:
        cloud.stop()


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    pytest.importorskip("moto")
    with running() as made:
        yield made


@pytest.fixture
def host() -> Iterator[Atlas]:
    with atlas() as made:
        yield made


def configure(host: Atlas, cloud: Cloud, fresh: str = "5m") -> None:
    host.configure(CONFIG.format(url=cloud.url, root=host.root, fresh=fresh))


def state(host: Atlas) -> str:
    found: str = host.client.call("secret.check")["secrets"][0]["state"]
    return found


def verdict(host: Atlas) -> Any:
    return host.client.call("health")["checks"]["atlasd:secrets"][0]


def delivered(host: Atlas) -> str:
    return Path(host.paths.run, "services", "secrets", "web", "current", "TOKEN").read_text()


def kinds(host: Atlas) -> list[str]:
    with host.client.stream("events") as stream:
        return [str(event["kind"]) for event in stream]


def test_an_outage_is_survived_across_a_restart_and_a_revocation_ends_it(
    host: Atlas, cloud: Cloud
) -> None:
    cloud.put()
    configure(host, cloud, fresh="1s")
    daemon = host.up(CLOUD_KEY="test")
    assert delivered(host) == VALUE
    assert state(host) == "ok"

    cloud.stop()
    daemon.kill()
    daemon.wait()
    daemon = host.up(CLOUD_KEY="test")
    until(lambda: state(host) == "stale", "the outage to be noticed")
    assert delivered(host) == VALUE
    assert "secret token of aws" in verdict(host)["output"]
    assert verdict(host)["status"] == "warn"
    for path in Path(host.paths.state).rglob("*"):
        assert not path.is_file() or VALUE.encode() not in path.read_bytes()

    # It is back, and knows the secret no longer: that is an answer.
    cloud.start()
    until(lambda: state(host) == "secret.not_found", "the backend to be asked again")
    until(lambda: "secret-revoked" in kinds(host), "the revocation to be told")
    daemon.kill()
    daemon.wait()
    cloud.stop()
    # Nor does the next outage bring it back.
    again = host.start(CLOUD_KEY="test")
    assert again.wait(120) != 0
    assert "secret://token#password" in host.output()
    assert VALUE not in host.output()


def test_a_secret_that_is_changed_elsewhere_arrives_by_itself(host: Atlas, cloud: Cloud) -> None:
    cloud.put()
    configure(host, cloud, fresh="1s")
    host.up(CLOUD_KEY="test")
    cloud.client().put_secret_value(
        SecretId="production/token", SecretString='{"password": "changed-elsewhere"}'
    )
    until(lambda: delivered(host) == "changed-elsewhere", "the new value to arrive")
    assert "secret-changed" in kinds(host)


def test_two_roles_fetch_it_once_between_them(host: Atlas, cloud: Cloud) -> None:
    cloud.put()
    configure(host, cloud)
    host.start("core", CLOUD_KEY="test")
    fetched = until(lambda: host.client.text("metrics"), "core to answer")
    assert 'atlasd_secret_fetches_total{backend="aws",outcome="done"} 1.0' in fetched
    # What it fetches now, it cannot have from there: it is given what core has just fetched.
    cloud.stop()
    monitoring = host.start("monitoring", CLOUD_KEY="test")
    (record,) = until(lambda: of_monitoring(host), "monitoring to read the secret")
    # On a very slow host it is no longer quite fresh.
    assert record["outcome"] in ("done", "stale")
    assert monitoring.poll() is None


def of_monitoring(host: Atlas) -> list[Any]:
    records = host.client.call("secret.audit")["records"]
    return [record for record in records if record["actor"] == "monitoring"]
