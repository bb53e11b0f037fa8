"""Azure Key Vault: what stands in the vault, and what is said when it does not work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from atlasd.contracts.secrets import CURRENT, PENDING, PREVIOUS, SecretValue
from atlasd.errors import AtlasError
from atlasd.testing import PlainContext
from atlasd.testing.secrets.asserting import shown
from atlasd_plugins.secrets_azure import open_backend
from atlasd_plugins.secrets_azure.settings import AzureSettings
from atlasd_plugins.secrets_azure.store import AzureStore
from tests.plugins import azure_vault
from tests.plugins.azure_vault import CLIENT_SECRET, DAYS, Vault
from tests.plugins.listeners import free_port

VALUE = SecretValue("correct-horse")


@pytest.fixture
def vault() -> Vault:
    return azure_vault.emptied()


@asynccontextmanager
async def opened(context: PlainContext, vault: Vault, **settings: Any) -> AsyncIterator[AzureStore]:
    given = {"attempts": 1, **vault.settings, **settings}
    model = AzureSettings.model_validate({k: v for k, v in given.items() if v is not None})
    async with open_backend(model, context) as store:
        yield store


# --- what stands in the vault


async def test_other_programs_read_what_was_put(context: PlainContext, vault: Vault) -> None:
    async with opened(context, vault) as store:
        put = await store.put("shop/db-url", VALUE, actor="uid:0")
        await store.put("blob", SecretValue(b"\xff\x00"))
    found = vault.get("production--shop--db-url", "")
    assert found["value"] == "correct-horse"
    assert found["id"].endswith(f"/production--shop--db-url/{put.version}")
    assert found["tags"]["atlasd-actor"] == "uid:0"
    blob = vault.get("production--blob", "")
    assert (blob["value"], blob["contentType"]) == ("/wA=", "application/octet-stream;base64")


async def test_what_others_have_put_is_read(context: PlainContext, vault: Vault) -> None:
    old = vault.put("Db-Password", {"value": "old", "tags": {"team": "shop"}})
    vault.find("db-password").versions[old["id"].rpartition("/")[2]]["attributes"]["created"] -= 60
    vault.put("Db-Password", {"value": "new", "tags": {"team": "shop"}})
    vault.put("odd----name", {"value": "nobody can ask for it"})
    async with opened(context, vault, prefix="") as store:
        assert (await store.get("db-password")).value == SecretValue("new")
        assert (await store.get("db-password", stage=PREVIOUS)).value == SecretValue("old")
        (info,) = await store.list()
        assert (info.name, info.tags) == ("db-password", {"team": "shop"})
        versions = await store.versions("db-password")
        assert [version.stages for version in versions] == [(CURRENT,), (PREVIOUS,)]


async def test_a_promotion_is_one_change_and_keeps_foreign_tags(
    context: PlainContext, vault: Vault
) -> None:
    async with opened(context, vault, prefix="") as store:
        await store.put("db", SecretValue("old"))
        pending = await store.put("db", SecretValue("new"), stage=PENDING)
        vault.find("db").versions[pending.version]["tags"]["team"] = "shop"
        vault.asked.clear()
        await store.stage("db", pending.version, CURRENT)
        assert [method for method, _ in vault.asked if method != "GET"] == ["PATCH"]
        assert (await store.get("db")).value == SecretValue("new")
        assert (await store.describe("db")).tags == {"team": "shop"}
        vault.asked.clear()
        await store.stage("db", pending.version, CURRENT)
        assert [method for method, _ in vault.asked] == ["GET"]


async def test_a_put_is_one_call(context: PlainContext, vault: Vault) -> None:
    async with opened(context, vault) as store:
        await store.put("db", VALUE)
        await store.put("db", VALUE, stage=PENDING)
    assert [method for method, _ in vault.asked] == ["PUT", "PUT"]


async def test_previous_is_not_moved_by_itself(context: PlainContext, vault: Vault) -> None:
    async with opened(context, vault) as store:
        put = await store.put("db", VALUE)
        for call in (
            store.stage("db", put.version, PREVIOUS),
            store.put("db", VALUE, stage=PREVIOUS),
        ):
            with pytest.raises(AtlasError, match="what was current before") as caught:
                await call
            assert caught.value.code == "secret.invalid"


async def test_a_disabled_current_version_is_not_replaced_by_an_older_one(
    context: PlainContext, vault: Vault
) -> None:
    async with opened(context, vault, prefix="") as store:
        await store.put("db", SecretValue("leaked"))
        put = await store.put("db", SecretValue("revoked"))
        vault.change("db", put.version, {"attributes": {"enabled": False}})
        with pytest.raises(AtlasError, match=put.version) as caught:
            await store.get("db")
        assert caught.value.code == "secret.disabled"
        assert (await store.get("db", stage=PREVIOUS)).value == SecretValue("leaked")


async def test_a_disabled_version_is_not_made_current(context: PlainContext, vault: Vault) -> None:
    async with opened(context, vault, prefix="") as store:
        old = await store.put("db", SecretValue("old"))
        await store.put("db", SecretValue("new"))
        vault.change("db", old.version, {"attributes": {"enabled": False}})
        with pytest.raises(AtlasError, match=old.version) as caught:
            await store.stage("db", old.version, CURRENT)
        assert caught.value.code == "secret.disabled"
        assert (await store.get("db")).value == SecretValue("new")


@pytest.mark.parametrize(
    ("attribute", "days", "words"),
    [("exp", -1, "has expired on"), ("nbf", 1, "is not valid before")],
)
async def test_the_times_of_a_version_are_kept(
    context: PlainContext, vault: Vault, attribute: str, days: int, words: str
) -> None:
    moment = int((datetime.now(UTC) + timedelta(days=days)).timestamp())
    vault.put("db", {"value": "x", "attributes": {attribute: moment}})
    async with opened(context, vault, prefix="") as store:
        with pytest.raises(AtlasError, match=words) as caught:
            await store.get("db")
        assert caught.value.code == "secret.disabled"


@pytest.mark.parametrize("text", ["no base64!", "kein Bäse64"])
async def test_base64_that_is_none_is_corrupt(
    context: PlainContext, vault: Vault, text: str
) -> None:
    vault.put("db", {"value": text, "contentType": "application/octet-stream;base64"})
    async with opened(context, vault, prefix="") as store:
        with pytest.raises(AtlasError) as caught:
            await store.get("db")
    assert caught.value.code == "secret.corrupt"
    assert text not in shown(caught.value)


# --- deleting


async def test_the_time_for_recovery_is_the_vaults(context: PlainContext, vault: Vault) -> None:
    async with opened(context, vault) as store:
        await store.put("db", VALUE)
        with pytest.raises(AtlasError, match="can be recovered for 90 days, not for 7 days"):
            await store.delete("db", recovery=timedelta(days=7))
        info = await store.delete("db", recovery=timedelta(days=DAYS))
        assert info.deleted is not None
        assert info.recoverable_until == info.deleted + timedelta(days=DAYS)
        assert (await store.describe("db")).recoverable_until == info.recoverable_until


async def test_a_vault_that_forbids_purging_deletes_nothing_for_good(
    context: PlainContext, vault: Vault
) -> None:
    vault.level = "Recoverable"
    async with opened(context, vault) as store:
        await store.put("db", VALUE)
        with pytest.raises(AtlasError, match="protected against purging") as caught:
            await store.delete("db", recovery=timedelta(0))
        assert caught.value.code == "secret.conflict"
        assert (await store.get("db")).value == VALUE


async def test_deleted_secrets_that_may_not_be_listed_are_left_out(
    context: PlainContext, vault: Vault
) -> None:
    async with opened(context, vault) as store:
        await store.put("db", VALUE)
        answered = vault.answer("GET", "/secrets", {}, {})
        vault.answers = [(200, {}, answered), (403, {}, {"error": {"code": "Forbidden"}})]
        assert [info.name for info in await store.list()] == ["db"]


# --- what goes wrong


@pytest.mark.parametrize(
    ("status", "inner", "ours", "hint"),
    [
        (403, "ForbiddenByRbac", "denied", "Key Vault Secrets User"),
        (403, "ForbiddenByFirewall", "denied", "network settings"),
        (403, "SecretDisabled", "disabled", ""),
        (404, "", "not_found", "atlasctl secret recover db"),
        (409, "ObjectIsBeingDeleted", "conflict", "in a moment"),
        (409, "ObjectIsDeletedButRecoverable", "conflict", "atlasctl secret recover db"),
        (400, "", "invalid", ""),
        (500, "", "unavailable", ""),
        (503, "", "unavailable", ""),
        (418, "", "unavailable", ""),
    ],
)
async def test_errors_of_azure_in_our_words(
    context: PlainContext, vault: Vault, status: int, inner: str, ours: str, hint: str
) -> None:
    error = {"code": "Any", "message": "words", "innererror": {"code": inner}}
    async with opened(context, vault) as store:
        vault.answers = [(status, {}, {"error": error})]
        with pytest.raises(AtlasError, match="'db'") as caught:
            await store.put("db", VALUE)
    assert caught.value.code == f"secret.{ours}"
    assert hint in caught.value.hint
    assert len(vault.asked) == 1


async def test_throttling_says_for_how_long_and_is_not_slept_through(
    context: PlainContext, vault: Vault
) -> None:
    async with opened(context, vault, attempts=5) as store:
        vault.answers = [(429, {"Retry-After": "600"}, {"error": {"code": "Throttled"}})]
        with pytest.raises(AtlasError, match="wants fewer calls") as caught:
            await store.get("db")
    assert caught.value.code == "secret.throttled"
    assert caught.value.details == {"retry_after": 600.0}


async def test_an_error_that_quotes_the_value_is_not_repeated(
    context: PlainContext, vault: Vault
) -> None:
    async with opened(context, vault) as store:
        words = "Property value is invalid: correct-horse"
        vault.answers = [(400, {}, {"error": {"code": "BadParameter", "message": words}})]
        with pytest.raises(AtlasError) as caught:
            await store.put("db", VALUE)
    assert "correct-horse" not in shown(caught.value)


async def test_a_put_whose_answer_is_lost_is_not_repeated(
    context: PlainContext, vault: Vault
) -> None:
    async with opened(context, vault, attempts=5, prefix="") as store:
        await store.put("db", SecretValue("first"))
        vault.lose = 1
        with pytest.raises(AtlasError) as caught:
            await store.put("db", SecretValue("second"))
        assert caught.value.code == "secret.unavailable"
        assert len(await store.versions("db")) == 2


async def test_reading_is_tried_again(context: PlainContext, vault: Vault) -> None:
    async with opened(context, vault, attempts=2) as store:
        await store.put("db", VALUE)
        vault.lose = 1
        assert (await store.get("db")).value == VALUE


async def test_an_outage_ends(context: PlainContext, vault: Vault) -> None:
    async with opened(context, vault) as store:
        await store.put("db", VALUE)
        azure_vault.server().stop()
        try:
            with pytest.raises(AtlasError, match="does not answer") as caught:
                await store.get("db")
            assert caught.value.code == "secret.unavailable"
        finally:
            azure_vault.server().start()
        assert (await store.get("db")).value == VALUE


async def test_a_strange_certificate_is_an_outage(context: PlainContext, vault: Vault) -> None:
    async with opened(context, vault, ca_file=None) as store:
        with pytest.raises(AtlasError) as caught:
            await store.get("db")
    assert caught.value.code == "secret.unavailable"
    assert "certificate" in caught.value.message.lower()


async def test_a_wrong_client_secret_is_denied(context: PlainContext, vault: Vault) -> None:
    async with opened(context, vault, client_secret="wrong-one") as store:
        with pytest.raises(AtlasError, match="AADSTS7000215") as caught:
            await store.get("db")
    assert caught.value.code == "secret.denied"
    assert "client_id" in caught.value.hint
    assert "wrong-one" not in shown(caught.value)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (503, ""),
        (400, "AADSTS90033: A transient error has occurred. Please try again."),
        (200, "<html>"),
    ],
)
async def test_who_gives_tokens_may_be_away(
    context: PlainContext, vault: Vault, status: int, words: str
) -> None:
    answer = {"error": "temporarily_unavailable", "error_description": words}
    vault.token_answers = [(status, answer)] * 3
    async with opened(context, vault) as store:
        with pytest.raises(AtlasError) as caught:
            await store.get("db")
    assert caught.value.code == "secret.unavailable"


async def test_a_certificate_proves_who_it_is(context: PlainContext, vault: Vault) -> None:
    vault.put("production--db", {"value": "x"})
    async with opened(
        context,
        vault,
        credential="certificate",
        client_secret=None,
        certificate=azure_vault.server().client_certificate,
    ) as store:
        assert (await store.get("db")).value == SecretValue("x")


async def test_a_certificate_that_is_not_there_is_named(
    context: PlainContext, vault: Vault, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing.pem")
    async with opened(
        context, vault, credential="certificate", client_secret=None, certificate=missing
    ) as store:
        with pytest.raises(AtlasError, match=r"missing\.pem") as caught:
            await store.get("db")
    assert caught.value.code == "plugin.settings"


@pytest.fixture
def _no_credentials_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither variables nor tools of this machine, nor a managed identity."""
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("HOME", "/nonexistent")


