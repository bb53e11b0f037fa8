"""Settings of an application through the whole load: files, layers, types, secrets, delivery."""

import base64
import json
import os
import stat
import tomllib
from pathlib import Path

import pytest

from atlasd.errors import AtlasError
from tests.unit.settings.shop import WEB, Shop

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["db"],
    "properties": {
        "name": {"type": "string"},
        "debug": {"type": "boolean"},
        "workers": {"type": "integer", "minimum": 1},
        "hosts": {"type": "array", "items": {"type": "string"}},
        "db": {
            "type": "object",
            "required": ["host"],
            "additionalProperties": False,
            "properties": {
                "host": {"type": "string"},
                "port": {"type": "integer"},
                "password": {"type": "string", "minLength": 4},
            },
        },
    },
}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    desk = Shop.at(tmp_path)
    desk.write("base.toml", 'name = "shop"\nworkers = 2\n[db]\nhost = "localhost"\nport = 5432\n')
    desk.write("schema.json", SCHEMA)
    return desk


SET = '[settings.shop]\nfiles = ["base.toml", "-{environment}.toml", "-shop.env"]\n'


def test_a_service_gets_its_settings_as_variables(shop: Shop) -> None:
    assert shop.variables(SET + WEB) == {
        "NAME": "shop", "WORKERS": "2", "DB_HOST": "localhost", "DB_PORT": "5432"
    }  # fmt: skip
    prefixed = shop.variables(SET + 'env_prefix = "SHOP_"\n' + WEB)
    assert prefixed["SHOP_DB_HOST"] == "localhost"


def test_the_environments_file_beats_the_base_and_values_beat_both(shop: Shop) -> None:
    shop.write("staging.toml", 'workers = 4\n[db]\nhost = "staging-db"\n')
    shop.env = "staging"
    found = shop.variables(SET + "[settings.shop.values]\nworkers = 8\n" + WEB)
    assert found["WORKERS"] == "8"
    assert found["DB_HOST"] == "staging-db"
    applied = shop.applied(SET + "[settings.shop.values]\nworkers = 8\n" + WEB)
    ready = applied.sets["shop"]
    assert str(ready.layer.where(("workers",))).endswith("atlasd.toml:4:11")
    assert [str(p).rpartition("/")[2] for p in ready.shadowed(("workers",))] == [
        "base.toml:2:11", "staging.toml:1:11"
    ]  # fmt: skip


def test_what_was_read_and_what_may_appear_is_known(shop: Shop) -> None:
    config = shop.load(SET + 'schema = "schema.json"\n' + WEB)
    names = [Path(file).name for file in config.files]
    assert names == ["atlasd.toml", "schema.json", "base.toml"]
    awaited = [Path(file).name for file in config.awaited]
    assert awaited[:2] == ["production.toml", "shop.env"]
    assert "atlasd.env" in awaited[2:]


def test_variables_of_a_file_are_typed_by_the_schema_and_keep_their_names(shop: Shop) -> None:
    shop.write(
        "shop.env",
        'DEBUG=yes\nDB_PORT=6000\nWORKERS=007\nHOSTS=["a", "b"]\nDB__HOST=db1\n',
    )
    text = SET + 'schema = "schema.json"\n' + WEB
    ready = shop.applied(text).sets["shop"]
    assert ready.data == {
        "name": "shop", "debug": True, "workers": 7, "hosts": ["a", "b"],
        "db": {"host": "db1", "port": 6000},
    }  # fmt: skip
    # An application that reads DEBUG=yes today reads it tomorrow.
    found = shop.variables(text)
    assert found["DEBUG"] == "yes"
    assert found["WORKERS"] == "007"
    assert found["DB__HOST"] == found["DB_HOST"] == "db1"
    assert found["HOSTS"] == '["a", "b"]'


