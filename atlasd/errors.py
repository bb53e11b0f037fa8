"""The one error that users see, its codes, and what each code becomes outside."""

from collections.abc import Mapping
from typing import NamedTuple


class Code(NamedTuple):
    """What an error code means to an HTTP client and to a shell script."""

    status: int
    """HTTP status of an answer that carries the error."""
    exit: int
    """Exit code of a command that ends with it."""
    meaning: str


EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNKNOWN = 3
EXIT_DENIED = 4
EXIT_CONFLICT = 5
EXIT_TIMEOUT = 6
EXIT_UNREACHABLE = 7
EXIT_UNHEALTHY = 8
EXIT_CONFIG = 78

EXIT_CODES: Mapping[int, str] = {
    EXIT_OK: "done",
    EXIT_FAILED: "failed: the operation did not succeed, or an unexpected error (see the log)",
    EXIT_USAGE: "the command line or the request is wrong",
    EXIT_UNKNOWN: "no such service, instance, check, plugin or operation",
    EXIT_DENIED: "not permitted",
    EXIT_CONFLICT: "the present state does not allow it",
    EXIT_TIMEOUT: "it did not happen in time",
    EXIT_UNREACHABLE: "no daemon answers",
    EXIT_UNHEALTHY: "`atlasctl health`: the host's health is fail",
    EXIT_CONFIG: "the configuration is invalid (sysexits EX_CONFIG)",
}

