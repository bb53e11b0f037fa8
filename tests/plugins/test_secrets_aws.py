"""AWS Secrets Manager: what stands in AWS, and what is said when it does not work."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from atlasd.contracts.secrets import CURRENT, PENDING, SecretValue
from atlasd.errors import AtlasError
from atlasd.testing import PlainContext
from atlasd.testing.secrets.asserting import shown
from atlasd_plugins.secrets_aws import open_backend
from atlasd_plugins.secrets_aws.faults import Question, answered
from atlasd_plugins.secrets_aws.settings import AwsSettings
from atlasd_plugins.secrets_aws.store import AwsStore
from tests.plugins import moto_server
from tests.plugins.front import Front, front_of
from tests.plugins.listeners import free_port

BASE = {"region": "eu-central-1", "attempts": 1}
VALUE = SecretValue("correct-horse")


@pytest.fixture(autouse=True)
def _nobody_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of this machine, and none from a cloud that it may run in."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent/aws")
    moto_server.read_models_once(monkeypatch)


@pytest.fixture
def moto() -> str:
    return moto_server.emptied()


@pytest.fixture
def front(moto: str) -> Iterator[Front]:
    with front_of(moto) as front:
        yield front


@asynccontextmanager
async def _opened(context: PlainContext, **settings: Any) -> AsyncIterator[AwsStore]:
    model = AwsSettings.model_validate({**BASE, **settings})
    async with open_backend(model, context) as store:
        yield store


def opened(
    context: PlainContext, url: str, **settings: Any
) -> AbstractAsyncContextManager[AwsStore]:
    return _opened(context, endpoint_url=url, **{**moto_server.KEYS, **settings})


def aws(url: str) -> Any:
    """Somebody else's client."""
    import boto3

    return boto3.session.Session("test", "test", region_name="eu-central-1").client(
        "secretsmanager", endpoint_url=url
    )


# --- what stands in AWS


async def test_other_programs_read_what_was_put(context: PlainContext, moto: str) -> None:
    async with opened(context, moto, kms_key_id="alias/shop") as store:
        put = await store.put("db/password", VALUE)
        await store.put("blob", SecretValue(b"\xff\x00"))
    found = aws(moto).get_secret_value(SecretId="production/db/password")
    assert found["SecretString"] == "correct-horse"
    assert found["VersionId"] == put.version
    assert aws(moto).get_secret_value(SecretId="production/blob")["SecretBinary"] == b"\xff\x00"
    assert aws(moto).describe_secret(SecretId="production/blob")["KmsKeyId"] == "alias/shop"


async def test_what_others_have_put_is_read(context: PlainContext, moto: str) -> None:
    aws(moto).create_secret(
        Name="production/legacy",
        SecretString='{"user": "app"}',
        Tags=[{"Key": "team", "Value": "shop"}],
    )
    aws(moto).create_secret(Name="staging/legacy", SecretString="of staging")
    async with opened(context, moto) as store:
        found = await store.get("legacy")
        assert found.value == SecretValue('{"user": "app"}')
        assert found.created is not None
        assert abs(found.created - datetime.now(UTC)) < timedelta(hours=1)
        (info,) = await store.list()
        assert (info.name, info.current, info.tags) == ("legacy", found.version, {"team": "shop"})


@pytest.mark.parametrize(
    ("prefix", "full"),
    [
        ("", "db"),
        ("shop/{environment}/", "shop/production/db"),
        ("{environment}-", "production-db"),
    ],
)
async def test_the_prefix_is_what_the_names_begin_with(
    context: PlainContext, moto: str, prefix: str, full: str
) -> None:
    async with opened(context, moto, prefix=prefix) as store:
        await store.put("db", VALUE)
        assert [info.name for info in await store.list()] == ["db"]
    assert [entry["Name"] for entry in aws(moto).list_secrets()["SecretList"]] == [full]


async def test_a_secret_without_a_value_has_no_current_version(
    context: PlainContext, moto: str
) -> None:
    aws(moto).create_secret(Name="production/empty")
    async with opened(context, moto) as store:
        with pytest.raises(AtlasError, match="'empty'") as caught:
            await store.get("empty")
        assert caught.value.code == "secret.not_found"
        assert list(await store.versions("empty")) == []
        assert (await store.describe("empty")).current == ""
        await store.put("empty", VALUE)
        assert (await store.get("empty")).value == VALUE


async def test_a_promotion_that_was_cut_short_is_completed(
    context: PlainContext, moto: str
) -> None:
    async with opened(context, moto) as store:
        first = await store.put("db", SecretValue("old"))
        second = await store.put("db", SecretValue("new"), stage=PENDING)
        aws(moto).update_secret_version_stage(
            SecretId="production/db",
            VersionStage="AWSCURRENT",
            MoveToVersionId=second.version,
            RemoveFromVersionId=first.version,
        )
        assert (await store.get("db")).stages == (CURRENT, PENDING)
        await store.stage("db", second.version, CURRENT)
        assert (await store.get("db")).stages == (CURRENT,)


