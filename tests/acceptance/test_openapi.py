"""Whatever anybody sends to the control socket is answered, and never with a server's error."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis import checks

from atlasd.control.models import Nothing, ShuttingDown
from atlasd.control.rights import Caller
from atlasd.control.server import ControlServer
from atlasd.control.wire import Right
from tests.acceptance.unix_http import session as unix_session
from tests.control_double import FakeCore
from tests.serving import serving


def document() -> dict[str, Any]:
    """The OpenAPI document as a server would give it; nothing is served for it."""
    nobody = Caller(pid=0, uid=0, gid=0, groups=frozenset(), right=Right.ADMINISTER)
    handler = ControlServer("/nowhere", FakeCore().handlers())._bound["openapi"].handler
    answer: Any = asyncio.run(handler(Nothing(), nobody))  # type: ignore[arg-type]
    return dict(answer.root)


schema = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[requests.Session]:
    path = str(tmp_path_factory.mktemp("control") / "control.sock")
    core = FakeCore(web=2, db=1)

    async def stay(request: Any, caller: Caller) -> Any:
        return ShuttingDown(keep_services=request.keep_services)

    with serving(core, path, {"shutdown": stay}), unix_session(path) as made:
        yield made


@schema.parametrize()
def test_no_request_is_answered_with_a_servers_error(
    case: "schemathesis.Case[Any]", session: requests.Session
) -> None:
    if (case.query or {}).get("follow"):
        # Such a stream has no end, and a tester without patience.
        case.query["follow"] = "false"
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
