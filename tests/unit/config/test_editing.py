import asyncio
from pathlib import Path
from typing import Any

import pytest

from atlasd.config.editing import EditOperations, Editor, Where, overlaid
from atlasd.config.load import Config, load
from atlasd.config.questions import NOTHING
from atlasd.contracts.secrets import SecretsPolicy, SecretValue
from atlasd.errors import AtlasError
from tests.unit.config.desk import SOURCES, Desk

FILE = """\
# the shop
[services.web]
command = "sleep 1"  # what runs
instances = 2
[services.web.env]
PORT = "80"
"""


class Sealing:
    """Seals by writing down what it was given, and for which place."""

    key = "k"

    async def seal(self, value: SecretValue, *, binding: str, policy: SecretsPolicy) -> str:
        return f"enc:v1:{self.key}:{policy.environment}/{binding}/{value.text()[::-1]}"

    async def unseal(self, text: str, *, binding: str, policy: SecretsPolicy) -> SecretValue:
        place, _, value = text.split(":", 3)[3].rpartition("/")
        assert place == f"{policy.environment}/{binding}"
        return SecretValue(value[::-1])


class Table:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.reloads: list[str] = []
        self.file = desk.write(FILE)
        self.editor = Editor(desk.paths, self.load)
        self.sealing = Sealing()
        self.operations = EditOperations(self.editor, sealing=self.sealing, reload=self.reload)

    def load(self, texts: Any, env: str | None) -> Config:
        return load(
            self.desk.paths,
            overlaid(SOURCES, texts),
            env=env,
            environ=self.desk.environ,
            host=self.desk.host,
            hostname=self.desk.hostname,
        )

    async def reload(self, actor: str) -> dict[str, Any]:
        self.reloads.append(actor)
        return {"generation": 2, "applied": (), "pending": ()}

    def names(self) -> list[str]:
        return sorted(str(p.relative_to(self.desk.etc)) for p in self.desk.etc.rglob("*"))


@pytest.fixture
def table(desk: Desk) -> Table:
    return Table(desk)


async def test_a_setting_is_written_where_it_stands(table: Table) -> None:
    part = table.desk.write("[log]\nlevel = 'info'  # calm\n", "conf.d/log.toml")
    done = await table.operations.set(key="log.level", value="debug", actor="uid:0")
    assert done["file"] == str(part)
    assert part.read_text() == '[log]\nlevel = "debug"  # calm\n'
    assert [(c["key"], c["effect"]) for c in done["changes"]] == [("log.level", "live")]
    assert table.file.read_text() == FILE
    assert table.reloads == []


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("services.web.instances", "3", "instances = 3"),
        ("services.web.env.PORT", "8080", 'PORT = "8080"'),
        ("services.web.critical", "true", "critical = true"),
        ("services.web.command", '["a", "b"]', 'command = ["a", "b"]'),
        ("services.web.start_timeout", "3s", 'start_timeout = "3s"'),
    ],
)
async def test_the_schema_says_of_which_type_a_value_is(
    table: Table, key: str, value: str, line: str
) -> None:
    table.desk.host.programs = ("a", "sleep")
    await table.operations.set(key=key, value=value)
    assert line in table.file.read_text()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("services.web.instances", "many", "expected a whole number"),
        ("services.web.instances", "-1", "expected at least 0"),
        ("services.web.comand", "x", "unknown key"),
        ("services.web.requires", '["nobody"]', "expected the name of a service"),
        ("log.level", "loud", "log.level: expected"),
    ],
)
async def test_what_is_not_valid_is_not_written(
    table: Table, key: str, value: str, said: str
) -> None:
    with pytest.raises(AtlasError, match=said) as error:
        await table.operations.set(key=key, value=value)
    assert error.value.code == "config.invalid"
    assert table.file.read_text() == FILE
    assert table.names() == ["atlasd.toml"]