async def test_versions_without_a_label_can_be_had_back(context: PlainContext, moto: str) -> None:
    async with opened(context, moto) as store:
        first, *_ = [await store.put("db", SecretValue(text)) for text in ("1", "2", "3", "4")]
        await store.stage("db", first.version, CURRENT)
        assert (await store.get("db")).value == SecretValue("1")


@pytest.mark.parametrize("days", [6, 31, 7.5, 0.001])
async def test_a_window_that_aws_has_not(context: PlainContext, moto: str, days: float) -> None:
    async with opened(context, moto) as store:
        await store.put("db", VALUE)
        with pytest.raises(AtlasError, match="7 to 30 whole days") as caught:
            await store.delete("db", recovery=timedelta(days=days))
        assert caught.value.code == "secret.invalid"
        assert (await store.get("db")).value == VALUE


async def test_the_end_of_the_window_is_told(context: PlainContext, moto: str) -> None:
    async with opened(context, moto) as store:
        await store.put("db", VALUE)
        deleted = await store.delete("db", recovery=timedelta(days=7))
        described = await store.describe("db")
        week = datetime.now(UTC) + timedelta(days=7)
        for until in (deleted.recoverable_until, described.recoverable_until):
            assert until is not None
            assert abs(until - week) < timedelta(hours=1)
        with pytest.raises(AtlasError) as caught:
            await store.get("db")
        assert caught.value.code == "secret.not_found"
        assert caught.value.hint == "atlasctl secret recover db"


# --- what goes wrong


async def test_a_put_whose_answer_is_lost_makes_one_version(
    context: PlainContext, front: Front
) -> None:
    async with opened(context, front.url, attempts=3) as store:
        await store.put("db", SecretValue("first"))
        front.lose = 1
        put = await store.put("db", SecretValue("second"))
        assert front.operations.count("PutSecretValue") >= 4
        assert len(await store.versions("db")) == 2
        assert (await store.get("db")).version == put.version


async def test_nobody_is_asked_for_what_cannot_be(context: PlainContext, front: Front) -> None:
    async with opened(context, front.url) as store:
        for call in (
            store.get("two words"),
            store.get("db", version="1"),
            store.get("db", stage="live"),
            store.put("db", SecretValue("")),
            store.put("db", SecretValue("x" * 65537)),
            store.stage("db", "1", "live"),
        ):
            with pytest.raises(AtlasError) as caught:
                await call
            assert caught.value.code in {"secret.invalid", "secret.not_found"}
        assert list(await store.list("two words")) == []
    assert front.asked == []


async def test_throttling_says_for_how_long(context: PlainContext, front: Front) -> None:
    async with opened(context, front.url) as store:
        body = json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"}).encode()
        front.answers = [(400, {"Retry-After": "7"}, body), (400, {}, body)]
        with pytest.raises(AtlasError, match="wants fewer calls") as caught:
            await store.get("db")
        assert caught.value.code == "secret.throttled"
        assert caught.value.details == {"retry_after": 7.0}
        with pytest.raises(AtlasError) as caught:
            await store.get("db")
        assert caught.value.details == {}


async def test_throttling_is_not_retried_for_long(context: PlainContext, front: Front) -> None:
    async with opened(context, front.url, attempts=2) as store:
        body = json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"}).encode()
        front.answers = [(400, {}, body)] * 5
        with pytest.raises(AtlasError):
            await store.get("db")
    assert len(front.asked) == 2


async def test_the_right_that_is_missing_is_named(context: PlainContext, front: Front) -> None:
    words = "User: arn:aws:iam::1:user/web is not authorized to perform: ..."
    body = json.dumps({"__type": "AccessDeniedException", "Message": words}).encode()
    async with opened(context, front.url) as store:
        front.answers = [(400, {}, body)]
        with pytest.raises(AtlasError, match="user/web is not authorized") as caught:
            await store.get("db")
    assert caught.value.code == "secret.denied"
    assert caught.value.hint == (
        "allow secretsmanager:GetSecretValue on secret:production/db-??????"
    )


async def test_an_error_that_quotes_the_value_is_not_repeated(
    context: PlainContext, front: Front
) -> None:
    words = "1 validation error detected: Value 'correct-horse' at 'secretString' failed"
    body = json.dumps({"__type": "ValidationException", "message": words}).encode()
    async with opened(context, front.url) as store:
        front.answers = [(400, {}, body)]
        with pytest.raises(AtlasError) as caught:
            await store.put("db", VALUE)
    assert caught.value.code == "secret.invalid"
    assert "correct-horse" not in shown(caught.value)


