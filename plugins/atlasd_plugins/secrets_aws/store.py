"""Secrets Manager through boto3, whose calls block: each goes through a thread."""

import asyncio
import re
import threading
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from atlasd.contracts.context import PluginContext
from atlasd.contracts.secrets import (
    CURRENT,
    PENDING,
    PREVIOUS,
    STAGES,
    SecretInfo,
    SecretValue,
    SecretVersion,
)
from atlasd.errors import AtlasError
from atlasd_plugins.secrets_aws.client import make_client
from atlasd_plugins.secrets_aws.faults import (
    Question,
    answered,
    deleted,
    no_version,
    unanswered,
)
from atlasd_plugins.secrets_aws.settings import NAME, AwsSettings

LABELS: Mapping[str, str] = {
    CURRENT: "AWSCURRENT",
    PREVIOUS: "AWSPREVIOUS",
    PENDING: "AWSPENDING",
}
"""Staging labels of AWS by our stages."""
MOST_NAME = 512
MOST_VALUE = 65536
WINDOW = range(7, 31)
"""Days for which AWS can keep what was deleted."""
PAGE = 100
"""Secrets, or versions, that are asked for at a time."""

AT_ONCE = 8
"""Calls that are under way. A configuration asks for all of its secrets at once, and more calls
would wait for a thread than may."""

_VERSION = re.compile(r"[\x21-\x7e]{32,64}")