CODES: Mapping[str, Code] = {
    "usage": Code(400, EXIT_USAGE, "the command line does not parse"),
    "request.invalid": Code(400, EXIT_USAGE, "the request does not have the operation's shape"),
    "request.too_large": Code(413, EXIT_USAGE, "the request's body is larger than is accepted"),
    "request.origin": Code(403, EXIT_DENIED, "the request comes from a web page or a strange host"),
    "operation.unknown": Code(404, EXIT_UNKNOWN, "no operation has this path"),
    "operation.method": Code(405, EXIT_USAGE, "the path exists, the method does not"),
    "operation.denied": Code(403, EXIT_DENIED, "the caller has no right to the operation"),
    "config.invalid": Code(422, EXIT_CONFIG, "the configuration has errors; nothing was changed"),
    "config.missing": Code(422, EXIT_CONFIG, "a configuration file does not exist"),
    "config.environment": Code(422, EXIT_CONFIG, "the environment's name is unknown"),
    "config.refused": Code(409, EXIT_CONFLICT, "a plugin objects to the change; it was not made"),
    "config.partial": Code(
        409, EXIT_FAILED, "a part of the daemon could not take the new configuration over"
    ),
    "config.conflict": Code(
        409, EXIT_CONFLICT, "a file was changed meanwhile, or another layer has the word"
    ),
    "config.write": Code(409, EXIT_DENIED, "a configuration file cannot be written"),
    "config.unknown": Code(404, EXIT_UNKNOWN, "no setting, source or generation has this name"),
    "config.exists": Code(409, EXIT_CONFLICT, "a file that is to be written exists"),
    "settings.unknown": Code(404, EXIT_UNKNOWN, "no set of application settings has this name"),
    "settings.invalid": Code(422, EXIT_CONFIG, "application settings do not fit their schema"),
    "secret.not_found": Code(404, EXIT_UNKNOWN, "no secret, version or stage has this name"),
    "secret.disabled": Code(409, EXIT_CONFLICT, "the secret exists and may not be used"),
    "secret.denied": Code(403, EXIT_DENIED, "the secret backend refuses its credentials"),
    "secret.unavailable": Code(503, EXIT_FAILED, "the secret backend does not answer"),
    "secret.throttled": Code(503, EXIT_FAILED, "the secret backend wants fewer calls"),
    "secret.corrupt": Code(500, EXIT_FAILED, "what is stored is not what was put"),
    "secret.key": Code(409, EXIT_FAILED, "the key that protects the secret is missing or wrong"),
    "secret.conflict": Code(409, EXIT_CONFLICT, "the secret's state does not allow it"),
    "secret.unsupported": Code(409, EXIT_CONFLICT, "the secret backend cannot do that"),
    "secret.invalid": Code(422, EXIT_USAGE, "a secret's name, reference or value cannot be had"),
    "secret.rotation": Code(409, EXIT_FAILED, "a step of a rotation failed; current is unchanged"),
    "audit.broken": Code(500, EXIT_FAILED, "the audit log was changed, cut or cannot be written"),
    "job.unknown": Code(404, EXIT_UNKNOWN, "no job has this id"),
    "job.invalid": Code(422, EXIT_USAGE, "a job, or what is said of one, cannot be had"),
    "job.rejected": Code(409, EXIT_CONFLICT, "another job has the unique key"),
    "job.lease_lost": Code(409, EXIT_CONFLICT, "the lease ended: the job is somebody else's now"),
    "job.queue_full": Code(429, EXIT_CONFLICT, "the queue takes no more jobs for now"),
    "job.state": Code(409, EXIT_CONFLICT, "the job's state does not allow it"),
    "job.store": Code(503, EXIT_FAILED, "the queue's store cannot be used for now"),
    "job.unsure": Code(503, EXIT_FAILED, "whether it was done is not known"),
    "dead.stopped": Code(409, EXIT_FAILED, "requeueing stopped: too many jobs failed again"),
    "schedule.unknown": Code(404, EXIT_UNKNOWN, "no schedule has this name"),
    "breaker.unknown": Code(404, EXIT_UNKNOWN, "no circuit breaker has this name"),
    "queue.unknown": Code(404, EXIT_UNKNOWN, "no queue has this name"),
    "service.unknown": Code(404, EXIT_UNKNOWN, "no service has this name"),
    "instance.unknown": Code(404, EXIT_UNKNOWN, "the service has no instance of this index"),
    "service.state": Code(409, EXIT_CONFLICT, "the service's state does not allow the operation"),
    "service.failed": Code(409, EXIT_FAILED, "the service did not reach the wanted state"),
    "service.timeout": Code(504, EXIT_TIMEOUT, "the service did not reach the state in time"),
    "service.reload": Code(409, EXIT_CONFLICT, "the service cannot be reloaded"),
    "services.unreachable": Code(503, EXIT_UNREACHABLE, "the services role does not answer"),
    "services.upgrade": Code(409, EXIT_FAILED, "the services role refused or undid its upgrade"),
    "core.unreachable": Code(503, EXIT_UNREACHABLE, "core does not answer on its control socket"),
    "core.stopping": Code(503, EXIT_CONFLICT, "core is shutting down"),
    "daemon.running": Code(409, EXIT_CONFLICT, "another daemon already uses this root"),
    "api.listen": Code(409, EXIT_FAILED, "the api role cannot listen on its address"),
    "daemon.directory": Code(500, EXIT_FAILED, "a directory of the daemon cannot be used"),
    "check.unknown": Code(404, EXIT_UNKNOWN, "no check has this name"),
    "plugin.unknown": Code(404, EXIT_UNKNOWN, "no plugin or no plugin kind has this name"),
    "plugin.refused": Code(422, EXIT_CONFIG, "a plugin that the configuration needs was refused"),
    "plugin.failed": Code(502, EXIT_FAILED, "a plugin failed, hung or flooded at work"),
    "plugin.busy": Code(503, EXIT_FAILED, "too many blocking calls of the plugin wait already"),
    "plugin.state": Code(500, EXIT_FAILED, "the plugin's own folder cannot be made"),
    "plugin.secret": Code(404, EXIT_UNKNOWN, "the plugin asked for a secret that it has not"),
    "plugin.settings": Code(422, EXIT_CONFIG, "a plugin's settings cannot be used together"),
    "plugin.exists": Code(409, EXIT_CONFLICT, "the file to be written exists"),
    "store.unusable": Code(503, EXIT_FAILED, "the daemon's database cannot be opened or written"),
    "internal": Code(500, EXIT_FAILED, "an unexpected error; its reference is in the log"),
}
"""Every code that atlasd uses. `AtlasError` refuses others, so that none goes undocumented."""


class AtlasError(Exception):
    """An expected failure, already explained: it is shown as it is, without a traceback.

    `code` is stable and dotted; `message` says what is wrong and where; `hint` says what to do
    next; `details` is JSON-able material for programs.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        details: Mapping[str, object] | None = None,
    ) -> None:
        if code not in CODES and not code.startswith("plugin."):
            raise ValueError(f"error code {code!r} is not declared in atlasd.errors.CODES")
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details: dict[str, object] = dict(details or {})

    @property
    def kind(self) -> Code:
        """HTTP status, exit code and meaning of this error's code."""
        return CODES.get(self.code, CODES["plugin.failed"])

    def to_wire(self) -> dict[str, object]:
        """The body of an error answer: `{"error": {"code", "message", "hint", "details"}}`."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "hint": self.hint,
                "details": self.details,
            }
        }


def nearest(name: str, known: "list[str] | tuple[str, ...]") -> str:
    """The hint `did you mean …?` for a misspelt name, or the known ones when none is near."""
    import difflib  # late: only a mistake needs it

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    if not known:
        return ""
    shown = ", ".join(sorted(known)[:12])
    return f"known: {shown}" + (", …" if len(known) > 12 else "")