@pytest.mark.usefixtures("_no_credentials_here")
@pytest.mark.parametrize("credential", ["default", "managed_identity"])
async def test_without_credentials_it_says_where_they_may_come_from(
    context: PlainContext, vault: Vault, credential: str
) -> None:
    async with opened(
        context, vault, credential=credential, client_secret=None, client_id=None, tenant_id=None
    ) as store:
        with pytest.raises(AtlasError, match="there is no token") as caught:
            await store.get("db")
    assert caught.value.code == "secret.unavailable"
    assert "managed identity" in caught.value.hint


async def test_a_challenge_of_another_domain_is_not_followed(
    context: PlainContext, vault: Vault
) -> None:
    async with opened(context, vault, verify_challenge=True) as store:
        with pytest.raises(AtlasError, match="another domain") as caught:
            await store.get("db")
    assert caught.value.code == "plugin.settings"
    assert "verify_challenge" in caught.value.hint


async def test_a_name_that_becomes_too_long(context: PlainContext, vault: Vault) -> None:
    async with opened(context, vault) as store:
        await store.put("x" * 115, VALUE)
        with pytest.raises(AtlasError, match="128 characters with the prefix"):
            await store.put("x" * 116, VALUE)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "vault_url"),
        ({"vault_url": "http://shop.vault.azure.net"}, "https://shop.vault.azure.net"),
        ({"vault_url": "https://shop.vault.azure.net/secrets/db"}, "such as https"),
        (
            {"vault_url": "https://v", "credential": "client_secret"},
            "needs tenant_id and client_id and client_secret",
        ),
        (
            {"vault_url": "https://v", "credential": "certificate", "tenant_id": "t"},
            "needs client_id and certificate",
        ),
        ({"vault_url": "https://v", "client_secret": CLIENT_SECRET}, "is used with credential"),
        ({"vault_url": "https://v", "credential": "guess"}, "default"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        AzureSettings.model_validate(settings)
    assert CLIENT_SECRET not in str(caught.value)
