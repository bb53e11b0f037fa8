from atlasd.core.board import CheckBoard, StateBoard, describe
from atlasd.core.health import CheckState
from atlasd.states import Health, Lifecycle
from tests.unit.core.snapshots import instance, service, snapshot


def check(status: Health = Health.UNKNOWN, name: str = "disk", **values: object) -> CheckState:
    base: dict[str, object] = {"type": "host", "time": 0.0, "status": status, "name": name}
    return CheckState(**{**base, **values})  # type: ignore[arg-type]


def test_a_verdict_that_differs_gives_what_was_before() -> None:
    board = CheckBoard()
    board.configure([check()])
    before = board.report(check(Health.FAIL), now=5.0)
    assert before is not None
    assert before.status is Health.UNKNOWN
    assert board.report(check(Health.FAIL), now=6.0) is None
    assert board.last_report == 6.0


def test_what_belongs_to_a_check_is_the_configurations_to_say() -> None:
    board = CheckBoard()
    board.configure([check(service="web", required=False, interval=5.0)])
    board.report(check(Health.PASS, service="db", required=True, interval=900.0), now=1.0)
    (found,) = board.all()
    assert (found.service, found.required, found.interval) == ("web", False, 5.0)
    assert board.of("web") == (found,)


def test_a_new_configuration_keeps_verdicts_and_forgets_checks() -> None:
    board = CheckBoard()
    board.configure([check(), check(name="old")])
    board.report(check(Health.PASS), now=1.0)
    board.configure([check(service="web"), check(name="new")])
    assert [(c.name, c.status, c.service) for c in board.all()] == [
        ("disk", Health.PASS, "web"),
        ("new", Health.UNKNOWN, None),
    ]


def test_a_check_of_another_type_is_another_check() -> None:
    board = CheckBoard()
    board.configure([check()])
    board.report(check(Health.PASS), now=1.0)
    board.configure([check(type="http")])
    assert board.all()[0].status is Health.UNKNOWN


def test_the_status_line_counts_services_and_names_those_in_trouble() -> None:
    board = StateBoard()
    assert board.line() == "0 services"
    services = [service(f"s{n}") for n in range(19)]
    board.take(snapshot(*services, service("web", instance(), instance(1, state="backoff"))))
    assert board.line() == "20 services: 19 running, 1 backoff (web)"
    board.move("web", 1, "running")
    assert board.line() == "20 services: 20 running"


def test_stopped_instances_do_not_hide_those_that_run() -> None:
    states = {("web", 0): Lifecycle.RUNNING, ("web", 1): Lifecycle.STOPPED}
    assert describe(states) == "1 service: 1 running"


def test_no_more_names_than_fit_a_line() -> None:
    states = {(f"s{n}", 0): Lifecycle.FAILED for n in range(5)}
    assert describe(states) == "5 services: 5 failed (s0, s1, s2, …)"


def test_settled_means_that_all_are_known_and_none_is_on_its_way() -> None:
    board = StateBoard()
    assert board.settled(0)
    board.take(snapshot(service("web", instance(state="starting"))))
    assert not board.settled(1)
    board.move("web", 0, "running")
    assert board.settled(1)
    assert not board.settled(2)
