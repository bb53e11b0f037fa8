"""Existing files taken over: nothing is lost in silence, and what is written means the same."""

import configparser
import json
import os
import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlasd.errors import AtlasError
from atlasd.settings.legacy.plan import Wanted, plan
from atlasd.settings.legacy.secrets import suspects
from atlasd.settings.legacy.toml import write
from atlasd.settings.render import env_lines
from tests.unit.settings.legacy_desk import Rules, notes, parse, take
from tests.unit.settings.test_render import TEXT, TREES, WORDS

ONCE_A_TEST = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = st.text(string.ascii_letters + "_", min_size=1, max_size=8)


# --- whatever there is, it means the same afterwards


def means(text: str, secrets: dict[str, str]) -> Any:
    """What a written file means, its references resolved."""

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resolved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [resolved(item) for item in value]
        return Rules().meaning(value, secrets) if isinstance(value, str) else value

    return resolved(tomllib.loads(text))


@ONCE_A_TEST
@given(tree=TREES)
def test_any_json_means_the_same(tmp_path: Path, tree: dict[str, Any]) -> None:
    taken = take(tmp_path, "a.json", json.dumps(tree, ensure_ascii=False))
    assert means(taken.text, dict(taken.secrets)) == tree


@ONCE_A_TEST
@given(tree=TREES, flow=st.booleans())
def test_any_yaml_means_what_pyyaml_reads(tmp_path: Path, tree: dict[str, Any], flow: bool) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True, default_flow_style=flow or None)
    taken = take(tmp_path, "a.yaml", text)
    assert means(taken.text, dict(taken.secrets)) == yaml.safe_load(text)


@ONCE_A_TEST
@given(
    wanted=st.dictionaries(NAMES, TEXT | WORDS, max_size=5),
    dialect=st.sampled_from(["bash", "systemd", "compose"]),
)
def test_any_env_file_means_what_its_dialect_reads(
    tmp_path: Path, wanted: dict[str, str], dialect: str
) -> None:
    text = env_lines(wanted, dialect)
    taken = take(tmp_path, "a.env", text, dialect=dialect)
    assert means(taken.text, dict(taken.secrets)) == wanted


INI_LINE = st.text(
    st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=12
).map(str.strip)


@ONCE_A_TEST
@given(
    sections=st.dictionaries(
        NAMES, st.dictionaries(NAMES.map(str.lower), INI_LINE, max_size=4), max_size=3
    )
)
def test_any_ini_file_means_what_configparser_reads(
    tmp_path: Path, sections: dict[str, dict[str, str]]
) -> None:
    parser = configparser.RawConfigParser()
    parser.read_dict(sections)
    with (tmp_path / "a.ini").open("w") as file:
        parser.write(file)
    text = (tmp_path / "a.ini").read_text()
    again = configparser.RawConfigParser()
    again.read_string(text)
    wanted = {name: dict(again[name]) for name in again.sections()}
    if again.defaults():
        return  # [DEFAULT] is inherited there, and a table of its own here
    taken = take(tmp_path, "a.ini", text)
    assert means(taken.text, dict(taken.secrets)) == wanted


@given(tree=TREES)
def test_toml_is_written_as_it_is_read(tree: dict[str, Any]) -> None:
    assert tomllib.loads(write(tree, lambda _path: ("a comment", ""))) == tree


# --- what is told


def test_an_env_file_with_odd_lines(tmp_path: Path) -> None:
    taken = take(
        tmp_path,
        "shop.env",
        "# The shop\n\nexport NAME='a $shop'  # its name\n\n# where it is\nURL=http://$NAME/\n"
        'http_proxy="http://proxy"\nURL2=a\nURL2=b\nRAW=${UNKNOWN}\n# the end\n',
    )
    assert taken.text == (
        '# The shop\n\n# its name\nNAME = "a $shop"\n# where it is\nURL = "http://a $shop/"\n'
        'http_proxy = "http://proxy"\nURL2 = "b"\nRAW = ""\n\n# the end\n'
    )
    assert notes(taken) == [
        "shop.env:3:13: NAME: export is left out: every setting reaches the program",
        "shop.env:3:13: NAME: its quotes and escapes are taken off, as bash does",
        ("shop.env:6:5: URL: the variables in it are replaced by what they stand for; a change of "
        "them changes it no longer"),
        "shop.env:7:12: http_proxy: its quotes and escapes are taken off, as bash does",
        ("shop.env:9:1: URL2: URL2 again, which line 8 has set; this last one counts, the other is "
        "left out"),
        "shop.env:10:5: there is no variable UNKNOWN, so nothing stands in its place",
        ("shop.env:10:5: RAW: the variables in it are replaced by what they stand for; a change of "
        "them changes it no longer"),
    ]  # fmt: skip
    # The name that would not be made of the key stays available all the same.
    assert taken.variables == {"http_proxy": "http_proxy"}


