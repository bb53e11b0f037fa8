"""Whatever anybody sends to the control socket is answered, and never with a server's error."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import settings
from schemathesis import checks

from atlasd.control.models import Nothing, ShuttingDown
from atlasd.control.rights import Caller
from atlasd.control.server import ControlServer
from atlasd.control.wire import Right
from tests.acceptance.unix_http import session as unix_session
from tests.control_double import FakeCore
from tests.integration.daemons import Atlas, atlas
from tests.serving import serving

Case = schemathesis.Case

CONFIGURATION = """
[services.web]
command = ["sleep", "infinity"]
instances = 2
env = { ATLAS_TEST_ROOT = "@root" }
reload = { signal = "CONT" }

[services.crash]
command = ["sh", "-c", "echo oops; exit 3"]
env = { ATLAS_TEST_ROOT = "@root" }

[checks.port]
type = "tcp"
address = "127.0.0.1:1"
"""
UNTRIED = r"^/v1/(shutdown|services-role/upgrade)$"
"""What ends the daemon or replaces it: tried on the core in memory alone."""


def document() -> dict[str, Any]:
    """The OpenAPI document as a server would give it; nothing is served for it."""
    nobody = Caller(pid=0, uid=0, gid=0, groups=frozenset(), right=Right.ADMINISTER)
    handler = ControlServer("/nowhere", FakeCore().handlers())._bound["openapi"].handler

    async def ask() -> Any:
        return await handler(Nothing(), nobody)

    return dict(asyncio.run(ask()).root)


schema = schemathesis.openapi.from_dict(document())
schema_of_daemon = schemathesis.openapi.from_dict(document()).exclude(path_regex=UNTRIED)


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[requests.Session]:
    path = str(tmp_path_factory.mktemp("control") / "control.sock")
    core = FakeCore(web=2, db=1)

    async def stay(request: Any, caller: Caller) -> Any:
        return ShuttingDown(keep_services=request.keep_services)

    with serving(core, path, {"shutdown": stay}), unix_session(path) as session:
        yield session


@pytest.fixture(scope="module")
def running() -> Iterator[Atlas]:
    with atlas() as made:
        made.configure(CONFIGURATION.replace("@root", str(made.root)))
        made.up()
        yield made


@pytest.fixture(scope="module")
def daemon(running: Atlas) -> Iterator[requests.Session]:
    with unix_session(running.paths.control_socket) as session:
        yield session


def try_out(case: "Case[Any]", session: requests.Session) -> None:
    if (case.query or {}).get("follow"):
        # Such a stream has no end, and a tester no patience.
        case.query["follow"] = "false"
    if case.path.endswith("/scale") and isinstance(case.body, dict):
        wish = case.body.get("instances")
        if isinstance(wish, int) and wish > 3:
            case.body["instances"] = 3  # a thousand processes would prove nothing more
    response = case.call(base_url="http://localhost", session=session)
    case.validate_response(
        response,
        checks=[
            checks.not_a_server_error,
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_schema_conformance,
            checks.allow_header_conformance,
        ],
    )


@schema.parametrize()
def test_the_control_server_answers_everything(
    case: "Case[Any]", in_memory: requests.Session
) -> None:
    try_out(case, in_memory)


@pytest.mark.xdist_group("openapi-daemon")  # one daemon for all of them
@schema_of_daemon.parametrize()
@settings(max_examples=40)
def test_a_running_daemon_answers_everything(case: "Case[Any]", daemon: requests.Session) -> None:
    try_out(case, daemon)


@pytest.mark.xdist_group("openapi-daemon")
def test_the_daemon_describes_itself_as_it_was_tried(
    running: Atlas, daemon: requests.Session
) -> None:
    answer = daemon.get("http://localhost/v1/openapi.json")
    assert answer.json() == document()
    assert running.client.call("version")["version"]