class AwsStore:
    """The secrets of one environment, which are those whose names in AWS begin with the prefix."""

    def __init__(self, settings: AwsSettings, context: PluginContext) -> None:
        self._settings = settings
        self._context = context
        self._prefix = settings.prefix.replace("{environment}", context.environment)
        self._lock = threading.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._made: Any = None

    # --- the contract

    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        """One version, with its value."""
        question = self._about(name, version=version, stage=stage)
        if version and not _VERSION.fullmatch(version):
            raise no_version(question)
        if not version and stage not in STAGES:
            raise no_version(question)
        which = {"VersionId": version} if version else {"VersionStage": LABELS[stage]}
        found = await self._call("get_secret_value", question, **which)
        text = found.get("SecretString")
        return SecretVersion(
            name=name,
            version=found["VersionId"],
            stages=_stages(found.get("VersionStages", ())),
            created=_time(found.get("CreatedDate")),
            value=SecretValue(found["SecretBinary"] if text is None else text),
        )

    async def describe(self, name: str) -> SecretInfo:
        """What is known of it, deleted ones included."""
        return self._info(name, await self._call("describe_secret", self._about(name)))

    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        """A new version. Who has put it stands in CloudTrail: AWS keeps no word of ours."""
        _check_stage(stage)
        question = self._about(name)
        content = _content(question, value)
        # The token is the version's id. Sent again after an answer was lost, it makes no second
        # version, whether it is boto3 that tries again or the steps below.
        asked = {
            "ClientRequestToken": str(uuid.uuid4()),
            "VersionStages": [LABELS[stage]],
            **content,
        }
        try:
            put = await self._call("put_secret_value", question, **asked)
        except AtlasError as error:
            if error.code != "secret.not_found":
                raise
            await self._create(question)
            put = await self._call("put_secret_value", question, **asked)
        return SecretVersion(
            name=name, version=put["VersionId"], stages=_stages(put.get("VersionStages", ()))
        )

    async def _create(self, question: Question) -> None:
        """Make a secret without a version: AWS would make its first one current at once."""
        asked = {"Name": question.full_name, "Description": "kept by atlasd"}
        if self._settings.kms_key_id is not None:
            asked["KmsKeyId"] = self._settings.kms_key_id
        try:
            await self._ask("create_secret", question, asked)
        except AtlasError as error:
            # Somebody else may have been quicker: ours becomes its next version.
            if error.details.get("aws") != "ResourceExistsException":
                raise

    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        """All secrets of the prefix, those included whose deletion can be undone."""
        begin = self._prefix + prefix
        if begin and not NAME.fullmatch(begin):
            return []  # nothing can have such a name, and a filter may mean something else by it
        asked: dict[str, Any] = {"MaxResults": PAGE, "IncludePlannedDeletion": True}
        if begin:
            asked["Filters"] = [{"Key": "name", "Values": [begin]}]
        question = self._about_all()
        infos = [
            self._info(entry["Name"].removeprefix(self._prefix), entry)
            async for entry in self._pages("list_secrets", question, "SecretList", asked)
            if entry["Name"].startswith(begin) and entry["Name"] != self._prefix
        ]
        return sorted(infos, key=lambda info: info.name)

    async def versions(self, name: str) -> Sequence[SecretVersion]:
        """All versions that AWS still has: of those without a label it keeps about a hundred."""
        question = self._about(name)
        await self._present(question)
        return await self._versions(question)

    async def _versions(self, question: Question) -> Sequence[SecretVersion]:
        asked = {
            "SecretId": question.full_name,
            "MaxResults": PAGE,
            "IncludeDeprecated": True,
        }
        found = [
            SecretVersion(
                name=question.name,
                version=entry["VersionId"],
                stages=_stages(entry.get("VersionStages", ())),
                created=_time(entry.get("CreatedDate")),
                key=", ".join(entry.get("KmsKeyIds", ())),
            )
            async for entry in self._pages("list_secret_version_ids", question, "Versions", asked)
        ]
        # Of the same moment, the later in AWS's list is taken for the newer.
        oldest = datetime.min.replace(tzinfo=UTC)
        return sorted(found, key=lambda version: version.created or oldest)[::-1]

    async def stage(self, name: str, version: str, stage: str) -> None:
        """Move a label. AWS moves AWSPREVIOUS along with AWSCURRENT."""
        _check_stage(stage)
        question = self._about(name, version=version)
        labels = (await self._present(question)).get("VersionIdsToStages", {})
        if version not in labels:  # one without a label is not told of there
            known = await self._versions(question)
            if version not in {each.version for each in known}:
                raise no_version(question)
        holder = next((each for each in labels if LABELS[stage] in labels[each]), None)
        if holder != version:
            away = {} if holder is None else {"RemoveFromVersionId": holder}
            await self._label(question, stage, MoveToVersionId=version, **away)
        # What is in force is not pending any longer. A promotion that was cut short between the
        # two calls is completed by the next one.
        if stage == CURRENT and LABELS[PENDING] in labels.get(version, ()):
            await self._label(question, PENDING, RemoveFromVersionId=version)

    async def _label(self, question: Question, stage: str, **asked: str) -> None:
        await self._call(
            "update_secret_version_stage", question, VersionStage=LABELS[stage], **asked
        )

    async def delete(self, name: str, *, recovery: timedelta | None = None) -> SecretInfo:
        """Delete it, for good with a recovery of zero; AWS's own window is 30 days."""
        question = self._about(name)
        asked: dict[str, Any] = {}
        if recovery == timedelta(0):
            # AWS answers the forced deletion of what never was with success.
            await self._call("describe_secret", question)
            asked["ForceDeleteWithoutRecovery"] = True
        elif recovery is not None:
            asked["RecoveryWindowInDays"] = _days(question, recovery)
        done = await self._call("delete_secret", question, **asked)
        return SecretInfo(
            name=name,
            deleted=self._now(),
            recoverable_until=None if recovery == timedelta(0) else _time(done["DeletionDate"]),
        )

    async def recover(self, name: str) -> SecretInfo:
        """Have a deleted secret back; one that is not deleted stays as it is."""
        await self._call("restore_secret", self._about(name))
        return await self.describe(name)

    # --- asking AWS

    def _about(self, name: str, *, version: str = "", stage: str = "") -> Question:
        """A question about one secret. Raises for a name that AWS cannot have."""
        full = self._prefix + name
        if not name or not NAME.fullmatch(full):
            raise AtlasError(
                "secret.invalid",
                f"a secret in AWS cannot be named {name!r}",
                hint="use letters, digits and any of /_+=.@-",
            )
        if len(full) > MOST_NAME:
            raise AtlasError(
                "secret.invalid",
                f"the name {name[:40]!r}… is too long for AWS: {len(full)} characters with the "
                f"prefix, and {MOST_NAME} is the most",
            )
        return Question(
            place=self._place(), name=name, full_name=full, version=version, stage=stage
        )

    def _about_all(self) -> Question:
        return Question(place=self._place())

    def _place(self) -> str:
        region = self._settings.region or (self._made and self._made.meta.region_name)
        return f"AWS Secrets Manager{f' in {region}' if region else ''}"

    async def _present(self, question: Question) -> Mapping[str, Any]:
        """The description of a secret that is not deleted."""
        found = await self._call("describe_secret", question)
        if found.get("DeletedDate") is not None:
            raise deleted(question, "secret.not_found")
        return found

    async def _call(self, method: str, question: Question, **asked: Any) -> Mapping[str, Any]:
        return await self._ask(method, question, {"SecretId": question.full_name, **asked})

    async def _pages(
        self, method: str, question: Question, key: str, asked: Mapping[str, Any]
    ) -> AsyncIterator[Mapping[str, Any]]:
        """What all pages of an answer list under a key."""
        token: dict[str, str] = {}
        while True:
            page = await self._ask(method, question, {**asked, **token})
            for entry in page[key]:
                yield entry
            if not page.get("NextToken"):
                return
            token = {"NextToken": page["NextToken"]}

    async def _ask(
        self, method: str, question: Question, asked: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        async with self._turns:
            return await self._context.in_thread(self._blocking, method, question, asked)

    def _blocking(
        self, method: str, question: Question, asked: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """One call's answer. Raises `AtlasError`, with nothing of what was sent in it."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: Mapping[str, Any] = getattr(self._client(), method)(**asked)
        except ClientError as error:
            fault = answered(question, error.operation_name, error.response)
        except BotoCoreError as error:
            fault = unanswered(question, error)
        else:
            if answer.keys() & {"ARN", "SecretList"}:
                return answer
            fault = AtlasError(
                "secret.unavailable",
                f"{question.subject}: what answers is not Secrets Manager",
                hint="look at endpoint_url, and at proxies in between",
            )
        # Out of the handlers: the SDK's error may quote what was sent, and would be chained.
        raise fault

    def _client(self) -> Any:
        """The client, made when it is first needed: that reads files, and takes a moment."""
        with self._lock:
            if self._made is None:
                self._made = make_client(self._settings)
            return self._made

    def close(self) -> None:
        """Close the connections."""
        if self._made is not None:
            self._made.close()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._context.clock.wall(), tz=UTC)

    def _info(self, name: str, found: Mapping[str, Any]) -> SecretInfo:
        changed = _time(found.get("LastChangedDate"))
        date = _time(found.get("DeletedDate"))
        # AWS tells one date: as long as it is to come, it is the end of the recovery window. When
        # the deletion was is then known only as the last change.
        until = date if date is not None and date > self._now() else None
        labels = found.get("VersionIdsToStages") or found.get("SecretVersionsToStages") or {}
        return SecretInfo(
            name=name,
            current=next((each for each in labels if LABELS[CURRENT] in labels[each]), ""),
            created=_time(found.get("CreatedDate")),
            changed=changed,
            deleted=(changed or date) if until else date,
            recoverable_until=until,
            tags={tag["Key"]: tag["Value"] for tag in found.get("Tags", ())},
        )


def _check_stage(stage: str) -> None:
    if stage not in STAGES:
        raise AtlasError(
            "secret.invalid", f"{stage!r} is not a stage", hint="stages: " + ", ".join(STAGES)
        )


def _stages(labels: Iterable[str]) -> tuple[str, ...]:
    held = set(labels)
    return tuple(stage for stage in STAGES if LABELS[stage] in held)


def _content(question: Question, value: SecretValue) -> dict[str, Any]:
    """A value as AWS takes it: text where it is text, so that other programs can read it."""
    if not 0 < len(value) <= MOST_VALUE:
        raise AtlasError(
            "secret.invalid",
            f"{question.subject}: AWS keeps values of 1 to {MOST_VALUE} bytes, and this one has "
            f"{len(value)}",
        )
    try:
        return {"SecretString": value.text()}
    except ValueError:
        return {"SecretBinary": value.reveal()}


def _days(question: Question, recovery: timedelta) -> int:
    if recovery.days not in WINDOW or recovery != timedelta(days=recovery.days):
        raise AtlasError(
            "secret.invalid",
            f"{question.subject}: AWS can recover for 7 to 30 whole days, not for {recovery}",
            hint="give such a number of days, or zero to delete it for good",
        )
    return recovery.days


def _time(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)