def test_yaml_that_readers_disagree_on(tmp_path: Path) -> None:
    taken = take(
        tmp_path,
        "shop.yaml",
        "# switches\nflag: on\nmode: 0644\ntime: 1:30\nnorway: no\nbig: 1_000\nhex: 0x1F\n"
        "day: 2026-11-25\nodd: 1e3\nold: 0o17\n8080: port\nname: a\nname: b\nempty: ~\n"
        "base: &base {a: 1, b: 2}\nderived:\n  <<: *base\n  b: 3\ncopy: *base\n"
        "quoted: 'on'\ntext: |\n  # no comment\n  x\n# why\nlast: 1\npin_password: 0123\n",
    )
    assert notes(taken) == [
        "shop.yaml:2:7: flag: on is true, as YAML 1.1 reads it; text to YAML 1.2",
        "shop.yaml:3:7: mode: 0644 is octal, 420, as YAML 1.1 reads it; another number to YAML 1.2",
        ("shop.yaml:4:7: time: 1:30 is the number 90, to the base of 60, as YAML 1.1 reads it; "
        "text to YAML 1.2"),
        "shop.yaml:5:9: norway: no is false, as YAML 1.1 reads it; text to YAML 1.2",
        "shop.yaml:6:6: big: 1_000 is the number 1000; text to YAML 1.2",
        "shop.yaml:7:6: hex: 0x1F is written as 31",
        "shop.yaml:8:6: day: 2026-11-25 is a date, as YAML 1.1 reads it; text to YAML 1.2",
        "shop.yaml:9:6: odd: 1e3 is text here, as PyYAML reads it; a number to YAML 1.2",
        "shop.yaml:10:6: old: 0o17 is text here, as PyYAML reads it; an octal number to YAML 1.2",
        "shop.yaml:11:1: 8080: PyYAML reads the key as 8080, no text; it is '8080' here",
        "shop.yaml:13:1: name: stands twice; this last one counts, that of line 12 is left out",
        "shop.yaml:14:8: empty: null is left out: TOML has none, and who asks finds nothing",
        "shop.yaml:15:7: copy: what its alias stands for is written out",
        "shop.yaml:17:3: derived: what << brings in is written out",
        "shop.yaml:26:15: pin_password: YAML 1.1 reads its text as a value of another kind, int",
    ]  # fmt: skip
    found = tomllib.loads(taken.text)
    assert (found["flag"], found["mode"], found["quoted"]) == (True, 420, "on")
    assert found["derived"] == {"a": 1, "b": 3}
    assert found["copy"] == {"a": 1, "b": 2}
    assert found["text"] == "# no comment\nx\n"
    assert "empty" not in found
    assert taken.text.startswith("# switches\nflag = true\n")
    assert '"\n# why\nlast = 1\n' in taken.text


def test_an_ini_file_with_odd_lines(tmp_path: Path) -> None:
    taken = take(
        tmp_path,
        "shop.ini",
        "; top\nkey = 1\n[DEFAULT]\na = %(b)s\n[Web.One]\n# port\nPort: 80\n"
        "long = a\n   b\n\n   # no line of it\n   c\nflag\n",
    )
    assert taken.text == (
        '# top\nkey = "1"\n\n[DEFAULT]\na = "%(b)s"\n\n["Web.One"]\n# port\nPort = "80"\n'
        'long = "a\\nb\\n\\nc"\nflag = ""\n'
    )
    assert notes(taken) == [
        ("shop.ini:3:1: DEFAULT: [DEFAULT] is a table of its own: other tables do not inherit from "
        "it"),
        "shop.ini:4:5: DEFAULT.a: what looks like an interpolation is taken as it stands",
        ('shop.ini:7:7: "Web.One".Port: Python\'s configparser reads its key in small letters; it '
        "stays as it stands"),
        'shop.ini:8:8: "Web.One".long: its lines are taken without what they were indented by',
    ]  # fmt: skip