async def test_what_a_higher_layer_beats_is_written_only_by_force(table: Table) -> None:
    table.desk.write('[log]\nlevel = "error"\n', "environments/production.toml")
    given: dict[str, Any] = {"key": "log.level", "value": "debug", "file": "atlasd.toml"}
    with pytest.raises(AtlasError, match="which has the last word") as error:
        await table.operations.set(**given)
    assert error.value.code == "config.conflict"
    assert table.file.read_text() == FILE
    done = await table.operations.set(**given, force=True)
    assert "environments/production.toml:2:9" in done["warnings"][0]
    assert table.load({}, None).log.level == "error"


async def test_a_variable_that_beats_the_file_is_named(table: Table) -> None:
    table.desk.environ["ATLASD__LOG__LEVEL"] = "error"
    with pytest.raises(AtlasError, match="ATLASD__LOG__LEVEL too, which has the last word"):
        await table.operations.set(key="log.level", value="debug")


async def test_the_file_of_an_environment_is_made_and_vetted_for_it(table: Table) -> None:
    done = await table.operations.set(key="log.level", value="debug", env="staging")
    assert done["file"] == f"{table.desk.etc}/environments/staging.toml"
    assert table.load({}, "staging").log.level == "debug"
    assert table.load({}, None).log.level == "info"


@pytest.mark.parametrize("name", ["prodution", "../x", "zoo"])
async def test_an_environment_that_nobody_knows_is_not_made_by_the_way(
    table: Table, name: str
) -> None:
    with pytest.raises(AtlasError, match="known environments: development, production") as error:
        await table.operations.set(key="log.level", value="debug", env=name)
    assert error.value.code == "config.environment"
    assert "../x" not in error.value.hint
    assert table.names() == ["atlasd.toml"]


async def test_a_list_is_added_to_by_command(table: Table) -> None:
    table.desk.write('[services.cache]\ncommand = "sleep 1"\n', "conf.d/cache.toml")
    await table.operations.set(
        key="services.web.requires+", value='["cache"]', file="conf.d/web.toml"
    )
    loaded = table.load({}, None)
    assert loaded.data["services"]["web"]["requires"] == ["cache"]


async def test_a_file_that_was_made_for_nothing_does_not_stay(table: Table) -> None:
    with pytest.raises(AtlasError, match=r"log\.level: expected"):
        await table.operations.set(key="log.level", value="loud", file="conf.d/new.toml")
    assert table.names() == ["atlasd.toml", "conf.d"]


@pytest.mark.parametrize("file", ["/etc/passwd", "../x.toml", "conf.d/x.yaml", "other.toml"])
async def test_only_files_of_the_configuration_are_written(table: Table, file: str) -> None:
    with pytest.raises(AtlasError) as error:
        await table.operations.set(key="log.level", value="debug", file=file)
    assert error.value.code in ("config.unknown", "config.conflict")
    assert table.names() == ["atlasd.toml"]


async def test_a_setting_is_removed_and_what_is_below_holds(table: Table) -> None:
    part = table.desk.write("[services.web]\ninstances = 7\n", "conf.d/web.toml")
    done = await table.operations.unset(key="services.web.instances")
    assert done["file"] == str(part)
    assert "instances" not in part.read_text()
    assert "atlasd.toml:4:13" in done["warnings"][0]
    assert [(c["old"], c["new"]) for c in done["changes"]] == [(7, 2)]
    with pytest.raises(AtlasError, match=r"services\.web\.nice does not stand in this file"):
        await table.operations.unset(key="services.web.nice")
    with pytest.raises(AtlasError, match=r"services\.web\.command: expected"):
        await table.operations.unset(key="services.web.command")


async def test_broken_files_can_be_mended_by_command(table: Table) -> None:
    table.file.write_text(FILE.replace("instances = 2", "instances = 'two'"))
    done = await table.operations.set(key="services.web.instances", value="2")
    assert table.file.read_text() == FILE
    assert "not valid before" in done["warnings"][0]
    table.file.write_text("[log\n")
    with pytest.raises(AtlasError, match=r"atlasd\.toml: the file is no TOML") as error:
        await table.operations.set(key="log.level", value="debug")
    assert error.value.code == "config.invalid"


