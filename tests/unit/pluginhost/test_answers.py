"""What plugins answer: held against the contract, and cut where it is too much."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from atlasd.contracts.authorization import Decision
from atlasd.contracts.checks import CheckResult
from atlasd.contracts.collectors import Metric, Sample
from atlasd.contracts.settings import NoSettings, Settings
from atlasd.pluginhost import answers
from atlasd.pluginhost.guard import WrongAnswerError
from atlasd.states import Health


def accepted(answer: object) -> tuple[CheckResult, list[str]]:
    floods: list[str] = []
    return answers.check_result(floods.append)(answer), floods


def result(**changes: Any) -> CheckResult:
    return CheckResult(**({"status": Health.PASS} | changes))


def test_a_modest_result_is_left_as_it_is() -> None:
    plain = result(
        status=Health.FAIL,
        output="down",
        observed_value=0.25,
        observed_unit="s",
        affected_endpoints=("http://x",),
    )
    assert accepted(plain) == (plain, [])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "it gave a NoneType, not a CheckResult"),
        ("pass", "it gave a str, not a CheckResult"),
        (result(status="pass"), "its status is 'pass', not one of Health"),
        (result(output=None), "its output is a NoneType, not text"),
        (result(observed_value=[1]), "neither a number nor text"),
        (result(observed_unit=1), "its observed unit is not text"),
        (result(affected_endpoints=["x"]), "not a tuple of texts"),
        (result(affected_endpoints=(1,)), "not a tuple of texts"),
    ],
)
def test_what_is_no_result_is_refused(answer: object, words: str) -> None:
    with pytest.raises(WrongAnswerError, match=words):
        accepted(answer)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"output": "x" * 8_001}, "output"),
        ({"observed_value": "x" * 501}, "observed value"),
        ({"observed_unit": "x" * 101}, "observed unit"),
        ({"affected_endpoints": ("x",) * 21}, "affected endpoints"),
        ({"affected_endpoints": ("x" * 501,)}, "affected endpoints"),
    ],
)
def test_what_is_too_much_is_cut_and_counted(changes: dict[str, Any], field: str) -> None:
    cut, floods = accepted(result(**changes))
    assert floods == [f"its {field} was too long and has been cut"]
    assert len(cut.output) <= 8_000
    assert len(str(cut.observed_value)) <= 500
    assert len(cut.observed_unit or "") <= 100
    assert len(cut.affected_endpoints) <= 20
    assert all(len(endpoint) <= 500 for endpoint in cut.affected_endpoints)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_carry_is_left_out(value: float) -> None:
    assert accepted(result(observed_value=value)) == (result(), [])


# --- metrics


def metric(**changes: Any) -> Metric:
    plain: dict[str, Any] = {
        "name": "shop_orders_total",
        "help": "Orders.",
        "kind": "counter",
        "samples": (Sample(value=1, labels={"shop": "a"}), Sample(value=2, labels={"shop": "b"})),
    }
    return Metric(**(plain | changes))


def test_proper_metrics_are_accepted() -> None:
    both = [metric(), metric(name="shop_open", kind="gauge", samples=(Sample(value=1.5),))]
    assert answers.metrics(both) == tuple(both)
    assert answers.metrics(()) == ()


def labelled(*labels: Any, value: Any = 1) -> tuple[Sample, ...]:
    return tuple(Sample(value=value, labels=each) for each in labels)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "it gave a NoneType, not a list of Metric"),
        ("shop_open", "it gave a str, not a list of Metric"),
        (["shop_open"], "a list with a str in it"),
        ([metric(), metric()], "it gave the metric shop_orders_total twice"),
        ([metric(name="atlasd_services")], "atlasd_ are atlasd's own"),
        ([metric(name="Shop_total")], "is no name for a metric"),
        ([metric(name="shop total")], "is no name for a metric"),
        ([metric(name=7)], "7 is no name for a metric"),
        ([metric(kind="histogram")], "must be gauge or counter"),
        ([metric(name="shop_orders")], "a counter's name ends in _total"),
        ([metric(kind="gauge")], "a counter's name ends in _total"),
        ([metric(help=" ")], "needs a help text"),
        ([metric(samples=[Sample(value=1)])], "must be a tuple of Sample"),
        ([metric(samples=(1,))], "must be a tuple of Sample"),
        ([metric(samples=labelled({}, value="1"))], "'1' is not a number"),
        ([metric(samples=labelled({"a": "1"}, {"a": "1"}))], "two samples have the same labels"),
        ([metric(samples=labelled({"a": "1"}, {"b": "1"}))], "labels of the same names"),
        ([metric(samples=labelled({"a-b": "1"}))], "'a-b' is no name for a label"),
        ([metric(samples=labelled({"__a": "1"}))], "'__a' is no name for a label"),
        ([metric(samples=labelled({"a": 1}))], "200 characters at most"),
        ([metric(samples=labelled({"a": "x" * 201}))], "200 characters at most"),
        ([metric(samples=labelled(*({"a": str(n)} for n in range(1001))))], "more than 1000"),
        ([metric()] * 1001, "it gave 1001 metrics; 1000 is the most"),
    ],
)
def test_metrics_that_prometheus_would_refuse_are_refused(
    answer: Sequence[object], words: str
) -> None:
    with pytest.raises(WrongAnswerError, match=words):
        answers.metrics(answer)


# --- models and decisions


class Answer(Settings):
    text: str


def test_only_the_promised_model_is_an_answer() -> None:
    accept = answers.model(Answer)
    assert accept(Answer(text="x")) == Answer(text="x")
    with pytest.raises(WrongAnswerError, match="it gave a NoSettings, not a Answer"):
        accept(NoSettings())
    with pytest.raises(WrongAnswerError, match="it gave a dict, not a Answer"):
        accept({"text": "x"})


def test_only_a_decision_or_none_decides() -> None:
    assert answers.decision(None) is None
    assert answers.decision(Decision(allowed=True)) == Decision(allowed=True)
    for wrong in (True, "yes", Decision(allowed="yes")):  # type: ignore[arg-type]
        with pytest.raises(WrongAnswerError, match="not a Decision or None"):
            answers.decision(wrong)
