"""The one table of operations: what core can be asked over the control socket, how, and by whom.

Server, client, command line, OpenAPI document and reference are all made from `OPERATIONS`.
Models are named, not imported: `atlasctl` reads this table and must not pay for pydantic.

A request's fields come from the path, then from the query string (GET) or a JSON body (POST). An
answer is one JSON object; of a stream, one JSON object a line. An error is
`{"error": {"code", "message", "hint", "details"}}` with the status of `atlasd.errors.CODES`; in a
stream that has begun, the error is its last line.
"""

from enum import StrEnum
from typing import NamedTuple

PREFIX = "/v1"
"""Where all paths begin; a breaking change would open `/v2` beside it."""

PLUGIN_PREFIX = f"{PREFIX}/plugins"
"""Operations of plugins live below `/v1/plugins/<plugin>/`."""

HOST = "atlasd"
"""What the client sends as `Host`; `localhost` is accepted too, for curl."""

BODY_LIMIT = 8 * 1024 * 1024
"""Bytes that a request's body may have: the largest job's arguments, escaped, fit."""

LINE_LIMIT = 128 * 1024
"""Bytes that a request's first line, or one of its headers, may have."""

VERSION_HEADER = "Atlasd-Version"
"""Header of every answer: the daemon's version, so that a client of another one can say so."""

JSON = "application/json"
NDJSON = "application/x-ndjson"
METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Right(StrEnum):
    """What a caller may do; each includes those before it."""

    READ = "read"
    """See state, logs, events, health and configuration differences."""
    OPERATE = "operate"
    """Start, stop, scale, signal, reload, apply what the configuration says."""
    ADMINISTER = "administer"
    """Shut the daemon down, replace its program."""


class Operation(NamedTuple):
    """One thing that core can be asked."""

    name: str
    """Stable and dotted, `service.restart`: what `authorize` hooks and metrics see."""
    method: str
    path: str
    """With `{field}` where a field of the request stands."""
    request: str
    """Name of the request's model in `atlasd.control.models`."""
    answer: str
    """Name of the answer's model, or of one line's model in a stream; `str` for plain text."""
    right: Right
    summary: str
    """One sentence for the reference."""
    stream: bool = False
    lossy: bool = False
    """A stream whose slow reader loses lines, and is told how many, instead of holding it up."""
    media: str = JSON
    owner: str = ""
    """The plugin that added the operation; empty for atlasd's own."""

    @property
    def fields_in_path(self) -> tuple[str, ...]:
        """Names of the request's fields that the path carries."""
        parts = self.path.split("/")
        return tuple(p[1:-1] for p in parts if p.startswith("{") and p.endswith("}"))