def test_an_old_name_follows_when_a_higher_layer_has_another_value(shop: Shop) -> None:
    shop.write("shop.env", "DB_PORT=6000\nSENTRY=off\n")
    found = shop.variables(
        SET + 'env_prefix = "SHOP_"\n[settings.shop.values.db]\nport = 7000\n' + WEB
    )
    assert found["DB_PORT"] == found["SHOP_DB_PORT"] == "7000"
    assert found["SENTRY"] == found["SHOP_SENTRY"] == "off"


def test_without_a_schema_text_takes_the_type_of_what_it_replaces(shop: Shop) -> None:
    shop.write("shop.env", "WORKERS=5\nNAME=5\n")
    data = shop.applied(SET + WEB).sets["shop"].data
    assert data["workers"] == 5
    assert data["name"] == "5"


def test_declared_variables_lead_both_ways(shop: Shop) -> None:
    shop.write("shop.env", "PGHOST=pg1\n")
    text = SET + '[settings.shop.variables]\nPGHOST = "db.host"\nPGPORT = "db.port"\n' + WEB
    found = shop.variables(text)
    assert found["PGHOST"] == found["DB_HOST"] == "pg1"
    assert found["PGPORT"] == "5432"


def test_a_declared_variable_of_no_setting_is_warned_of(shop: Shop) -> None:
    text = SET + '[settings.shop.variables]\nPGHOST = "db.hots"\n' + WEB
    (said,) = shop.says(text)
    assert said == (
        "atlasd.toml:3:16: warning: settings.shop.variables.PGHOST: there is no setting db.hots, "
        "so PGHOST is not set; did you mean 'db.host'?"
    )


def test_secrets_are_filled_in_and_nothing_shows_them(shop: Shop) -> None:
    shop.secrets = {"db": "hunter22", "port": "6432"}
    shop.write("shop.env", "DB_PORT=secret://port\nURL=pg://u:${secret:db|url}@h\n")
    schema = json.loads(json.dumps(SCHEMA))
    schema["properties"]["URL"] = {"type": "string"}
    shop.write("schema.json", schema)
    text = (
        SET + 'schema = "schema.json"\n[settings.shop.values.db]\npassword = "secret://db"\n' + WEB
    )
    ready = shop.applied(text).sets["shop"]
    assert ready.data["db"] == {"host": "localhost", "port": 6432, "password": "hunter22"}
    assert ready.shown["db"]["password"] == "secret://db"
    assert ready.shown["db"]["port"] == "secret://port"
    assert ready.shown["URL"] == "pg://u:${secret:db|url}@h"
    assert "hunter22" not in repr(ready)
    spec = shop.spec(text)
    secret = {one.name: one.secret for one in spec.deliveries}
    assert secret == {
        "NAME": False, "WORKERS": False, "DB_HOST": False, "DB_PORT": True, "DB_PASSWORD": True,
        "URL": True,
    }  # fmt: skip
    assert {(one.name, one.value) for one in spec.secrets} >= {("db", "hunter22"), ("port", "6432")}
    assert "hunter22" not in repr(spec)
    assert {known.value for known in shop.load(text).known} >= {"hunter22", "6432"}


def test_without_asking_for_secrets_the_rest_is_still_validated(shop: Shop) -> None:
    shop.resolving = False
    text = SET + 'schema = "schema.json"\n[settings.shop.values.db]\npassword = "secret://db"\n'
    assert shop.says(text + WEB) == []
    shop.write("production.toml", "workers = 0\n")
    assert shop.says(text + WEB) == [
        "production.toml:1:11: workers: expected at least 1, got 0; it shadows 2 (base.toml:2:11)"
    ]
    shop.write("production.toml", "")
    assert shop.spec(text + WEB).deliveries == ()


def test_an_unknown_secret_is_told_where_it_is_named(shop: Shop) -> None:
    shop.write("production.toml", '[db]\npassword = "secret://nothing"\n')
    assert shop.says(SET + WEB) == [
        "production.toml:2:12: db.password: secret://nothing: no secret nothing"
    ]