async def test_an_editor_that_was_quicker_is_not_written_over(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = table.load

    def racing(texts: Any, env: str | None) -> Config:
        found = real(texts, env)
        if texts:
            table.file.write_text("# theirs\n" + FILE)
        return found

    monkeypatch.setattr(table.editor, "_load", racing)
    with pytest.raises(AtlasError, match="changed it meanwhile") as error:
        await table.operations.set(key="log.level", value="debug")
    assert error.value.code == "config.conflict"
    assert table.file.read_text() == "# theirs\n" + FILE


async def test_writers_at_the_same_time_lose_nothing(table: Table) -> None:
    await asyncio.gather(
        *(table.operations.set(key=f"services.web.env.V{n}", value=str(n)) for n in range(8))
    )
    env = table.load({}, None).settings.services["web"].env
    assert {name: env[name] for name in env if name != "PORT"} == {
        f"V{n}": str(n) for n in range(8)
    }


async def test_a_value_is_encrypted_for_its_place_and_back(table: Table) -> None:
    await table.operations.set(key="services.web.env.API_TOKEN", value="hunter22")
    before = table.file.read_text()
    table.desk.write("", "environments/production.toml")
    await table.operations.encrypt(key="services.web.env.API_TOKEN")
    text = table.file.read_text()
    assert "hunter22" not in text
    assert 'enc:v1:k:production/services.web.env.API_TOKEN/22retnuh"' in text
    table.sealing.key = "k2"  # as after a keygen
    await table.operations.encrypt(key="services.web.env.API_TOKEN")
    anew = table.file.read_text()
    assert anew == text.replace("enc:v1:k:", "enc:v1:k2:")
    await table.operations.encrypt(key="services.web.env.API_TOKEN", value="other")
    assert "/rehto" in table.file.read_text()
    await table.operations.encrypt(key="services.web.env.API_TOKEN", value="hunter22")
    done = await table.operations.decrypt(key="services.web.env.API_TOKEN")
    assert table.file.read_text() == before
    assert "plain text" in done["warnings"][0]
    with pytest.raises(AtlasError, match="is not encrypted"):
        await table.operations.decrypt(key="services.web.env.API_TOKEN")


async def test_a_reference_is_not_encrypted(table: Table) -> None:
    await table.operations.set(key="services.web.env.API_TOKEN", value="${?env:TOKEN}")
    with pytest.raises(AtlasError, match="is a reference already"):
        await table.operations.encrypt(key="services.web.env.API_TOKEN")


async def test_a_value_is_encrypted_for_the_environment_that_is_named(table: Table) -> None:
    await table.operations.encrypt(
        key="services.web.env.API_TOKEN", value="hunter22", env="staging"
    )
    text = (table.desk.etc / "environments" / "staging.toml").read_text()
    assert "enc:v1:k:staging/services.web.env.API_TOKEN/" in text


async def test_what_is_no_text_is_not_encrypted(table: Table) -> None:
    with pytest.raises(AtlasError, match=r"services\.web\.instances is no text"):
        await table.operations.encrypt(key="services.web.instances")
    with pytest.raises(AtlasError, match=r"services\.web\.env\.X does not stand"):
        await table.operations.encrypt(key="services.web.env.X")


async def test_it_takes_over_at_once_if_that_is_asked(table: Table) -> None:
    done = await table.operations.set(key="log.level", value="debug", reload=True, actor="uid:7")
    assert done["reloaded"]["generation"] == 2
    assert table.reloads == ["uid:7"]


def test_without_a_configuration_nothing_is_made(table: Table, tmp_path: Path) -> None:
    table.file.unlink()
    table.desk.etc.rmdir()
    with pytest.raises(AtlasError, match="there is no configuration"):
        table.editor.set(("log", "level"), "debug", Where())
    assert not table.desk.etc.exists()
    assert NOTHING is not None
