import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.core import health
from atlasd.core.health import CheckState, Verdict
from atlasd.states import Health, Lifecycle
from tests.unit.core.snapshots import NOW, instance, service

STATUSES = st.sampled_from(Health)


def check(
    status: Health = Health.PASS,
    *,
    name: str = "check",
    service: str | None = None,
    required: bool = True,
    age: float = 1.0,
    interval: float | None = 30.0,
) -> CheckState:
    return CheckState(
        name=name,
        type="http",
        status=status,
        time=NOW - age,
        service=service,
        required=required,
        interval=interval,
        output="said so",
    )


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (instance(), Health.PASS),
        (instance(health="fail"), Health.FAIL),
        (instance(health="warn"), Health.WARN),
        (instance(crash_loop=True), Health.WARN),
        (instance(state="exited"), Health.PASS),
        (instance(state="backoff", detail="exit code 3"), Health.FAIL),
        (instance(state="failed"), Health.FAIL),
        (instance(state="lost"), Health.FAIL),
        (instance(state="starting", since=NOW - 5), Health.UNKNOWN),
        (instance(state="starting", since=NOW - 5, failures=2), Health.FAIL),
        (instance(state="waiting", since=NOW - 5), Health.UNKNOWN),
        (instance(state="waiting", since=NOW - 500), Health.WARN),
        (instance(state="stopped", leftovers=[7]), Health.WARN),
    ],
)
def test_an_instances_verdict_comes_from_its_state_and_its_probes(
    made: object, status: Health
) -> None:
    assert health.of_instance(service(), made, now=NOW).status is status  # type: ignore[arg-type]


def test_what_was_stopped_on_request_is_no_failure() -> None:
    stopped = service("web", instance(state="stopped"), wanted="down")
    assert health.of_service(stopped, [check(Health.FAIL)], now=NOW).status is Health.PASS
    assert health.of_host([stopped], [], now=NOW).status is Health.PASS


def test_a_critical_service_that_was_stopped_makes_the_host_warn() -> None:
    stopped = service("web", instance(state="stopped"), wanted="down", critical=True)
    verdict = health.of_host([stopped], [], now=NOW)
    assert verdict == Verdict(status=Health.WARN, output="web: wanted down")


def test_one_broken_instance_of_several_is_a_warning_and_all_of_them_a_failure() -> None:
    broken = instance(1, state="backoff", detail="exit code 3")
    verdict = health.of_service(service("web", instance(), broken), [], now=NOW)
    assert verdict.status is Health.WARN
    assert "web/1: backoff: exit code 3" in verdict.output
    assert health.of_service(service("web", broken), [], now=NOW).status is Health.FAIL


@pytest.mark.parametrize(("critical", "status"), [(True, Health.FAIL), (False, Health.WARN)])
def test_only_critical_services_make_the_host_fail(critical: bool, status: Health) -> None:
    broken = service("web", instance(state="failed"), critical=critical)
    assert health.of_host([broken, service("db")], [], now=NOW).status is status


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (check(Health.FAIL, service="web"), Health.FAIL),
        (check(Health.FAIL, service="web", required=False), Health.WARN),
        (check(Health.PASS, service="web"), Health.PASS),
        (check(Health.PASS, service="web", age=200.0), Health.WARN),
        (check(Health.PASS, service="web", age=200.0, interval=None), Health.PASS),
        (check(Health.UNKNOWN, service="web", age=5.0), Health.UNKNOWN),
        (check(Health.UNKNOWN, service="web", age=70.0), Health.WARN),
    ],
)
def test_checks_of_a_service(made: CheckState, status: Health) -> None:
    assert health.of_service(service("web"), [made], now=NOW).status is status


def test_a_check_of_no_service_is_the_hosts_own() -> None:
    assert health.of_host([], [check(Health.FAIL)], now=NOW).status is Health.FAIL
    assert health.of_host([], [check(Health.FAIL, required=False)], now=NOW).status is Health.WARN
    stray = check(Health.FAIL, service="never-configured")
    assert health.of_host([], [stray], now=NOW).status is Health.FAIL


def test_a_check_is_unknown_after_three_intervals_and_not_before() -> None:
    assert check(age=90.0).fresh(NOW) is Health.PASS
    assert check(age=90.1).fresh(NOW) is Health.UNKNOWN


@given(st.lists(st.tuples(STATUSES, st.booleans())), st.lists(st.tuples(STATUSES, st.booleans())))
def test_more_bad_news_never_makes_a_verdict_better(
    some: list[tuple[Health, bool]], more: list[tuple[Health, bool]]
) -> None:
    order = [Health.PASS, Health.UNKNOWN, Health.WARN, Health.FAIL]

    def host(statuses: list[tuple[Health, bool]]) -> Health:
        checks = [
            check(status, name=str(n), required=required)
            for n, (status, required) in enumerate(statuses)
        ]
        return health.of_host([], checks, now=NOW).status

    assert order.index(host(some + more)) >= order.index(host(some))


@given(st.sampled_from(Lifecycle), STATUSES, st.sampled_from(["up", "down", "paused"]))
def test_every_state_has_a_verdict_and_bad_ones_a_reason(
    state: Lifecycle, probes: Health, wanted: str
) -> None:
    one = service("web", instance(state=state.value, health=probes.value), wanted=wanted)
    verdict = health.of_service(one, [], now=NOW)
    assert verdict.status in Health
    if verdict.status in (Health.WARN, Health.FAIL) and wanted != "down":
        assert "web/0" in verdict.output


def test_the_body_is_the_drafts() -> None:
    found = service("web", instance(state="failed", detail="exit code 78"), critical=True)
    checks = [check(Health.PASS, name="disk")]
    body = health.body(
        health.of_host([found], checks, now=NOW),
        {
            **health.service_details(found, (), now=NOW),
            **health.check_details(checks, now=NOW),
        },
        version="1",
        subject="host-1",
        description="host",
    )
    assert body["status"] == "fail"
    assert body["output"] == "web/0: failed: exit code 78"
    assert body["checks"]["web:state"][0]["componentId"] == "web/0"
    assert body["checks"]["disk:http"][0]["status"] == "pass"
    assert "notes" not in body


def test_nothing_known_yet_is_told_as_pass_with_a_note() -> None:
    body = health.body(
        Verdict(status=Health.UNKNOWN, output="web/0: starting"),
        {},
        version="1",
        subject="h",
        description="host",
    )
    assert body["status"] == "pass"
    assert "starting" in body["notes"][0]