@pytest.mark.parametrize(
    ("code", "words", "status", "operation", "ours"),
    [
        ("ResourceNotFoundException", "can't find the specified secret.", 400, "", "not_found"),
        ("AccessDeniedException", "no", 400, "", "denied"),
        ("UnrecognizedClientException", "invalid security token", 400, "", "denied"),
        ("ExpiredTokenException", "expired", 400, "", "denied"),
        (
            "InvalidSignatureException",
            "Signature expired: 1 is now earlier",
            400,
            "",
            "unavailable",
        ),
        ("InvalidSignatureException", "does not match", 400, "", "denied"),
        ("", "", 403, "", "denied"),
        ("DecryptionFailure", "cannot decrypt", 400, "", "key"),
        ("TooManyRequestsException", "", 429, "", "throttled"),
        ("", "", 429, "", "throttled"),
        ("InternalServiceError", "", 500, "", "unavailable"),
        ("ServiceUnavailable", "", 503, "", "unavailable"),
        ("UnknownOperationException", "", 404, "", "unavailable"),
        ("LimitExceededException", "too many versions", 400, "PutSecretValue", "conflict"),
        ("InvalidRequestException", "marked for deletion", 400, "GetSecretValue", "not_found"),
        ("InvalidRequestException", "scheduled for deletion", 400, "CreateSecret", "conflict"),
        ("InvalidRequestException", "managed by rds", 400, "PutSecretValue", "conflict"),
        ("InvalidParameterException", "bad", 400, "PutSecretValue", "invalid"),
    ],
)
def test_errors_of_aws_in_our_words(
    code: str, words: str, status: int, operation: str, ours: str
) -> None:
    question = Question(place="AWS", name="db", full_name="production/db", stage=CURRENT)
    error = answered(
        question,
        operation or "GetSecretValue",
        {
            "Error": {"Code": code, "Message": words},
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
        },
    )
    assert error.code == f"secret.{ours}"
    assert "'db'" in error.message


async def test_what_is_no_secrets_manager_is_recognised(
    context: PlainContext, front: Front
) -> None:
    async with opened(context, front.url) as store:
        front.answers = [(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")]
        with pytest.raises(AtlasError, match="not Secrets Manager") as caught:
            await store.get("db")
    assert caught.value.code == "secret.unavailable"


async def test_an_outage_names_the_address(context: PlainContext) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with opened(context, url) as store:
        with pytest.raises(AtlasError, match=url) as caught:
            await store.get("db")
    assert caught.value.code == "secret.unavailable"
    assert caught.value.message.startswith("secret 'db': AWS Secrets Manager in eu-central-1 ")


async def test_without_credentials_it_says_where_they_may_come_from(
    context: PlainContext, moto: str
) -> None:
    async with _opened(context, endpoint_url=moto) as store:
        with pytest.raises(AtlasError, match="without credentials") as caught:
            await store.get("db")
    assert caught.value.code == "secret.unavailable"
    assert "access_key_id" in caught.value.hint


async def test_without_a_region_it_says_how_to_set_it(context: PlainContext) -> None:
    async with _opened(context, region=None, **moto_server.KEYS) as store:
        with pytest.raises(AtlasError, match="region") as caught:
            await store.get("db")
    assert caught.value.code == "plugin.settings"
    assert "AWS_REGION" in caught.value.hint


async def test_a_profile_that_is_not_there_is_named(context: PlainContext) -> None:
    async with _opened(context, profile="shop") as store:
        with pytest.raises(AtlasError, match="shop") as caught:
            await store.get("db")
    assert caught.value.code == "plugin.settings"


async def test_a_role_is_taken(
    context: PlainContext, front: Front, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
    role = "arn:aws:iam::123456789012:role/secrets"
    async with opened(context, front.url, role_arn=role, external_id="shop") as store:
        await store.put("db", VALUE)
        assert (await store.get("db")).value == VALUE
    assert all("x-amz-security-token" in headers for headers in front.asked)
    assert all("Credential=test/" not in headers["authorization"] for headers in front.asked)


async def test_a_role_that_cannot_be_taken_is_no_outage_of_the_daemon(
    context: PlainContext, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{free_port()}")
    role = "arn:aws:iam::123456789012:role/secrets"
    async with opened(context, front.url, role_arn=role) as store:
        with pytest.raises(AtlasError) as caught:
            await store.get("db")
    assert caught.value.code == "secret.unavailable"
    assert front.asked == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prefix": "two words/"}, "of which names in AWS are made"),
        ({"prefix": "{env}/"}, "of which names in AWS are made"),
        ({"endpoint_url": "localhost:4566"}, "https://"),
        ({"endpoint_url": "http://secrets.example"}, "https://"),
        ({"access_key_id": "a"}, "given together"),
        ({"secret_access_key": "s3cr3t"}, "given together"),
        ({"timeout": "0s"}, "greater than 0"),
        ({"attempts": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        AwsSettings.model_validate(settings)
    assert "s3cr3t" not in str(caught.value)