def test_everything_that_is_wrong_is_told_at_once_with_its_place(shop: Shop) -> None:
    shop.write("production.toml", 'workres = 3\nworkers = 0\nhosts = ["a", 5]\n[db]\nport = 1.5\n')
    shop.write("shop.env", "DEBUG=maybe\n")
    assert shop.says(SET + 'schema = "schema.json"\n' + WEB) == [
        "production.toml:1:1: workres: unknown key; did you mean 'workers'?",
        "production.toml:2:11: workers: expected at least 1, got 0; it shadows 2 (base.toml:2:11)",
        "production.toml:3:15: hosts[1]: expected a string, got 5",
        (
            "production.toml:5:8: db.port: expected a whole number, got 1.5; it shadows 5432 "
            "(base.toml:5:8)"
        ),
        'shop.env:1:1: debug: expected true or false, got "maybe"',
    ]


MISTAKES = [
    (
        '[settings.shop]\nfiles = ["bsae.toml"]\n' + WEB,
        (
            "atlasd.toml:2:10: settings.shop.files: expected a file that exists, got bsae.toml; "
            'write "-bsae.toml" if it need not exist'
        ),
    ),
    (
        '[settings.shop]\nfiles = ["base.ini7"]\n' + WEB,
        "base.ini7: no plugin reads files of this kind; known endings: .json, .toml and .env",
    ),
    (
        SET + 'schema = "schmea.json"\n' + WEB,
        "atlasd.toml:3:10: settings.shop.schema: schmea.json: there is no such file",
    ),
    (
        SET + 'python = "/usr/bin/python3"\n' + WEB,
        "atlasd.toml:3:1: settings.shop.python: means nothing without a pydantic model",
    ),
    (
        SET + 'env_prefix = "2-"\n' + WEB,
        (
            "atlasd.toml:3:14: settings.shop.env_prefix: expected letters, digits and _, no digit "
            'first, got "2-"; as in "SHOP_"'
        ),
    ),
    (
        SET + '[settings.shop.values]\na = "secret://nothing"\n' + WEB,
        "atlasd.toml:4:5: settings.shop.values.a: secret://nothing: no secret nothing",
    ),
    (
        SET + WEB.replace('["shop"]', '["shpo"]'),
        (
            "atlasd.toml:5:13: services.web.settings[0]: expected the name of a set of settings, "
            "as in [settings.NAME], got \"shpo\"; did you mean 'shop'?"
        ),
    ),
    (
        SET + WEB.replace("settings =", "#") + 'settings_file = { path = "a.json" }\n',
        (
            "atlasd.toml:6:1: services.web.settings_file: means nothing without `settings`; "
            'say of which sets it is made: settings = ["NAME"]'
        ),
    ),
    (
        SET + WEB + 'settings_file = { path = "a", format = "template" }\n',
        (
            "atlasd.toml:6:17: services.web.settings_file: expected the path of a template, got "
            "nothing: template is not set"
        ),
    ),
    (
        SET + WEB + 'settings_file = [{ path = "a" }, { path = "b" }]\n',
        (
            "atlasd.toml:6:34: services.web.settings_file[1].name: the program would be told by "
            "the variable SETTINGS_FILE: settings_file[0] is told by it; give each file a name of "
            'its own, as name = "SHOP"'
        ),
    ),
    (
        SET + "[settings.shop.values]\na.b_c = 1\na_b.c = 2\n" + WEB,
        (
            "atlasd.toml:5:5: a_b.c: expected a variable of its own for each setting, got A_B_C, "
            "which a.b_c (atlasd.toml:4:9) has too; rename one of the two, or hand the settings "
            "over in a file: settings_file"
        ),
    ),
    (
        SET + "[settings.shop.values]\n2fa = true\n" + WEB,
        (
            "atlasd.toml:4:1: 2fa: expected a key that makes a variable's name, got '2FA', which "
            'is none; give the set an env_prefix, as "SHOP_"'
        ),
    ),
    (
        SET + '[settings.shop.values]\nNOTIFY_SOCKET = "x"\n' + WEB,
        (
            "atlasd.toml:7:12: services.web.settings: NOTIFY_SOCKET would be the variable "
            "NOTIFY_SOCKET, which the service has otherwise; rename the setting, or give its set "
            "an env_prefix"
        ),
    ),
    (
        SET + 'check = ["sh", "-c", "echo no db of that name; exit 3"]\n' + WEB,
        "atlasd.toml:3:9: settings.shop.check: refused, exit code 3: no db of that name",
    ),
    (
        SET + 'check = ["/nowhere/check"]\n' + WEB,
        (
            "atlasd.toml:3:9: settings.shop.check: /nowhere/check cannot be run: No such file or "
            "directory"
        ),
    ),
    (
        SET + "[settings.shop.values]\nworkers = []\n" + WEB,
        "atlasd.toml:4:11: workers: expected a number, as in base.toml:2:11, got a list",
    ),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_a_mistake_is_told_with_its_place(shop: Shop, text: str, said: str) -> None:
    (found,) = [line for line in shop.says(text) if "warning" not in line]
    assert found.replace(f"{shop.etc}/", "") == said


def test_the_check_reads_the_settings_and_shows_no_secret(shop: Shop, tmp_path: Path) -> None:
    shop.secrets = {"db": "hunter22"}
    seen = tmp_path / "seen"
    text = (
        SET + f'check = ["sh", "-c", \'cat >{seen}; cat {seen}; env | grep ^ATLASD; exit 1\']\n'
        '[settings.shop.values.db]\npassword = "secret://db"\n' + WEB
    )
    (said,) = shop.says(text)
    assert "hunter22" not in said
    assert "not shown" in said
    assert json.loads(seen.read_text())["db"]["password"] == "hunter22"


# --- rendered files


def rendered(shop: Shop, text: str) -> list[tuple[str, str, str]]:
    return [
        (one.name, one.path, base64.b64decode(one.content).decode())
        for one in shop.spec(text).deliveries
    ]


def test_a_service_gets_files_in_every_format(shop: Shop) -> None:
    shop.secrets = {"db": "it's"}
    shop.write("t.j2", "{{ service }} in {{ environment }}: {{ db.password|shell }}\n")
    text = (
        SET + '[settings.shop.values.db]\npassword = "secret://db"\n' + WEB + "settings_file = [\n"
        '{ path = "a.json" }, { path = "a.toml", format = "toml", name = "T" },\n'
        '{ path = "a.env", format = "env", name = "E", dialect = "systemd" },\n'
        '{ path = "a.conf", format = "template", template = "t.j2", name = "C" } ]\n'
    )
    (json_file, toml_file, env_file, template) = rendered(shop, text)
    tree = {"name": "shop", "workers": 2,
            "db": {"host": "localhost", "port": 5432, "password": "it's"}}  # fmt: skip
    assert json_file[:2] == ("SETTINGS", "a.json")
    assert json.loads(json_file[2]) == tree
    assert tomllib.loads(toml_file[2]) == tree
    assert 'DB_PASSWORD="it\'s"\n' in env_file[2]
    assert template == ("C", "a.conf", "web in production: 'it'\"'\"'s'\n")
    handed = shop.applied(text).handed["web"]
    assert [one.masked.count("secret://db") for one in handed.files] == [1, 1, 1, 1]
    assert all("it's" not in one.masked for one in handed.files)
    assert str(shop.etc / "t.j2") in shop.load(text).files


def test_several_sets_are_one_file_and_a_later_one_beats_an_earlier_one(shop: Shop) -> None:
    text = (
        SET + "[settings.more.values]\nworkers = 9\nextra.a = 1\n"
        + WEB.replace('["shop"]', '["shop", "more"]') + 'settings_file = { path = "a.json" }\n'
    )  # fmt: skip
    ((_, _, content),) = rendered(shop, text)
    assert json.loads(content)["workers"] == 9
    assert json.loads(content)["extra"] == {"a": 1}
    assert json.loads(content)["db"]["port"] == 5432
    clash = text.replace("workers = 9", "db = 9")
    assert any("db: expected the same kind" in line for line in shop.says(clash))


def test_a_rendered_file_is_vetted_where_nobody_else_can_read_it(
    shop: Shop, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    text = SET + WEB + (
        'settings_file = { path = "a.json", check = ["sh", "-c", '
        f"'stat -c %a {{file}} >{note}; echo {{file}} >>{note}; "
        f"dirname $SETTINGS_FILE | xargs stat -c %a >>{note}'] }}\n"
    )  # fmt: skip
    shop.load(text)
    mode, path, folder = note.read_text().split()
    assert (mode, folder) == ("400", "700")
    assert path.startswith(shop.paths.run)
    assert not os.path.exists(path)  # noqa: PTH110
    assert list(Path(shop.paths.run).iterdir()) == []
    assert stat.S_ISDIR(os.stat(shop.paths.run).st_mode)  # noqa: PTH116


def test_a_file_that_its_check_refuses_reaches_nobody(shop: Shop) -> None:
    text = SET + WEB + (
        'settings_file = { path = "a.json", check = ["sh", "-c", "echo port taken >&2; exit 2"] }\n'
    )  # fmt: skip
    assert shop.says(text) == [
        (
            "atlasd.toml:6:17: services.web.settings_file[0]: its check refuses it, exit code 2: "
            "port taken"
        )
    ]
    with pytest.raises(AtlasError, match="port taken"):
        shop.load(text)


def test_a_template_that_fails_is_told_with_its_line(shop: Shop) -> None:
    shop.write("t.j2", "ok\n{{ db.hots }}\n")
    text = SET + WEB + 'settings_file = { path = "a", format = "template", template = "t.j2" }\n'
    (said,) = shop.says(text)
    assert said.startswith("atlasd.toml:6:17: services.web.settings_file[0]: ")
    assert "t.j2:2: 'dict object' has no attribute 'hots'" in said


def test_settings_that_nobody_wants_are_validated_all_the_same(shop: Shop) -> None:
    shop.write("production.toml", "workers = 0\n")
    assert len(shop.says(SET + 'schema = "schema.json"\n')) == 1


def test_keys_that_end_in_a_sign_are_operators_unless_they_are_not(shop: Shop) -> None:
    shop.write("base.toml", 'hosts = ["a"]\n')
    shop.write("production.toml", '"hosts+" = ["b"]\n')
    assert shop.applied(SET + WEB).sets["shop"].data == {"hosts": ["a", "b"]}
    plain = SET + "operators = false\n" + WEB.replace("settings =", "# settings =")
    assert shop.applied(plain).sets["shop"].data == {"hosts": ["a"], "hosts+": ["b"]}


def test_a_model_of_the_application_fills_in_what_nobody_has_set(shop: Shop) -> None:
    shop.write(
        "appmodel.py",
        "from pydantic import BaseModel\n"
        "class Db(BaseModel):\n    host: str\n    port: int\n    pool: int = 5\n"
        "class S(BaseModel):\n    name: str\n    workers: int\n    db: Db\n"
        "    debug: bool = False\n",
    )
    text = SET + 'schema = "appmodel:S"\n' + WEB
    shop.write("shop.env", "DEBUG=on\n")
    ready = shop.applied(text).sets["shop"]
    assert ready.data["db"]["pool"] == 5
    assert ready.data["debug"] is True
    assert ready.defaults == {("db", "pool")}
    assert shop.variables(text)["DB_POOL"] == "5"
    shop.write("production.toml", "workers = 1.5\n[db]\nport = 0.5\n")
    assert shop.says(text) == [
        (
            "production.toml:1:11: workers: expected a whole number, got 1.5; it shadows 2 "
            "(base.toml:2:11)"
        ),
        (
            "production.toml:3:8: db.port: expected a whole number, got 0.5; it shadows 5432 "
            "(base.toml:5:8)"
        ),
    ]
