"""Azure Key Vault, and who gives tokens for it, as far as the SDK asks them; over TLS.

The SDK's first call comes without token and body, and is answered with a challenge that says who
gives tokens. A test may put answers before those of the vault, and stop it altogether.
"""

import atexit
import functools
import json
import re
import secrets
import shutil
import socket
import ssl
import tempfile
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
CLIENT_SECRET = "the-application's-secret"
DAYS = 90
PAGE = 5
MOST_VALUE = 25 * 1024
NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")


class RefusedError(Exception):
    """An answer that is an error: status, code, inner code, words."""

    def __init__(self, status: int, code: str, inner: str = "", words: str = "") -> None:
        super().__init__(status)
        error: dict[str, Any] = {"code": code, "message": words or code}
        if inner:
            error["innererror"] = {"code": inner}
        self.status = status
        self.body = {"error": error}


@dataclass
class Secret:
    """One secret: its versions by id, the oldest first."""

    name: str
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: int | None = None

    @property
    def latest(self) -> str:
        return list(self.versions)[-1]


@dataclass
class Vault:
    """What there is, and what a test wants to be answered."""

    url: str = ""
    ca_file: str = ""
    secrets: dict[str, Secret] = field(default_factory=dict)
    """By name in small letters: the vault does not tell them from capitals."""
    level: str = "Recoverable+Purgeable"
    answers: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    """Answered to calls with a token, in turn, before anything else."""
    token_answers: list[tuple[int, Any]] = field(default_factory=list)
    lose: int = 0
    """So many calls are done, and their answers lost."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each call with a token."""
    tokens: set[str] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the backend for this vault."""
        return {
            "vault_url": self.url,
            "credential": "client_secret",
            "tenant_id": TENANT,
            "client_id": CLIENT,
            "client_secret": CLIENT_SECRET,
            "authority": self.url,
            "instance_discovery": False,
            "verify_challenge": False,
            "ca_file": self.ca_file,
        }

    def reset(self) -> None:
        """As new; tokens stay good."""
        with self.lock:
            self.secrets.clear()
            self.answers.clear()
            self.token_answers.clear()
            self.asked.clear()
            self.lose = 0
            self.level = "Recoverable+Purgeable"

    # --- what it does

    def find(self, name: str) -> Secret:
        secret = self.secrets.get(name.lower())
        if secret is None or secret.deleted is not None:
            raise RefusedError(
                404, "SecretNotFound", words=f"A secret with name {name} was not found"
            )
        return secret

    def find_deleted(self, name: str) -> Secret:
        secret = self.secrets.get(name.lower())
        if secret is None or secret.deleted is None:
            raise RefusedError(404, "SecretNotFound", words=f"Deleted Secret not found: {name}")
        return secret

    def put(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if len(str(body["value"]).encode()) > MOST_VALUE or not body["value"]:
            raise RefusedError(
                400, "BadParameter", words=f"Property value is invalid: {body['value']}"
            )
        secret = self.secrets.setdefault(name.lower(), Secret(name))
        if secret.deleted is not None:
            raise RefusedError(
                409, "Conflict", "ObjectIsDeletedButRecoverable", "Secret is deleted"
            )
        version = secrets.token_hex(16)
        now = int(time.time())
        attributes = {"enabled": True, **body.get("attributes", {}), "created": now, "updated": now}
        secret.versions[version] = {
            "value": body["value"],
            "contentType": body.get("contentType"),
            "tags": body.get("tags") or {},
            "attributes": attributes,
        }
        return self.bundle(secret, version)

    def get(self, name: str, version: str) -> dict[str, Any]:
        secret = self.find(name)
        version = version or secret.latest
        if version not in secret.versions:
            raise RefusedError(404, "SecretNotFound", words=f"{name}/{version} was not found")
        if not secret.versions[version]["attributes"]["enabled"]:
            raise RefusedError(
                403, "Forbidden", "SecretDisabled", "not allowed on a disabled secret"
            )
        return self.bundle(secret, version)

    def change(self, name: str, version: str, body: dict[str, Any]) -> dict[str, Any]:
        content = self.find(name).versions[version]
        if body.get("tags") is not None:
            content["tags"] = body["tags"]
        content["attributes"].update(body.get("attributes", {}), updated=int(time.time()))
        return self.bundle(self.find(name), version, value=False)

    def bundle(self, secret: Secret, version: str = "", *, value: bool = True) -> dict[str, Any]:
        content = secret.versions[version or secret.latest]
        path = f"{self.url}/secrets/{secret.name}" + (f"/{version}" if version else "")
        attributes = {
            **content["attributes"],
            "recoveryLevel": self.level,
            "recoverableDays": DAYS,
        }
        found = {"id": path, **content, "attributes": attributes}
        if not value:
            del found["value"]
        if secret.deleted is not None:
            found["recoveryId"] = f"{self.url}/deletedsecrets/{secret.name}"
            found["deletedDate"] = secret.deleted
            found["scheduledPurgeDate"] = secret.deleted + DAYS * 86400
        return found

    def delete(self, name: str) -> dict[str, Any]:
        secret = self.find(name)
        secret.deleted = int(time.time())
        return self.bundle(secret, value=False)

    def recover(self, name: str) -> dict[str, Any]:
        secret = self.find_deleted(name)
        secret.deleted = None
        return self.bundle(secret, value=False)

    def purge(self, name: str) -> None:
        self.find_deleted(name)
        if "Purgeable" not in self.level:
            raise RefusedError(403, "Forbidden", words="Operation purge is not allowed")
        del self.secrets[name.lower()]

    def page(self, path: str, query: dict[str, list[str]], items: list[Any]) -> dict[str, Any]:
        begin = int(query.get("$skiptoken", ["0"])[0])
        after = begin + PAGE
        link = f"{self.url}{path}?api-version=7.4&$skiptoken={after}"
        return {
            "value": items[begin:after],
            "nextLink": link if after < len(items) else None,
        }

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        """What the vault answers to a call that has a token."""
        there = [s for s in self.secrets.values() if s.deleted is None]
        gone = [s for s in self.secrets.values() if s.deleted is not None]
        match method, path.strip("/").split("/"):
            case _, [_, name, *_] if not NAME.fullmatch(name):
                raise RefusedError(400, "BadParameter", words=f"invalid name {name}")
            case "GET", ["secrets"]:
                return self.page(path, query, [self.bundle(s, value=False) for s in there])
            case "GET", ["deletedsecrets"]:
                return self.page(path, query, [self.bundle(s, value=False) for s in gone])
            case "GET", ["secrets", name, "versions"]:
                secret = self.find(name)
                ids = sorted(secret.versions)  # in no order that would mean anything
                return self.page(path, query, [self.bundle(secret, i, value=False) for i in ids])
            case "PUT", ["secrets", name]:
                return self.put(name, body)
            case "GET", ["secrets", name, *version]:
                return self.get(name, "".join(version))
            case "PATCH", ["secrets", name, version]:
                return self.change(name, version, body)
            case "DELETE", ["secrets", name]:
                return self.delete(name)
            case "GET", ["deletedsecrets", name]:
                return self.bundle(self.find_deleted(name), value=False)
            case "POST", ["deletedsecrets", name, "recover"]:
                return self.recover(name)
            case "DELETE", ["deletedsecrets", name]:
                return self.purge(name)
        raise RefusedError(400, "BadParameter", words=f"{method} {path}")

    def token(self, form: dict[str, list[str]]) -> tuple[int, Any]:
        """What is answered to who asks for a token."""
        if self.token_answers:
            return self.token_answers.pop(0)
        right = (
            form.get("client_id") == [CLIENT]
            and form.get("scope") == ["https://vault.azure.net/.default"]
            and (form.get("client_secret") == [CLIENT_SECRET] or "client_assertion" in form)
        )
        if not right:
            words = "AADSTS7000215: Invalid client secret provided."
            return 401, {"error": "invalid_client", "error_description": words}
        token = secrets.token_hex(16)
        self.tokens.add(token)
        return 200, {"token_type": "Bearer", "expires_in": 3600, "access_token": token}


class Server:
    """The vault on a port of loopback, which can be stopped and started again."""

    def __init__(self) -> None:
        self.vault = Vault()
        folder = Path(tempfile.mkdtemp(prefix="vault-"))
        atexit.register(shutil.rmtree, folder)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        authority.private_key_pem.write_to_path(str(folder / "ca.key"))
        client = authority.issue_cert("application", key_type=trustme.KeyType.RSA)
        client.private_key_and_cert_chain_pem.write_to_path(str(folder / "client.pem"))
        self.client_certificate = str(folder / "client.pem")
        self.vault.ca_file = str(folder / "ca.pem")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.tls)
        self._port = 0
        self.held: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", self._port), type("Answers", (Handler,), {"place": self})
        )
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self.vault.url = f"https://localhost:{self._port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Let nobody answer, not even on connections that are kept."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.held):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def openid(self) -> dict[str, str]:
        """Where the tokens are."""
        place = f"{self.vault.url}/{TENANT}"
        return {
            "issuer": f"{place}/v2.0",
            "authorization_endpoint": f"{place}/oauth2/v2.0/authorize",
            "token_endpoint": f"{place}/oauth2/v2.0/token",
            "jwks_uri": f"{place}/discovery/v2.0/keys",
        }


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    place: "Server"

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait for each other
    disable_nagle_algorithm = True

    def setup(self) -> None:
        self.request.settimeout(60)
        self.request = self.place.tls.wrap_socket(self.request, server_side=True)
        self.place.held.add(self.request)
        super().setup()

    def finish(self) -> None:
        self.place.held.discard(self.request)
        super().finish()
        self.request.close()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            pass  # the client has gone, or the test has stopped the server

    def respond(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.place.vault.lock:
            status, headers, found = self.found(parts.path, parse_qs(parts.query), body)
            if self.place.vault.lose and (self.command, parts.path) in self.place.vault.asked:
                self.place.vault.lose -= 1
                self.close_connection = True
                return
        content = b"" if found is None else json.dumps(found).encode()
        self.send_response(status if found is not None or status != 200 else 204)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = respond  # noqa: N815  the names of http.server

    def found(
        self, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, dict[str, str], Any]:
        if path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            return 200, {}, self.place.openid()
        if path == f"/{TENANT}/oauth2/v2.0/token":
            status, answer = self.place.vault.token(parse_qs(body.decode()))
            return status, {}, answer
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.place.vault.tokens:
            challenge = (
                f'Bearer authorization="{self.place.vault.url}/{TENANT}", '
                'resource="https://vault.azure.net"'
            )
            error = RefusedError(401, "Unauthorized").body
            return 401, {"WWW-Authenticate": challenge}, error
        self.place.vault.asked.append((self.command, path))
        if self.place.vault.answers:
            return self.place.vault.answers.pop(0)
        try:
            data = json.loads(body) if body else {}
            return 200, {}, self.place.vault.answer(self.command, path, query, data)
        except RefusedError as refused:
            return refused.status, {}, refused.body

    def log_message(self, format: str, *args: object) -> None:
        pass


@functools.cache
def server() -> Server:
    """One for each process of the tests."""
    return Server()


def emptied() -> Vault:
    """The vault, with nothing in it."""
    server().vault.reset()
    return server().vault