def test_json_with_odd_keys(tmp_path: Path) -> None:
    taken = take(
        tmp_path,
        "shop.json",
        '{"a": 1,\n"a": 2, "n": null, "big": 99999999999999999999,\n"c++": 1, "x": "${secret:a}"}',
    )
    assert taken.text == 'a = 2\nbig = 99999999999999999999\n"c++" = 1\nx = "$${secret:a}"\n'
    assert taken.operators
    assert notes(taken) == [
        "shop.json:2:1: a: the same key as in line 1; this last one counts, the other is left out",
        "shop.json:2:14: n: null is left out: TOML has none, and who asks finds nothing",
        "shop.json:2:27: big: the number is larger than some readers of TOML take",
        'shop.json:3:8: "c++": such a key is an operator unless the set says operators = false',
        "shop.json:3:16: x: ${ is written $${, so that it stays as it is",
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"a": [1, null]}', "a.json:1:11: a[1]: null in a list, which TOML cannot say"),
        ("a.json", '{"a": 1,}', "a.json:1:8: a comma before }"),
        ("a.json", '{"a": "secret://x"}', "would be taken for a reference to a secret"),
        ("a.yaml", "a: !Ref x", "a.yaml:1:4: the tag !Ref"),
        ("a.yaml", "- a", "a.yaml:1:1: the file is no table of settings"),
        ("a.yaml", "a: &x [*x]", "a.yaml:1:4: a value that contains itself"),
        ("a.yaml", "a: b: c", "a.yaml:1:5: mapping values are not allowed here"),
        ("a.yaml", "a: 1\n---\nb: 1", "a.yaml:2:1: but found another document"),
        ("a.yaml", "? [a]\n: b", "a.yaml:1:3: a list or a table as a key"),
        ("a.yaml", "a: 2026-99-99", "is no timestamp"),
        ("a.env", "A=$(id)", "a.env:1:3: expected text, got a command"),
        ("a.env", "just words", "a.env:1:1: expected NAME=VALUE"),
        ("a.ini", "= 1", "a.ini:1:1: expected KEY = VALUE"),
        ("a.txt", "", "what kind of file this is cannot be told by its name"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_with_its_place(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(AtlasError) as caught:
        take(tmp_path, name, text)
    assert said in caught.value.message
    assert caught.value.hint


def test_aliases_that_stand_for_billions_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(AtlasError, match="more values than can be meant"):
        take(tmp_path, "a.yaml", "\n".join(lines))


def test_other_encodings_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_bytes(b"A=1\nB=\xe4\n")
    wanted = Wanted(files=(tmp_path / "a.env",), out=tmp_path / "a.toml")
    with pytest.raises(AtlasError, match=r"a\.env:2:1: not UTF-8 text"):
        plan(wanted, parse, Rules())
    wanted = Wanted(files=(tmp_path / "b.env",), out=tmp_path / "a.toml")
    with pytest.raises(AtlasError, match=r"b\.env: there is no such file"):
        plan(wanted, parse, Rules())
    os.mkfifo(tmp_path / "b.env")
    with pytest.raises(AtlasError, match=r"b\.env: it is no regular file"):
        plan(wanted, parse, Rules())


def test_several_files_go_into_a_folder_and_never_into_one_file(tmp_path: Path) -> None:
    for name in ("base.yaml", "base.json", ".env", ".env.local"):
        (tmp_path / name).write_text("{}" if name.startswith("base") else "")
    out = tmp_path / "out"
    wanted = Wanted(
        files=(tmp_path / "base.yaml", tmp_path / ".env", tmp_path / ".env.local"), out=out
    )
    assert [one.target.name for one in plan(wanted, parse, Rules())] == [
        "base.toml", "env.toml", "env-local.toml"
    ]  # fmt: skip
    wanted = Wanted(files=(tmp_path / "base.yaml", tmp_path / "base.json"), out=out)
    with pytest.raises(AtlasError, match=r"would both become .*out/base\.toml"):
        plan(wanted, parse, Rules())


# --- secrets, and types


def test_what_looks_like_a_secret_becomes_a_reference(tmp_path: Path) -> None:
    taken = take(
        tmp_path,
        ".env",
        "DB_PASSWORD=hunter22\nDB_URL=pg://u:pw@h/\nTOKEN_TTL=3600\nPASSWORD_MIN_LENGTH=12\n"
        "API_KEY=changeme\nNOTHING_SECRET=\nAWS=AKIAABCDEFGHIJKLMNOP\nNAME=shop\nKEY_FILE=/k\n",
        name="shop",
    )
    assert dict(taken.secrets) == {
        "shop/db_password": "hunter22",
        "shop/db_url": "pg://u:pw@h/",
        "shop/aws": "AKIAABCDEFGHIJKLMNOP",
    }
    assert 'DB_PASSWORD = "secret://shop/db_password"\n' in taken.text
    report = "\n".join(notes(taken))
    assert "DB_PASSWORD: looks like a secret (its name says so)" in report
    for secret in taken.secrets.values():
        assert secret not in taken.text
        assert secret not in report
        assert secret not in repr(taken)
    kept = take(tmp_path, ".env", "DB_PASSWORD=hunter22\n", keep_secrets=True)
    assert kept.text == 'DB_PASSWORD = "hunter22"\n'
    assert "stays in plain text" in notes(kept)[0]


def test_names_of_secrets_are_their_own(tmp_path: Path) -> None:
    taken = take(tmp_path, "a.json", '{"Db": {"Pass Word": "longer-one"}, "tokens": ["x1", "x2"]}')
    assert dict(taken.secrets) == {
        "a/db/pass-word": "longer-one", "a/tokens/0": "x1", "a/tokens/1": "x2"
    }  # fmt: skip
    assert [one.value for one in suspects({"a": {"tokenUrl": "http://x", "apiKey": "k9"}})] == [
        "k9"
    ]


def test_a_schema_types_text_and_leads_names_to_keys(tmp_path: Path) -> None:
    schema = {
        "properties": {
            "db": {"properties": {"port": {"type": "integer"}, "host": {"type": "string"}}},
            "debug": {"type": "boolean"},
        }
    }
    (tmp_path / "s.json").write_text(json.dumps(schema))
    taken = take(
        tmp_path,
        ".env",
        "# where\nDB_HOST=db\nDB_PORT=5432\nDEBUG=yes\nSHOP_DEBUG=1\n",
        schema=tmp_path / "s.json",
    )
    assert taken.text == (
        'debug = true\nSHOP_DEBUG = "1"\n\n[db]\n# where\nhost = "db"\nport = 5432\n'
    )
    assert taken.variables == {}
