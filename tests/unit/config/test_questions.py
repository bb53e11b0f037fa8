import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from atlasd.config.load import Config, Offers
from atlasd.config.questions import Questions, with_defaults
from atlasd.config.schema import Settings
from atlasd.config.shape import at
from atlasd.contracts.secrets import Reference, Resolved, Sealed, SecretsPolicy, SecretValue
from atlasd.errors import AtlasError
from tests.unit.config.desk import Desk

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
FILE = """\
[log]
level = "debug"
[services.web]
command = "sleep 1"
start_timeout = "20s"
[services.web.env]
API_TOKEN = "secret://shop/token"
URL = "postgres://app:${secret:shop/db|url}@db/app"
COUNT = "3"
"""


def keeper(
    policy: SecretsPolicy, wanted: Sequence[Reference | Sealed], /
) -> Mapping[Reference | Sealed, Resolved | Exception]:
    """Every secret is its name and `hunter22`."""
    return {
        one: Resolved(
            value=SecretValue(f"hunter22-{getattr(one, 'name', '')}"),
            backend=policy.backend,
            version="v7",
            fetched=NOW,
            stale=True,
        )
        for one in wanted
    }


@pytest.fixture
def questions(desk: Desk) -> Questions:
    desk.resolve = keeper
    desk.write(FILE)
    config = desk.load()

    def of_environment(env: str) -> Config:
        desk.env = env
        return desk.load()

    return Questions(
        lambda: config,
        load=of_environment,
        offers=lambda: Offers(check_types={}, plugin_settings={}),
    )


async def test_what_is_set_is_shown_with_its_places_and_no_secret(questions: Questions) -> None:
    body = await questions.show()
    assert body["settings"]["services"]["web"]["env"] == {
        "API_TOKEN": "secret://shop/token",
        "URL": "postgres://app:${secret:shop/db|url}@db/app",
        "COUNT": "3",
    }
    assert set(body["settings"]) == {"log", "services"}
    assert body["places"]["log.level"].endswith("atlasd.toml:2:9")
    assert "hunter22" not in repr(body)


async def test_defaults_are_written_as_a_file_would_have_them(questions: Questions) -> None:
    body = await questions.show(defaults=True)
    web = body["settings"]["services"]["web"]
    assert web["start_timeout"] == "20s"  # what is set stays
    assert web["restart"]["policy"] == "on-failure"
    assert web["stop"]["timeout"] == "15s"
    assert body["settings"]["host"]["log_budget"] == "1GiB"
    assert body["settings"]["host"]["watch_config"] is True
    assert "ready" not in web
    assert "hunter22" not in repr(body)
    # What is shown would be read, and would mean the same.
    text = (await questions.export(format="toml", defaults=True))["text"]
    assert tomllib.loads(text) == body["settings"]


async def test_a_setting_is_explained(questions: Questions) -> None:
    body = await questions.explain(key="services.web.start_timeout")
    assert (body["value"], body["default"], body["set"]) == ("20s", "1m", True)
    assert body["layer"] == "main file"
    assert body["effect"] == "live"
    assert "duration" in body["expected"]
    body = await questions.explain(key="services.web.critical")
    assert (body["value"], body["set"], body["where"]) == (False, False, "")
    body = await questions.explain(key="services.web")
    assert body["value"]["command"] == "sleep 1"


async def test_a_secret_is_explained_by_its_version_and_age(questions: Questions) -> None:
    body = await questions.explain(key="services.web.env.URL")
    assert body["value"] == "postgres://app:${secret:shop/db|url}@db/app"
    assert body["secrets"] == [
        {
            "reference": "secret://shop/db",
            "backend": "fernet",
            "version": "v7",
            "fetched": NOW,
            "stale": True,
        }
    ]
    assert "hunter22" not in repr(body)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("services.web.comand", "services.web: did you mean 'command'?"),
        ("lgo.level", "did you mean 'log'?"),
        ("services.wbe.command", "services: did you mean 'web'?"),
        ("a..b", "write it dotted"),
    ],
)
async def test_what_nobody_knows_is_refused_with_what_is_near(
    questions: Questions, key: str, hint: str
) -> None:
    with pytest.raises(AtlasError) as error:
        await questions.explain(key=key)
    assert error.value.code == "config.unknown"
    assert hint in error.value.hint


async def test_environments_are_compared_key_by_key(questions: Questions, desk: Desk) -> None:
    desk.write('[log]\nlevel = "error"\n', "environments/staging.toml")
    desk.write("[services.web]\ninstances = 4\n", "environments/production.toml")
    body = await questions.diff(left="production", right="staging")
    found = {one["key"]: one for one in body["differences"]}
    assert set(found) == {"log.level", "services.web.instances"}
    level = found["log.level"]
    assert (level["left"], level["right"]) == ("debug", "error")
    assert level["right_where"].endswith("environments/staging.toml:2:9")
    assert found["services.web.instances"]["right_where"] == ""
    with pytest.raises(AtlasError, match="unknown environment 'stagin'"):
        await questions.diff(left="production", right="stagin")


async def test_secrets_are_revealed_only_by_their_own_operation(questions: Questions) -> None:
    assert "hunter22" not in (await questions.export(format="json"))["text"]
    told = tomllib.loads((await questions.reveal(format="toml"))["text"])
    assert told["services"]["web"]["env"] == {
        "API_TOKEN": "hunter22-shop/token",
        "URL": "postgres://app:hunter22-shop%2Fdb@db/app",
        "COUNT": "3",
    }


async def test_sources_are_in_their_order(questions: Questions) -> None:
    body = await questions.sources()
    names = [layer["name"] for layer in body["layers"]]
    assert names.index("built-in defaults") < names.index("main file") < names.index("command line")
    assert body["environment"] == "production"


async def test_the_schema_knows_what_is_set(questions: Questions) -> None:
    body: Any = await questions.schema()
    assert "watch_config" in repr(body)


def test_every_default_of_the_schema_can_be_shown() -> None:
    found = with_defaults({}, {}, Settings)
    assert {"host", "api", "log", "secrets"} <= set(found)
    assert all(at((section,)) is not None for section in found)