_SERVICE = f"{PREFIX}/services/{{service}}"
_SECRET = f"{PREFIX}/secrets/{{name}}"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "status", "GET", "/v1/status", "Nothing", "Status", Right.READ,
        "What every service is wanted to be, and what each of its instances is.",
    ),
    Operation(
        "service", "GET", _SERVICE, "ServiceRequest", "ServiceDetail", Right.READ,
        "Everything known about one service.",
    ),
    Operation(
        "service.start", "POST", f"{_SERVICE}/start", "InstanceRequest", "Accepted", Right.OPERATE,
        "Wants a service up and starts what is not running; clears a failure.",
    ),
    Operation(
        "service.stop", "POST", f"{_SERVICE}/stop", "InstanceRequest", "Accepted", Right.OPERATE,
        "Wants a service down and stops it.",
    ),
    Operation(
        "service.restart", "POST", f"{_SERVICE}/restart", "InstanceRequest", "Accepted",
        Right.OPERATE,
        "Stops and starts a service's instances; a stopped service is started.",
    ),
    Operation(
        "service.reload", "POST", f"{_SERVICE}/reload", "InstanceRequest", "Accepted",
        Right.OPERATE,
        "Tells running instances to read their own configuration again; never restarts.",
    ),
    Operation(
        "service.pause", "POST", f"{_SERVICE}/pause", "ServiceRequest", "Accepted", Right.OPERATE,
        "Leaves a service as it is: what runs goes on, what ends is not restarted.",
    ),
    Operation(
        "service.signal", "POST", f"{_SERVICE}/signal", "SignalRequest", "Accepted", Right.OPERATE,
        "Sends a signal to the main process of running instances.",
    ),
    Operation(
        "service.scale", "POST", f"{_SERVICE}/scale", "ScaleRequest", "Scaled", Right.OPERATE,
        "Changes how many instances a service has, until it is scaled again.",
    ),
    Operation(
        "service.logs", "GET", f"{_SERVICE}/logs", "ServiceLogsRequest", "LogRecord", Right.READ,
        "Output of one service, a line each.",
        stream=True, media=NDJSON,
    ),
    Operation(
        "logs", "GET", "/v1/logs", "LogsRequest", "LogRecord", Right.READ,
        "Output of several or all services, in the order of time.",
        stream=True, media=NDJSON,
    ),
    Operation(
        "service.why", "GET", f"{_SERVICE}/why", "WhyRequest", "Why", Right.READ,
        "Tells in plain words how a service came to be as it is.",
    ),
    Operation(
        "events", "GET", "/v1/events", "EventsRequest", "Event", Right.READ,
        "What happened, a fact a line; with `follow`, as it happens.",
        stream=True, lossy=True, media=NDJSON,
    ),
    Operation(
        "plan", "GET", "/v1/plan", "Nothing", "Plan", Right.READ,
        "What `apply` would do to which instance, and why; changes nothing.",
    ),
    Operation(
        "apply", "POST", "/v1/apply", "Nothing", "Plan", Right.OPERATE,
        "Reads the configuration anew and does what the plan says.",
    ),
    Operation(
        "config.show", "GET", "/v1/config", "ConfigShowRequest", "ConfigBody", Right.READ,
        "The configuration that is in force, and where each setting stands; no secret.",
    ),
    Operation(
        "config.explain", "GET", "/v1/config/explain", "ConfigKeyRequest", "ConfigKey", Right.READ,
        "One setting: its value, where it comes from, what it shadows, what a change takes.",
    ),
    Operation(
        "config.sources", "GET", "/v1/config/sources", "Nothing", "ConfigSources", Right.READ,
        "The layers of the configuration, in the order in which they beat each other.",
    ),
    Operation(
        "config.schema", "GET", "/v1/config/schema", "Nothing", "ConfigSchema", Right.READ,
        "The JSON Schema of configuration files, with what the plugins add to it.",
    ),
    Operation(
        "config.diff", "GET", "/v1/config/diff", "ConfigDiffRequest", "ConfigDiff", Right.READ,
        "What two environments have different, as the files are now; no secret.",
    ),
    Operation(
        "config.export", "GET", "/v1/config/export", "ConfigExportRequest", "ConfigExport",
        Right.READ,
        "The configuration in force as a text, secrets as references.",
    ),
    Operation(
        "config.reveal", "POST", "/v1/config/reveal", "ConfigExportRequest", "ConfigExport",
        Right.ADMINISTER,
        "The configuration in force as a text, secrets included.",
    ),
    Operation(
        "config.set", "POST", "/v1/config/set", "ConfigSetRequest", "ConfigEdited",
        Right.ADMINISTER,
        "Writes a setting to its file, if the whole is valid with it.",
    ),
    Operation(
        "config.unset", "POST", "/v1/config/unset", "ConfigUnsetRequest", "ConfigEdited",
        Right.ADMINISTER,
        "Removes a setting from its file, if the whole is valid without it.",
    ),
    Operation(
        "config.encrypt", "POST", "/v1/config/encrypt", "ConfigEncryptRequest", "ConfigEdited",
        Right.ADMINISTER,
        "Encrypts a value where it stands in its file.",
    ),
    Operation(
        "config.decrypt", "POST", "/v1/config/decrypt", "ConfigDecryptRequest", "ConfigEdited",
        Right.ADMINISTER,
        "Puts an encrypted value back in plain text where it stands.",
    ),
    Operation(
        "config.reload", "POST", "/v1/config/reload", "ConfigReloadRequest", "ConfigReloaded",
        Right.OPERATE,
        "Reads the configuration anew and takes over all that needs no restart of a service.",
    ),
    Operation(
        "config.history", "GET", "/v1/config/history", "Nothing", "ConfigHistory", Right.READ,
        "The generations of the configuration that are kept, the latest first.",
    ),
    Operation(
        "config.rollback", "POST", "/v1/config/rollback", "ConfigRollbackRequest",
        "ConfigReloaded", Right.ADMINISTER,
        "Writes the files of an earlier generation back, and reads them.",
    ),
    Operation(
        "settings.list", "GET", "/v1/settings", "Nothing", "SettingsList", Right.READ,
        "The sets of application settings, and which services are given them.",
    ),
    Operation(
        "settings.show", "GET", "/v1/settings/{name}", "SettingsRequest", "SettingsBody",
        Right.READ,
        "A set of application settings and where each of them stands; secrets as references.",
    ),
    Operation(
        "settings.explain", "GET", "/v1/settings/{name}/explain", "SettingsKeyRequest",
        "SettingExplained", Right.READ,
        "One setting of an application: its value, where it is from, what it beats.",
    ),
    Operation(
        "settings.diff", "GET", "/v1/settings/{name}/diff", "SettingsDiffRequest", "SettingsDiff",
        Right.READ,
        "What two environments have different in a set, as the files are now.",
    ),
    Operation(
        "settings.render", "GET", f"{_SERVICE}/settings", "SettingsRenderRequest",
        "SettingsRendered", Right.READ,
        "What a service is given of its settings, references in the place of secrets.",
    ),
    Operation(
        "settings.reveal", "POST", f"{_SERVICE}/settings/reveal", "SettingsRenderRequest",
        "SettingsRendered", Right.ADMINISTER,
        "What a service is given of its settings, secrets included; entered in the audit log.",
    ),
    Operation(
        "secret.list", "GET", "/v1/secrets", "SecretsRequest", "Secrets", Right.READ,
        "The secrets of a backend, by name; no values.",
    ),
    Operation(
        "secret.check", "GET", "/v1/secrets-check", "Nothing", "SecretsChecked", Right.READ,
        "Every secret that the configuration refers to, whether it can be had, and the keys.",
    ),
    Operation(
        "secret.versions", "GET", f"{_SECRET}/versions", "SecretRequest", "SecretVersions",
        Right.READ,
        "The versions of a secret and their stages; no values.",
    ),
    Operation(
        "secret.impact", "GET", f"{_SECRET}/impact", "SecretRequest", "SecretImpact", Right.READ,
        "What a change of the secret would touch.",
    ),
    Operation(
        "secret.reveal", "POST", f"{_SECRET}/reveal", "SecretRevealRequest", "RevealedSecret",
        Right.ADMINISTER,
        "One version of a secret with its value; written to the audit log.",
    ),
    Operation(
        "secret.set", "POST", f"{_SECRET}/set", "SecretSetRequest", "SecretPut", Right.ADMINISTER,
        "Puts a new version of a secret, which is made if there is none.",
    ),
    Operation(
        "secret.rollback", "POST", f"{_SECRET}/rollback", "SecretRollbackRequest",
        "SecretRolledBack", Right.ADMINISTER,
        "Makes the previous version, or another one, current again.",
    ),
    Operation(
        "secret.delete", "POST", f"{_SECRET}/delete", "SecretDeleteRequest", "SecretState",
        Right.ADMINISTER,
        "Deletes a secret, which can be recovered for a while where its backend can.",
    ),
    Operation(
        "secret.recover", "POST", f"{_SECRET}/recover", "SecretRequest", "SecretState",
        Right.ADMINISTER,
        "Has a deleted secret back.",
    ),
    Operation(
        "secret.refresh", "POST", f"{_SECRET}/refresh", "SecretRefreshRequest", "SecretRefreshed",
        Right.OPERATE,
        "Fetches a secret now, as when it was refused where it is used; not more than once a "
        "minute.",
    ),
    Operation(
        "secret.rotate", "POST", f"{_SECRET}/rotate", "SecretRotateRequest", "SecretRotationStep",
        Right.ADMINISTER,
        "Rotates a secret: each step when it is done; it goes on when nobody listens.",
        stream=True, media=NDJSON,
    ),
    Operation(
        "secret.import", "POST", "/v1/secrets-import", "SecretImportRequest", "SecretsImported",
        Right.ADMINISTER,
        "Puts every value of a .env file or a JSON object.",
    ),
    Operation(
        "secret.export", "POST", "/v1/secrets-export", "SecretExportRequest", "SecretsExported",
        Right.ADMINISTER,
        "All values of a backend; each is written to the audit log.",
    ),
    Operation(
        "secret.keys", "GET", "/v1/secret-keys", "SecretKeysRequest", "SecretKeys", Right.READ,
        "The keys of a backend's key ring: their ids and where they were read.",
    ),
    Operation(
        "secret.keygen", "POST", "/v1/secret-keys/generate", "SecretKeysRequest", "SecretKey",
        Right.ADMINISTER,
        "Makes a new primary key, and keeps the others.",
    ),
    Operation(
        "secret.rotate-keys", "POST", "/v1/secret-keys/rotate", "SecretRotateKeysRequest",
        "SecretKeyProgress", Right.ADMINISTER,
        "Wraps every record with the primary key, then drops the others; can be killed and "
        "asked for again.",
        stream=True, media=NDJSON,
    ),
    Operation(
        "secret.audit", "GET", "/v1/secret-audit", "SecretAuditRequest", "SecretAudit",
        Right.READ,
        "Who did what to which secret.",
    ),
    Operation(
        "secret.audit-verify", "GET", "/v1/secret-audit/verify", "Nothing", "SecretAuditVerified",
        Right.READ,
        "Whether the audit log is what was written.",
    ),
    Operation(
        "job.enqueue", "POST", "/v1/jobs", "EnqueueRequest", "Enqueued", Right.OPERATE,
        "Enqueues jobs, all or none; they are durable when the answer comes.",
    ),
    Operation(
        "job.list", "GET", "/v1/jobs", "JobsRequest", "Jobs", Right.READ,
        "Jobs in brief, by id.",
    ),
    Operation(
        "job.show", "GET", "/v1/jobs/{id}", "JobRequest", "JobDetail", Right.READ,
        "Everything known about one job.",
    ),
    Operation(
        "job.explain", "GET", "/v1/jobs/{id}/explain", "JobRequest", "JobExplained", Right.READ,
        "The one reason why a job does not run, or what it does.",
    ),
    Operation(
        "job.watch", "GET", "/v1/jobs/{id}/watch", "JobWatchRequest", "JobStep", Right.READ,
        "A job as it is and, with `follow`, after each change until it has ended.",
        stream=True, media=NDJSON,
    ),
    Operation(
        "job.cancel", "POST", "/v1/jobs/{id}/cancel", "JobRequest", "JobDetail", Right.OPERATE,
        "Cancels a job that waits, and asks the worker of one that runs to stop it.",
    ),
    Operation(
        "job.retry", "POST", "/v1/jobs/{id}/retry", "JobRetryRequest", "JobDetail", Right.OPERATE,
        "Makes a job that has ended available again, with a fresh budget of attempts.",
    ),
    Operation(
        "job.work", "POST", "/v1/jobs-work", "WorkRequest", "Work", Right.OPERATE,
        "Settles jobs and claims new ones: for workers that speak HTTP.",
    ),
    Operation(
        "job.beat", "POST", "/v1/jobs-beat", "BeatRequest", "Beat", Right.OPERATE,
        "Prolongs leases: for workers that speak HTTP.",
    ),
    Operation(
        "queue.list", "GET", "/v1/queues", "Nothing", "Queues", Right.READ,
        "Every queue, and how many jobs of it are in which state.",
    ),
    Operation(
        "queue.show", "GET", "/v1/queues/{queue}", "QueueRequest", "QueueDetail", Right.READ,
        "Everything known about one queue: depth, throughput, workers, limits, verdict.",
    ),
    Operation(
        "queue.watch", "GET", "/v1/queues/{queue}/watch", "QueueWatchRequest", "QueueDetail",
        Right.READ,
        "A queue as it is and, with `follow`, as it changes until nothing waits or runs.",
        stream=True, media=NDJSON,
    ),
    Operation(
        "queue.pause", "POST", "/v1/queues/{queue}/pause", "QueueRequest", "QueuePaused",
        Right.OPERATE,
        "Has nothing more claimed from a queue; what runs goes on.",
    ),
    Operation(
        "queue.resume", "POST", "/v1/queues/{queue}/resume", "QueueRequest", "QueuePaused",
        Right.OPERATE,
        "Has jobs of a queue claimed again.",
    ),
    Operation(
        "queue.purge", "POST", "/v1/queues/{queue}/purge", "QueuePurgeRequest", "Touched",
        Right.ADMINISTER,
        "Deletes jobs of a queue that do not run.",
    ),
    Operation(
        "dead.groups", "GET", "/v1/dead", "DeadGroupsRequest", "DeadGroups", Right.READ,
        "Dead jobs, grouped by what killed them.",
    ),
    Operation(
        "dead.list", "GET", "/v1/dead/jobs", "DeadListRequest", "DeadJobs", Right.READ,
        "Dead jobs by id.",
    ),
    Operation(
        "dead.edit", "POST", "/v1/dead/jobs/{id}", "DeadEditRequest", "JobDetail", Right.OPERATE,
        "Gives a dead job other arguments, and requeues it if that is wanted.",
    ),
    Operation(
        "dead.requeue", "POST", "/v1/dead/requeue", "DeadRequeueRequest", "DeadTouched",
        Right.OPERATE,
        "Makes dead jobs available again.",
    ),
    Operation(
        "dead.purge", "POST", "/v1/dead/purge", "DeadChangeRequest", "DeadTouched",
        Right.ADMINISTER,
        "Deletes dead jobs.",
    ),
    Operation(
        "dead.export", "GET", "/v1/dead/export", "DeadRequest", "DeadRecord", Right.READ,
        "Dead jobs with all that is known of them, a line each.",
        stream=True, media=NDJSON,
    ),
    Operation(
        "dead.import", "POST", "/v1/dead/import", "DeadImportRequest", "DeadImported",
        Right.OPERATE,
        "Takes dead jobs in, all or none, under new ids; those that are here already are left.",
    ),
    Operation(
        "breaker.list", "GET", "/v1/breakers", "Nothing", "Breakers", Right.READ,
        "Every circuit breaker, and what it has counted.",
    ),
    Operation(
        "breaker.show", "GET", "/v1/breakers/{target}", "BreakerTargetRequest", "Breaker",
        Right.READ,
        "One circuit breaker.",
    ),
    Operation(
        "breaker.set", "POST", "/v1/breakers/{target}", "BreakerRequest", "Breaker",
        Right.OPERATE,
        "Forces a circuit breaker into a state, or gives it back to its rules.",
    ),
    Operation(
        "schedule.list", "GET", "/v1/schedules", "Nothing", "Schedules", Right.READ,
        "Every schedule: when it fires next, and what became of the last time.",
    ),
    Operation(
        "schedule.show", "GET", "/v1/schedules/{name}", "ScheduleRequest", "ScheduleDetail",
        Right.READ,
        "One schedule, and what became of its last times.",
    ),
    Operation(
        "schedule.preview", "GET", "/v1/schedules/{name}/preview", "SchedulePreviewRequest",
        "SchedulePreview", Right.READ,
        "When a schedule fires, and what changes of the clock do to it.",
    ),
    Operation(
        "schedule.run", "POST", "/v1/schedules/{name}/run", "ScheduleRequest", "ScheduleRun",
        Right.OPERATE,
        "Enqueues a schedule's job now, beside its plan.",
    ),
    Operation(
        "schedule.pause", "POST", "/v1/schedules/{name}/pause", "ScheduleRequest",
        "SchedulePaused", Right.OPERATE,
        "Has a schedule fire no more, until it is resumed; also over a restart.",
    ),
    Operation(
        "schedule.resume", "POST", "/v1/schedules/{name}/resume", "ScheduleRequest",
        "SchedulePaused", Right.OPERATE,
        "Has a schedule fire again; what was due in between is not made up for.",
    ),
    Operation(
        "plugins", "GET", "/v1/plugins", "Nothing", "Plugins", Right.READ,
        "Every plugin that was found: what it offers, or why it was refused.",
    ),
    Operation(
        "health", "GET", "/v1/health", "Nothing", "HealthBody", Right.READ,
        "The host's health, with the verdicts that it is made of.",
    ),
    Operation(
        "health.service", "GET", "/v1/health/services/{service}", "ServiceRequest", "HealthBody",
        Right.READ,
        "The health of one service, with the verdicts that it is made of.",
    ),
    Operation(
        "checks", "GET", "/v1/checks", "Nothing", "Checks", Right.READ,
        "The last verdict of every configured check.",
    ),
    Operation(
        "checks.report", "POST", "/v1/checks/report", "CheckReport", "Reported", Right.OPERATE,
        "Takes verdicts of checks from the monitoring role.",
    ),
    Operation(
        "doctor", "GET", "/v1/doctor", "Nothing", "Doctor", Right.READ,
        "What this host offers atlasd, and what is reduced where something is missing.",
    ),
    Operation(
        "version", "GET", "/v1/version", "Nothing", "Version", Right.READ,
        "Versions and process ids of the roles.",
    ),
    Operation(
        "shutdown", "POST", "/v1/shutdown", "ShutdownRequest", "ShuttingDown", Right.ADMINISTER,
        "Stops the daemon, and its services unless they are to be kept.",
    ),
    Operation(
        "services-role.upgrade", "POST", "/v1/services-role/upgrade", "UpgradeRequest", "Upgraded",
        Right.ADMINISTER,
        "Replaces the program of the services role in place; the services run on.",
    ),
    Operation(
        "metrics", "GET", "/v1/metrics", "Nothing", "str", Right.READ,
        "Metrics in the Prometheus text format.",
        media=METRICS,
    ),
    Operation(
        "openapi", "GET", "/v1/openapi.json", "Nothing", "OpenApi", Right.READ,
        "This table as an OpenAPI 3.1 document.",
    ),
)  # fmt: skip
"""Every operation of atlasd itself."""

BY_NAME = {operation.name: operation for operation in OPERATIONS}
