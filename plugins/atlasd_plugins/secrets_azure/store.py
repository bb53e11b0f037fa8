"""Key Vault through the real SDK, whose calls block: each operation is done in a thread."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

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
from atlasd_plugins.secrets_azure.client import make_client
from atlasd_plugins.secrets_azure.faults import Question, fault_of, no_version, not_found
from atlasd_plugins.secrets_azure.names import LONGEST, decode, encode
from atlasd_plugins.secrets_azure.settings import AzureSettings
from atlasd_plugins.secrets_azure.stages import (
    ORDER,
    PUT,
    moved,
    newest_first,
    stages_of,
)
from atlasd_plugins.secrets_azure.versions import (
    ACTOR,
    Version,
    content_of,
    foreign_tags,
    shown,
    time_of,
    value_of,
    version_of,
)

if TYPE_CHECKING:
    from azure.keyvault.secrets import SecretClient

T = TypeVar("T")

MOST_TAG = 256
AT_ONCE = 8
"""Calls that are under way. A configuration asks for all of its secrets at once, and more calls
would wait for a thread than may."""
WAIT = 12.0
"""Seconds in which Key Vault should have deleted or recovered; it takes a few."""


class AzureStore:
    """The secrets of one environment, which are those of a vault whose names have its prefix."""

    def __init__(self, settings: AzureSettings, context: PluginContext) -> None:
        self._settings = settings
        self._context = context
        self._prefix = settings.prefix.replace("{environment}", context.environment)
        self._place = f"Azure Key Vault {settings.vault_url}"
        self._lock = threading.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._made: tuple[SecretClient, Any] | None = None
        self._order = 0

    # --- the contract

    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        """One version, with its value."""
        question = self._about(name)
        return await self._run(question, partial(self._get, question, version, stage))

    async def describe(self, name: str) -> SecretInfo:
        """What is known of it, deleted ones included."""
        question = self._about(name)
        return await self._run(question, partial(self._describe, question))

    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        """A new version, in one call that is never repeated: Key Vault would make two of it."""
        _check_stage(stage)
        question = self._about(name)
        return await self._run(question, partial(self._put, question, value, stage, actor))

    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        """All secrets of the prefix, deleted ones included if those may be listed."""
        question = Question(place=self._place)
        return await self._run(question, partial(self._list, prefix))

    async def versions(self, name: str) -> Sequence[SecretVersion]:
        """All versions, the newest first."""
        question = self._about(name)
        return await self._run(question, partial(self._list_versions, question))

    async def stage(self, name: str, version: str, stage: str) -> None:
        """Move a stage, by one change of the version's tags."""
        _check_stage(stage)
        question = self._about(name)
        await self._run(question, partial(self._stage, question, version, stage))

    async def delete(self, name: str, *, recovery: timedelta | None = None) -> SecretInfo:
        """Delete it; with a recovery of zero it is purged, which the vault may forbid."""
        question = self._about(name)
        return await self._run(question, partial(self._delete, question, recovery))

    async def recover(self, name: str) -> SecretInfo:
        """Have a deleted secret back; one that is not deleted stays as it is."""
        question = self._about(name)
        return await self._run(question, partial(self._recover, question))

    # --- in a thread

    def _get(self, question: Question, version: str, stage: str) -> SecretVersion:
        versions = self._versions(question)
        stages = stages_of(versions)
        wanted = version or stages.get(stage, "")
        found = next((each for each in versions if each.id == wanted), None)
        if found is None:
            what = f"version {version!r}" if version else f"version at stage {stage!r}"
            raise no_version(question, what)
        self._check_usable(question, found)
        secret = self._client.get_secret(question.full_name, found.id)
        value = value_of(question, secret.value or "", secret.properties.content_type)
        return shown(question, found, stages, value=value)

    def _check_usable(self, question: Question, version: Version) -> None:
        """Key Vault gives out what is not yet, or no longer, valid: it leaves that to readers."""
        now = self._now()
        fault = ""
        if not version.enabled:
            fault = "is disabled"
        elif version.not_before is not None and now < version.not_before:
            fault = f"is not valid before {version.not_before:%Y-%m-%d %H:%M} UTC"
        elif version.expires is not None and version.expires <= now:
            fault = f"has expired on {version.expires:%Y-%m-%d %H:%M} UTC"
        if fault:
            raise AtlasError(
                "secret.disabled",
                f"{question.subject}: version {version.id} {fault} in {question.place}",
            )

    def _describe(self, question: Question) -> SecretInfo:
        try:
            versions = self._versions(question)
        except AtlasError as error:
            if error.code != "secret.not_found":
                raise
            return self._deleted(question)
        stages = stages_of(versions)
        current = next((each for each in versions if each.id == stages.get(CURRENT)), versions[0])
        return SecretInfo(
            name=question.name,
            current=stages.get(CURRENT, ""),
            created=min(each.created for each in versions),
            changed=max(each.updated or each.created for each in versions),
            versions=len(versions),
            tags=foreign_tags(current.tags),
        )

    def _put(self, question: Question, value: SecretValue, stage: str, actor: str) -> SecretVersion:
        if stage == PREVIOUS:
            raise _follows(question)
        text, content_type = content_of(question, value)
        tags = {ORDER: self._next_order()}
        if actor:
            tags[ACTOR] = actor[:MOST_TAG]
        if stage == PENDING:
            tags[PUT] = PENDING
        made = self._client.set_secret(
            question.full_name, text, content_type=content_type, tags=tags, retry_total=0
        )
        version = version_of(made.properties)
        return SecretVersion(
            name=question.name,
            version=version.id,
            stages=(stage,),
            created=version.created,
            created_by=actor,
        )

    def _next_order(self) -> str:
        with self._lock:
            self._order = max(self._order + 1, int(self._context.clock.wall() * 1e9))
            return str(self._order)

    def _list(self, prefix: str) -> Sequence[SecretInfo]:
        from azure.core.exceptions import HttpResponseError

        infos = [
            SecretInfo(
                name=name,
                created=time_of(found.created_on),
                changed=time_of(found.updated_on),
                tags=foreign_tags(found.tags or {}),
            )
            for found in self._client.list_properties_of_secrets()
            if (name := self._own(found.name)) is not None
        ]
        try:
            infos += [
                SecretInfo(
                    name=name,
                    deleted=time_of(gone.deleted_date),
                    recoverable_until=time_of(gone.scheduled_purge_date),
                )
                for gone in self._client.list_deleted_secrets()
                if (name := self._own(gone.name)) is not None
            ]
        except HttpResponseError as error:
            if error.status_code != 403:
                raise
            # Who may only read secrets may not list the deleted ones.
        wanted = (info for info in infos if info.name.startswith(prefix))
        return sorted(wanted, key=lambda info: info.name)

    def _own(self, full_name: str | None) -> str | None:
        """The name of a secret by its name in Key Vault; None if it is not of this environment."""
        decoded = decode(full_name or "")
        if decoded is None or not decoded.startswith(self._prefix):
            return None
        return decoded[len(self._prefix) :] or None

    def _list_versions(self, question: Question) -> Sequence[SecretVersion]:
        versions = self._versions(question)
        stages = stages_of(versions)
        return [shown(question, each, stages) for each in versions]

    def _stage(self, question: Question, version: str, stage: str) -> None:
        versions = self._versions(question)
        found = next((each for each in versions if each.id == version), None)
        if found is None:
            raise no_version(question, f"version {version!r}")
        if stage == PREVIOUS:
            raise _follows(question)
        held = [each for each, holder in stages_of(versions).items() if holder == version]
        if stage in held and not (stage == CURRENT and PENDING in held):
            return
        if stage == CURRENT:
            self._check_usable(question, found)
        self._client.update_secret_properties(
            question.full_name, version, tags=moved(versions, found, stage)
        )

    def _delete(self, question: Question, recovery: timedelta | None) -> SecretInfo:
        try:
            versions = self._versions(question)
        except AtlasError as error:
            if error.code != "secret.not_found" or recovery != timedelta(0):
                raise
            return self._purge(question, self._deleted(question))
        newest = versions[0]
        if recovery == timedelta(0) and "Purgeable" not in newest.recovery_level:
            raise AtlasError(
                "secret.conflict",
                f"{question.subject}: {question.place} is protected against purging, so nothing "
                "is deleted for good before its time",
                hint="delete it with a time for recovery",
            )
        if recovery not in {None, timedelta(0), timedelta(days=newest.recoverable_days or 0)}:
            raise AtlasError(
                "secret.invalid",
                f"{question.subject}: what is deleted in {question.place} can be recovered for "
                f"{newest.recoverable_days} days, not for {recovery}",
                hint="the time is a setting of the vault, for all its secrets",
            )
        poller = self._client.begin_delete_secret(question.full_name, retry_total=0)
        poller.wait(WAIT)
        gone = poller.result()
        info = SecretInfo(
            name=question.name,
            deleted=time_of(gone.deleted_date) or self._now(),
            recoverable_until=time_of(gone.scheduled_purge_date),
        )
        return info if recovery != timedelta(0) else self._purge(question, info)

    def _purge(self, question: Question, info: SecretInfo) -> SecretInfo:
        self._client.purge_deleted_secret(question.full_name)
        return SecretInfo(name=info.name, deleted=info.deleted)

    def _deleted(self, question: Question) -> SecretInfo:
        """What is known of a deleted secret. Not found, too, for who may not know of it."""
        from azure.core.exceptions import HttpResponseError

        try:
            gone = self._client.get_deleted_secret(question.full_name)
        except HttpResponseError as error:
            if error.status_code in {403, 404}:
                raise not_found(question) from None
            raise
        return SecretInfo(
            name=question.name,
            deleted=time_of(gone.deleted_date) or self._now(),
            recoverable_until=time_of(gone.scheduled_purge_date),
            tags=foreign_tags(gone.properties.tags or {}),
        )

    def _recover(self, question: Question) -> SecretInfo:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            self._client.begin_recover_deleted_secret(question.full_name).wait(WAIT)
        except ResourceNotFoundError:
            pass  # not deleted: it is there, or never was
        info = self._describe(question)
        if info.deleted is not None:
            raise AtlasError(
                "secret.conflict",
                f"{question.subject} is still being recovered in {question.place}",
                hint="try again in a moment",
            )
        return info

    def _versions(self, question: Question) -> Sequence[Version]:
        """All versions, the newest first. Raises `secret.not_found` where there are none."""
        from azure.core.exceptions import ResourceNotFoundError

        found = self._client.list_properties_of_secret_versions(question.full_name)
        try:
            versions = newest_first([version_of(each) for each in found])
        except ResourceNotFoundError:
            versions = []
        if not versions:
            raise not_found(question)
        return versions

    # --- asking

    def _about(self, name: str) -> Question:
        """A question about one secret. Raises for a name that Key Vault cannot have."""
        full = encode(self._prefix + name) if name.isprintable() else ""
        if not name or not full:
            raise AtlasError(
                "secret.invalid",
                f"a secret in Azure cannot be named {name!r}",
                hint="use characters that can be printed",
            )
        if len(full) > LONGEST:
            raise AtlasError(
                "secret.invalid",
                f"the name {name[:40]!r}… is too long for Azure: {len(full)} characters with the "
                f"prefix, and {LONGEST} is the most",
                hint="capitals, and all but letters, digits, / and -, take five characters each",
            )
        return Question(place=self._place, name=name, full_name=full)

    async def _run(self, question: Question, work: Callable[[], T]) -> T:
        """What an operation gives, from a thread."""
        async with self._turns:
            return await self._context.in_thread(self._guarded, question, work)

    def _guarded(self, question: Question, work: Callable[[], T]) -> T:
        """What an operation gives. Raises `AtlasError`, with nothing of what was sent in it."""
        from azure.core.exceptions import AzureError

        try:
            return work()
        except (AzureError, ValueError) as error:
            fault = fault_of(question, error)
        # Out of the handler: the SDK's error may quote what was sent, and would be chained.
        raise fault

    @property
    def _client(self) -> "SecretClient":
        """The client, made when it is first needed: that loads the SDK, and takes a moment."""
        with self._lock:
            if self._made is None:
                self._made = make_client(self._settings)
            return self._made[0]

    def close(self) -> None:
        """Close the connections."""
        if self._made is not None:
            for part in self._made:
                part.close()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._context.clock.wall(), tz=UTC)


def _check_stage(stage: str) -> None:
    if stage not in STAGES:
        raise AtlasError(
            "secret.invalid", f"{stage!r} is not a stage", hint="stages: " + ", ".join(STAGES)
        )


def _follows(question: Question) -> AtlasError:
    return AtlasError(
        "secret.invalid",
        f"{question.subject}: in Azure `previous` is what was current before, and is not moved by "
        "itself",
        hint="move current",
    )
