"""What goes wrong with AWS, in the words of the contract; never with anything that was sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atlasd.errors import AtlasError

THROTTLED = frozenset(
    {
        "ThrottlingException",
        "Throttling",
        "ThrottledException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "BandwidthLimitExceeded",
        "PriorRequestNotComplete",
    }
)
REFUSED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
CLOCK = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
KEY = frozenset({"DecryptionFailure", "EncryptionFailure"})
INVALID = frozenset({"InvalidParameterException", "ValidationException", "ValidationError"})
STATE = frozenset(
    {
        "InvalidRequestException",
        "LimitExceededException",
        "PreconditionNotMetException",
        "ResourceExistsException",
    }
)

_NO_REGION = "set region in [secrets.backends.aws], or AWS_REGION for atlasd's services"
_NO_CREDENTIALS = (
    "give the machine or the container a role, name a profile in [secrets.backends.aws], or set "
    "access_key_id and secret_access_key there"
)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What AWS was asked, as far as a person may see it."""

    place: str
    """Where: `AWS Secrets Manager in eu-central-1`."""
    name: str = ""
    """The secret; empty when it is about all of them."""
    full_name: str = ""
    """Its name in AWS."""
    version: str = ""
    stage: str = ""

    @property
    def subject(self) -> str:
        """What an error is about."""
        return f"secret {self.name!r}" if self.name else "the list of secrets"

    @property
    def what(self) -> str:
        """The version that was wanted."""
        return f"version {self.version!r}" if self.version else f"version at stage {self.stage!r}"


def no_version(question: Question) -> AtlasError:
    """The secret may be there; not this version of it."""
    return AtlasError("secret.not_found", f"{question.subject} has no {question.what}")


def deleted(question: Question, code: str) -> AtlasError:
    """The secret waits for the end of its recovery window."""
    return AtlasError(
        code,
        f"{question.subject} is deleted in {question.place}",
        hint=f"atlasctl secret recover {question.name}",
    )


def answered(question: Question, operation: str, response: Mapping[str, Any]) -> AtlasError:
    """AWS has answered, with an error.

    Its own words are repeated only where they cannot be about a value: a validation error quotes
    what it finds wrong.
    """
    error = response.get("Error", {})
    code = str(error.get("Code", ""))
    words = " ".join(str(error.get("Message", "")).split())[:400]
    meta = response.get("ResponseMetadata", {})
    status = meta.get("HTTPStatusCode", 0)
    about, place = question.subject, question.place
    fault = AtlasError
    if code in THROTTLED or status == 429:
        return fault(
            "secret.throttled",
            f"{about}: {place} wants fewer calls",
            details=_retry_after(meta.get("HTTPHeaders", {})),
        )
    if code in CLOCK or (code in REFUSED and "Signature " in words and "expired" in words):
        return fault(
            "secret.unavailable",
            f"{about}: {place} finds this machine's clock wrong",
            hint="set the clock: timedatectl status",
        )
    if code in REFUSED or status in {401, 403}:
        return fault(
            "secret.denied",
            f"{about}: {place} refuses {operation}: {words or code}",
            hint=f"allow secretsmanager:{operation} on secret:{question.full_name or '*'}-??????"
            if code.startswith("AccessDenied") and operation != "AssumeRole"
            else "check the credentials: aws sts get-caller-identity",
        )
    if code == "ResourceNotFoundException":
        if "secret value" in words and (question.version or question.stage):
            return no_version(question)
        return fault(
            "secret.not_found",
            f"there is no {about}: {place} has no {question.full_name!r}",
        )
    if code in KEY:
        return fault(
            "secret.key",
            f"{about}: {place} cannot use its KMS key ({code})",
            hint="see whether the key is enabled, and allow kms:Decrypt and kms:GenerateDataKey",
        )
    if code in INVALID:
        if question.version and operation != "PutSecretValue":
            return no_version(question)
        return fault(
            "secret.invalid",
            f"{about}: {place} finds something wrong with {operation} ({code})",
            details={"aws": code},
        )
    if code == "InvalidRequestException" and ("deleted" in words or "deletion" in words):
        reading = operation == "GetSecretValue"
        return deleted(question, "secret.not_found" if reading else "secret.conflict")
    if code in STATE:
        return fault(
            "secret.conflict",
            f"{about}: {place} refuses {operation}: {words or code}",
            details={"aws": code},
        )
    return fault(
        "secret.unavailable",
        f"{about}: {place} answers {operation} with {code or status}",
        details={"aws": code},
    )


def unanswered(question: Question, error: Exception) -> AtlasError:
    """There was no answer: no connection, no credentials to ask with, or no region to ask."""
    from botocore import exceptions

    about, place = question.subject, question.place
    settings = (
        exceptions.NoRegionError,
        exceptions.InvalidRegionError,
        exceptions.ProfileNotFound,
        exceptions.ConfigParseError,
        exceptions.EndpointResolutionError,
    )
    credentials = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.MetadataRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.NoAuthTokenError,
        exceptions.SSOError,
        exceptions.InvalidConfigError,
    )
    words = " ".join(str(error).split())[:400].rstrip(".")
    if isinstance(error, exceptions.ParamValidationError):
        # Its words quote what was sent.
        return AtlasError("secret.invalid", f"{about}: {place} cannot be asked for this")
    if isinstance(error, settings):
        return AtlasError("plugin.settings", f"{about}: {place}: {words}", hint=_NO_REGION)
    if isinstance(error, credentials):
        # Not `denied`: the service that gives them may be away for a moment, and only AWS itself
        # can revoke what it has given.
        return AtlasError(
            "secret.unavailable",
            f"{about}: {place} cannot be asked without credentials: {words}",
            hint=_NO_CREDENTIALS,
        )
    return AtlasError("secret.unavailable", f"{about}: {place} does not answer: {words}")


def _retry_after(headers: Mapping[str, str]) -> dict[str, object]:
    text = headers.get("retry-after", "")
    return {"retry_after": float(text)} if text.isascii() and text.isdigit() else {}
