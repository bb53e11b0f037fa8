"""What is asked about secrets and done to them: by whom it stands in the log, and never a value."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.config import envfile
from atlasd.contracts.secrets import Capability, Reference
from atlasd.errors import AtlasError
from atlasd.secrets import bulk
from atlasd.secrets.desk import Asker
from atlasd.secrets.operations import SecretOperations
from atlasd.testing.memory_backend import MemoryBackend
from tests.secret_double import FakeSecrets

ANN = Asker(actor="uid:1000", pid=77)


@pytest.fixture
async def fake(tmp_path: Path) -> FakeSecrets:
    """A host on which `db` is used by web and `other` by nobody."""
    fake = FakeSecrets(tmp_path)
    fake.house.memory.plant("db", "first")
    fake.house.memory.plant("other", b"\xff\x00")
    return fake


@pytest.fixture
async def asked(fake: FakeSecrets) -> SecretOperations:
    return await fake.operations()


def written(fake: FakeSecrets) -> list[tuple[object, ...]]:
    return [
        (r["action"], r["name"], r["version"], r["outcome"], r["actor"], r["pid"])
        for r in fake.audit.read()
    ]


async def refused(work: Any) -> AtlasError:
    with pytest.raises(AtlasError) as caught:
        await work
    return caught.value


async def test_a_list_says_what_is_in_use(asked: SecretOperations) -> None:
    body = await asked.list(ANN)
    assert (body["backend"], body["environment"]) == ("memory", "production")
    assert [(one["name"], one["used"]) for one in body["secrets"]] == [
        ("db", True),
        ("other", False),
    ]
    assert [one["name"] for one in (await asked.list(ANN, prefix="o"))["secrets"]] == ["other"]


async def test_a_value_is_given_and_written_down(
    fake: FakeSecrets, asked: SecretOperations
) -> None:
    found = await asked.reveal(ANN, name="db")
    assert (found["value"], found["base64"], found["version"]) == ("first", None, "v1")
    found = await asked.reveal(ANN, name="secret://memory/other@current")
    assert (found["value"], base64.b64decode(found["base64"])) == (None, b"\xff\x00")
    await refused(asked.reveal(ANN, name="gone"))
    assert written(fake) == [
        ("get", "db", "v1", "done", "uid:1000", 77),
        ("get", "other", "v2", "done", "uid:1000", 77),
        ("get", "gone", "", "secret.not_found", "uid:1000", 77),
    ]


async def test_members_versions_and_stages_are_chosen(
    fake: FakeSecrets, asked: SecretOperations
) -> None:
    fake.house.memory.plant("db", '{"password": "p", "n": 1}')
    assert (await asked.reveal(ANN, name="db#password"))["value"] == "p"
    assert (await asked.reveal(ANN, name="db@previous"))["value"] == "first"
    assert (await asked.reveal(ANN, name="db@v1"))["value"] == "first"
    assert (await asked.reveal(ANN, name="db", version="v1"))["value"] == "first"
    assert (await asked.reveal(ANN, name="db", stage="previous"))["value"] == "first"
    assert (await refused(asked.reveal(ANN, name="db#no"))).code == "secret.not_found"


async def test_what_is_put_is_current_and_told(fake: FakeSecrets, asked: SecretOperations) -> None:
    made = await asked.set(ANN, name="db", value="second")
    assert (made["version"], made["stages"]) == ("v3", ["current"])
    assert (await asked.reveal(ANN, name="db"))["value"] == "second"
    await asked.set(ANN, name="new/one", base64=base64.b64encode(b"\x01").decode())
    versions = (await asked.versions(ANN, name="db"))["versions"]
    assert [(v["version"], v["created_by"]) for v in versions] == [("v3", "uid:1000"), ("v1", "")]
    # Only what is in use is read anew.
    assert fake.changed == ["db"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "a b", "value": "x"}, "is no name of a secret"),
        ({"name": "db#password", "value": "x"}, "names a part of a secret"),
        ({"name": "db@previous", "value": "x"}, "names a part of a secret"),
        ({"name": "db"}, "one of value and base64"),
        ({"name": "db", "value": "x", "base64": "eA=="}, "one of value and base64"),
        ({"name": "db", "base64": "hunter2-hunter2"}, "is not base64"),
    ],
)
async def test_what_cannot_be_put_is_refused_without_its_value(
    fake: FakeSecrets, asked: SecretOperations, given: dict[str, str], says: str
) -> None:
    error = await refused(asked.set(ANN, **given))
    assert error.code == "secret.invalid"
    assert says in error.message
    assert "hunter2" not in f"{error.message} {error.hint} {error.details}"
    assert fake.house.memory.calls["put"] == 0


async def test_going_back_and_forth(fake: FakeSecrets, asked: SecretOperations) -> None:
    await asked.set(ANN, name="db", value="second")
    assert (await asked.rollback(ANN, name="db"))["version"] == "v1"
    assert (await asked.reveal(ANN, name="db"))["value"] == "first"
    assert (await asked.rollback(ANN, name="db", version="v3"))["version"] == "v3"
    assert (await asked.reveal(ANN, name="db"))["value"] == "second"
    assert (await refused(asked.rollback(ANN, name="other"))).code == "secret.not_found"
    assert fake.changed == ["db", "db", "db"]


async def test_what_is_in_use_is_not_deleted_by_mistake(
    fake: FakeSecrets, asked: SecretOperations
) -> None:
    error = await refused(asked.delete(ANN, name="db"))
    assert error.code == "secret.conflict"
    assert "service web" in error.message
    deleted = await asked.delete(ANN, name="db", force=True)
    assert deleted["deleted"] is not None
    assert (await refused(asked.reveal(ANN, name="db"))).code == "secret.not_found"
    assert (await asked.recover(ANN, name="db"))["current"] == "v1"
    await asked.delete(ANN, name="other", recovery=0.0)
    assert (await refused(asked.recover(ANN, name="other"))).code == "secret.not_found"


async def test_what_a_backend_cannot_do_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    fake = FakeSecrets(tmp_path)
    fake.house.memory = MemoryBackend(capabilities=frozenset({Capability.PUT}))
    asked = await fake.operations()
    for work in (
        asked.list(ANN),
        asked.versions(ANN, name="db"),
        asked.rollback(ANN, name="db"),
        asked.delete(ANN, name="db"),
        asked.recover(ANN, name="db"),
        asked.keys(ANN),
        asked.keygen(ANN),
        asked.export(ANN),
    ):
        assert (await refused(work)).code == "secret.unsupported"
    assert not fake.house.memory.calls


async def test_check_tells_of_every_reference_and_key(
    fake: FakeSecrets, asked: SecretOperations
) -> None:
    fake.uses["settings", "shop", "values", "list", 0] = [Reference(name="gone")]
    body = await asked.check(ANN)
    rows = {row["reference"]: (row["state"], row["keys"]) for row in body["secrets"]}
    assert rows == {
        "secret://db": ("ok", ["services.web.secrets.DB.value"]),
        "secret://gone": ("secret.not_found", ["settings.shop.values.list[0]"]),
    }
    assert [key["primary"] for key in body["keys"]] == [True]
    fake.house.memory.fail("secret.key")
    body = await asked.check(ANN)
    assert body["keys"][0]["id"] == ""
    assert body["keys"][0]["warning"]


async def test_keys_are_made_and_changed(fake: FakeSecrets, asked: SecretOperations) -> None:
    made = await asked.keygen(ANN)
    assert made["primary"]
    told = [body async for body in asked.rotate_keys(ANN)]
    assert told[-1] == {"done": 2, "total": 2, "retired": ["key1"], "finished": True}
    assert not any(body["finished"] for body in told[:-1])
    assert [key["id"] for key in (await asked.keys(ANN))["keys"]] == [made["id"]]
    (record,) = fake.audit.read(action="rotate-keys")
    assert record["reason"] == "2 records; retired: key1"


async def test_a_change_of_keys_that_fails_says_so(
    fake: FakeSecrets, asked: SecretOperations
) -> None:
    fake.house.memory.fail("secret.key")
    with pytest.raises(AtlasError) as caught:
        _ = [body async for body in asked.rotate_keys(ANN)]
    assert caught.value.code == "secret.key"
    assert written(fake)[-1][3] == "secret.key"


async def test_rotating_tells_of_each_step(fake: FakeSecrets, asked: SecretOperations) -> None:
    steps = [body["step"] async for body in asked.rotate(ANN, name="db")]
    assert steps == ["create", "set", "test", "promote"]
    assert (await asked.versions(ANN, name="db"))["rotation"] == "retire"


async def test_a_forced_fetch_is_written_with_its_reason(
    fake: FakeSecrets, asked: SecretOperations
) -> None:
    body = await asked.refresh(ANN, name="db", reason="auth_failed")
    assert (body["fetched"], body["changed"]) == (True, False)
    assert not (await asked.refresh(ANN, name="db"))["fetched"]
    assert fake.audit.read(action="refresh")[0]["reason"] == "auth_failed"


async def test_the_log_is_read_and_verified(fake: FakeSecrets, asked: SecretOperations) -> None:
    for name in ("db", "other", "db"):
        await asked.reveal(ANN, name=name)
    body = await asked.audit(ANN, limit=1, name="memory/db")
    assert [record["seq"] for record in body["records"]] == [3]
    assert (await asked.audit_verify(ANN))["problems"] == []
    lines = fake.audit.path.read_bytes().splitlines(keepends=True)
    fake.audit.path.write_bytes(b"".join(lines[:-1]))
    assert (await asked.audit_verify(ANN))["problems"] != []


async def test_what_must_be_written_first_is_not_done_otherwise(
    fake: FakeSecrets, asked: SecretOperations
) -> None:
    fake.house.policy = replace(fake.house.policy, fail_closed=True)
    fake.audit.path.mkdir(parents=True)
    for work in (
        asked.reveal(ANN, name="db"),
        asked.set(ANN, name="db", value="x"),
        asked.delete(ANN, name="other"),
    ):
        assert (await refused(work)).code == "audit.broken"
    assert fake.house.memory.calls["put"] == fake.house.memory.calls["delete"] == 0


async def test_many_come_in_at_once_or_not_at_all(
    fake: FakeSecrets, asked: SecretOperations
) -> None:
    text = "A=1\nB='two words'\nDB=new\n"
    body = await asked.import_(ANN, text=text, prefix="s/")
    assert [(row["name"], row["done"]) for row in body["secrets"]] == [
        ("s/A", "put"), ("s/B", "put"), ("s/DB", "put"),
    ]  # fmt: skip
    body = await asked.import_(ANN, text="A=1\nB=other", prefix="s/")
    assert [row["done"] for row in body["secrets"]] == ["unchanged", "kept"]
    body = await asked.import_(
        ANN, text='{"B": "other"}', format="json", prefix="s/", overwrite=True
    )
    assert [row["done"] for row in body["secrets"]] == ["replaced"]
    puts = fake.house.memory.calls["put"]
    for bad in ("A=1\nno line", "C=1\nC=2"):
        error = await refused(asked.import_(ANN, text=bad))
        assert "line 2" in error.message
    error = await refused(asked.import_(ANN, text='{"x": 1, "a b": "2"}', format="json"))
    assert "is no name of a secret" in error.message
    assert fake.house.memory.calls["put"] == puts


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": "hunter2",', "line 1: it is no JSON"),
        ('{"a": "hunter2", "a": "x"}', "the member 'a' stands there twice"),
        ('["hunter2"]', "it is no JSON object"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
def test_json_that_cannot_be_read_is_explained_without_its_values(text: str, says: str) -> None:
    with pytest.raises(AtlasError) as caught:
        bulk.read(text, "json", envfile.parse)
    assert says in caught.value.message
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"


async def test_all_go_out_and_each_is_written(fake: FakeSecrets, asked: SecretOperations) -> None:
    await asked.delete(ANN, name="other", recovery=60.0)
    await asked.import_(ANN, text="A=1", prefix="s/")
    body = await asked.export(ANN)
    assert body["text"] == '{\n  "db": "first",\n  "s/A": "1"\n}\n'
    assert [record["name"] for record in fake.audit.read(action="export")] == ["db", "s/A"]
    assert "'s/A'" in (await refused(asked.export(ANN, format="env"))).message
    assert (await asked.export(ANN, format="env", prefix="s/"))["text"] == 'A="1"\n'
    fake.house.memory.plant("binary", b"\xff")
    assert "'binary' is not text" in (await refused(asked.export(ANN))).message


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(st.dictionaries(NAMES, VALUES, max_size=5), st.sampled_from(["env", "json"]))
def test_what_goes_out_comes_in_as_it_was(values: dict[str, str], form: str) -> None:
    assert bulk.read(bulk.write(values, form), form, envfile.parse) == values
