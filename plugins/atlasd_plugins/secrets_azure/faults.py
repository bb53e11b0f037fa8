"""What goes wrong with Azure, in the words of the contract; never with anything that was sent."""

import re
from dataclasses import dataclass
from typing import Any

from atlasd.errors import AtlasError

_PASSING = frozenset({"90024", "90033"})
"""Entra's codes for what is over in a moment."""
_ROLES = (
    "give the identity the role Key Vault Secrets User to read, Key Vault Secrets Officer to "
    "write, on the vault or on the secret"
)
_CREDENTIALS = (
    "give the machine a managed identity, or set credential, tenant_id and client_id in "
    "[secrets.backends.azure]"
)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What Azure was asked, as far as a person may see it."""

    place: str
    """Where: `Azure Key Vault https://…`."""
    name: str = ""
    """The secret; empty when it is about all of them."""
    full_name: str = ""
    """Its name in Key Vault."""

    @property
    def subject(self) -> str:
        """What an error is about."""
        return f"secret {self.name!r}" if self.name else "the list of secrets"


def not_found(question: Question) -> AtlasError:
    """There is none of this name, or it is deleted: who may only read is not told which."""
    return AtlasError(
        "secret.not_found",
        f"there is no {question.subject}: {question.place} has no {question.full_name!r}",
        hint=f"if it was deleted: atlasctl secret recover {question.name}",
    )


def no_version(question: Question, what: str) -> AtlasError:
    """The secret is there; not this version of it."""
    return AtlasError("secret.not_found", f"{question.subject} has no {what}")


def fault_of(question: Question, error: Exception) -> AtlasError:
    """An error of the SDK as one of ours.

    Azure's own words are repeated only where they are about rights and credentials.
    """
    from azure.core import exceptions
    from azure.identity import CredentialUnavailableError

    about, place = question.subject, question.place
    words = " ".join(str(getattr(error, "message", None) or error).split())[:400].rstrip(".")
    if isinstance(error, CredentialUnavailableError):
        return _no_token(question, words)
    if isinstance(error, exceptions.HttpResponseError):
        return _answered(question, error, words)
    if isinstance(error, exceptions.AzureError):
        return AtlasError("secret.unavailable", f"{about}: {place} does not answer: {words}")
    if isinstance(error, ValueError) and "challenge" in words:
        return AtlasError(
            "plugin.settings",
            f"{about}: {place} asks for tokens of another domain",
            hint="if it is behind another name, set verify_challenge = false",
        )
    return AtlasError(
        "secret.unavailable", f"{about}: {place} cannot be understood ({type(error).__name__})"
    )


def _no_token(question: Question, words: str) -> AtlasError:
    """Nobody gives a token now.

    Not `denied`: who gives tokens may be away for a moment, and to take that for a refusal would
    end the use of what was fetched before.
    """
    words = words.partition(" Attempted credentials:")[0]
    return AtlasError(
        "secret.unavailable",
        f"{question.subject}: there is no token to ask {question.place} with: {words}",
        hint=_CREDENTIALS,
    )


def _answered(question: Question, error: Any, words: str) -> AtlasError:
    from azure.core.exceptions import ClientAuthenticationError, DecodeError

    about, place = question.subject, question.place
    status = error.status_code or 0
    inner = _inner_code(error)
    if status >= 500 or isinstance(error, DecodeError):
        return AtlasError("secret.unavailable", f"{about}: {place} answers with {status}")
    if status == 429:
        return AtlasError(
            "secret.throttled", f"{about}: {place} wants fewer calls", details=_retry_after(error)
        )
    if inner in {"SecretDisabled", "SecretNotYetValid", "SecretExpired"}:
        return AtlasError("secret.disabled", f"{about} is disabled in {place}")
    if not status and isinstance(error, ClientAuthenticationError) and not _is_refusal(words):
        return _no_token(question, words)
    if isinstance(error, ClientAuthenticationError) or status in {401, 403}:
        return AtlasError(
            "secret.denied",
            f"{about}: {place} refuses: {words}",
            hint="allow this machine's address in the vault's network settings"
            if inner == "ForbiddenByFirewall"
            else _ROLES
            if status == 403
            else "check tenant_id, client_id and the credential, and whether it has expired",
        )
    if status == 404:
        return not_found(question)
    if status == 409:
        being = "is being" in words or inner.startswith("ObjectIsBeing")
        return AtlasError(
            "secret.conflict",
            f"{about} is {'still being ' if being else ''}deleted in {place}",
            hint="try again in a moment" if being else f"atlasctl secret recover {question.name}",
        )
    if status == 400:
        return AtlasError("secret.invalid", f"{about}: {place} cannot have this name or value")
    return AtlasError("secret.unavailable", f"{about}: {place} answers with {status}")


def _is_refusal(words: str) -> bool:
    """Whether it is Entra that refuses: it says so with a code of its own."""
    codes = set(re.findall(r"AADSTS(\d+)", words))
    return bool(codes) and not codes & _PASSING


def _inner_code(error: Any) -> str:
    detail = getattr(error, "error", None)
    inner = getattr(detail, "innererror", None) or {}
    return str(inner.get("code", "")) if isinstance(inner, dict) else ""


def _retry_after(error: Any) -> dict[str, object]:
    headers = getattr(error.response, "headers", None) or {}
    text = str(headers.get("Retry-After", ""))
    return {"retry_after": float(text)} if text.isascii() and text.isdigit() else {}
