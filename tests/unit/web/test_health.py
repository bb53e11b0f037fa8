import pytest

from atlasd.web import health
from atlasd.web.metrics import ApiMetrics


def body(**statuses: str) -> dict[str, object]:
    words = {key: statuses.get(key.partition(":")[2], "pass") for key in health.READINESS}
    return {
        "status": "pass",
        "version": "1",
        "checks": {key: [{"status": status}] for key, status in words.items()},
    }


@pytest.mark.parametrize(("status", "http"), [("pass", 200), ("warn", 200), ("fail", 503)])
def test_pass_and_warn_are_fine_and_fail_is_not(status: str, http: int) -> None:
    assert health.status_of({"status": status}) == http


def test_a_host_is_ready_when_everything_that_readiness_needs_passes() -> None:
    assert health.ready(body())["status"] == "pass"


@pytest.mark.parametrize("what", ["services-link", "adopted", "store", "stopping"])
def test_one_of_them_that_does_not_pass_is_named(what: str) -> None:
    found = health.ready(body(**{what: "warn"}))
    assert found["status"] == "fail"
    assert what in found["output"]


def test_a_failing_service_does_not_make_atlasd_unready() -> None:
    ill = {**body(), "status": "fail", "output": "web/0: failed"}
    assert health.ready(ill)["status"] == "pass"


def test_a_body_that_says_nothing_of_readiness_is_not_ready() -> None:
    found = health.ready({"status": "pass", "checks": {}})
    assert found["status"] == "fail"
    assert "core does not say" in found["output"]


def test_core_gone_says_why_and_what_to_do() -> None:
    gone = health.core_gone("nobody listens", version="1")
    assert health.status_of(gone) == 503
    assert "nobody listens" in gone["output"]
    assert any("atlas-core" in note for note in gone["notes"])
    assert health.ready(gone) == {
        "status": "fail",
        "version": "1",
        "description": "readiness",
        "checks": gone["checks"],
        "output": "core does not answer: nobody listens",
    }


def test_a_stranger_hears_the_verdict_alone() -> None:
    assert health.undetailed({**body(), "output": "web/0: failed"}) == {"status": "pass"}


@pytest.mark.parametrize(
    ("peer", "headers", "local"),
    [
        ("127.0.0.1", {"Host": "127.0.0.1:8000"}, True),
        ("127.0.0.1", {"Host": "localhost"}, True),
        ("127.0.0.1", {}, True),
        ("::1", {"Host": "[::1]:8000"}, True),
        ("::ffff:127.0.0.1", {"Host": "localhost:8000"}, True),
        ("10.0.0.7", {"Host": "10.0.0.1:8000"}, False),
        ("127.0.0.1", {"Host": "evil.example:8000"}, False),
        ("127.0.0.1", {"Host": "localhost", "Origin": "http://evil.example"}, False),
        ("127.0.0.1", {"Host": "localhost", "X-Forwarded-For": "10.0.0.7"}, False),
        ("127.0.0.1", {"Host": "localhost", "Forwarded": "for=10.0.0.7"}, False),
        (None, {"Host": "localhost"}, False),
        ("not an address", {"Host": "localhost"}, False),
    ],
)
def test_who_is_local(peer: str | None, headers: dict[str, str], local: bool) -> None:
    assert health.is_local(peer, headers) is local


def test_the_scrape_says_which_roles_are_up() -> None:
    own = ApiMetrics()
    up = own.scrape("# TYPE x gauge\natlasd_services_connected 1.0\n")
    assert 'atlasd_up{role="services"} 1.0' in up
    assert up.startswith("# TYPE x gauge")
    gone = own.scrape(None)
    assert 'atlasd_up{role="api"} 1.0' in gone
    assert 'atlasd_up{role="core"} 0.0' in gone
    assert 'role="services"' not in gone
    half = own.scrape("atlasd_services_connected 0.0\n")
    assert 'atlasd_up{role="core"} 1.0' in half
    assert 'atlasd_up{role="services"} 0.0' in half
