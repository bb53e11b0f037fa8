"""What plugins answer at work, held against what they promise."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from pydantic import BaseModel

from atlasd.contracts.authorization import Decision
from atlasd.contracts.checks import CheckResult
from atlasd.contracts.collectors import Metric, Sample
from atlasd.contracts.review import Objection
from atlasd.pluginhost.guard import WrongAnswerError
from atlasd.states import Health

MOST_OUTPUT = 8_000
"""Characters of a check's output that are kept."""
MOST_VALUE = 500
"""Characters of an observed value or an endpoint."""
MOST_UNIT = 100
MOST_ENDPOINTS = 20
MOST_SAMPLES = 1_000
"""Samples that a collector may give at once."""

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

_METRIC = re.compile(r"[a-z][a-z0-9_]*")
_LABEL = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")


def nothing(answer: object) -> None:
    """Accept any answer, and forget it: the contract promises none."""


def check_result(flooded: Callable[[str], None]) -> Callable[[object], CheckResult]:
    """Accepts a check's answer; what is too long is cut and reported to `flooded`."""

    def accept(answer: object) -> CheckResult:
        if not isinstance(answer, CheckResult):
            raise WrongAnswerError(f"it gave a {type(answer).__name__}, not a CheckResult")
        # Dataclasses take what they are given; Any says that nothing is known yet.
        plain: Any = answer
        if not isinstance(plain.status, Health):
            raise WrongAnswerError(f"its status is {plain.status!r}, not one of Health")
        if not isinstance(plain.output, str):
            raise WrongAnswerError(f"its output is a {type(plain.output).__name__}, not text")
        if not (
            plain.observed_value is None or isinstance(plain.observed_value, float | int | str)
        ):
            raise WrongAnswerError("its observed value is neither a number nor text")
        if not (plain.observed_unit is None or isinstance(plain.observed_unit, str)):
            raise WrongAnswerError("its observed unit is not text")
        if not isinstance(plain.affected_endpoints, tuple) or not all(
            isinstance(endpoint, str) for endpoint in plain.affected_endpoints
        ):
            raise WrongAnswerError("its affected endpoints are not a tuple of texts")
        return _cut(answer, flooded)

    return accept


def _cut(result: CheckResult, flooded: Callable[[str], None]) -> CheckResult:
    value = result.observed_value
    if isinstance(value, float) and not math.isfinite(value):
        result = replace(result, observed_value=None)  # JSON cannot carry it
    short = replace(
        result,
        output=_shortened(result.output, MOST_OUTPUT),
        observed_value=_shortened(value, MOST_VALUE)
        if isinstance(value, str)
        else result.observed_value,
        observed_unit=None
        if result.observed_unit is None
        else _shortened(result.observed_unit, MOST_UNIT),
        affected_endpoints=tuple(
            _shortened(endpoint, MOST_VALUE)
            for endpoint in result.affected_endpoints[:MOST_ENDPOINTS]
        ),
    )
    cut = [f.name for f in fields(result) if getattr(result, f.name) != getattr(short, f.name)]
    if cut:
        flooded(f"its {cut[0].replace('_', ' ')} was too long and has been cut")
    return short


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def model(wanted: type[M]) -> Callable[[object], M]:
    """Accepts an instance of one model."""

    def accept(answer: object) -> M:
        if not isinstance(answer, wanted):
            raise WrongAnswerError(f"it gave a {type(answer).__name__}, not a {wanted.__name__}")
        return answer

    return accept


def instance(expect: type | tuple[type, ...]) -> Callable[[T], T]:
    """Accepts what is of a type, or of one of several."""

    def accept(answer: T) -> T:
        if not isinstance(answer, expect):
            several = expect if isinstance(expect, tuple) else (expect,)
            names = " or ".join(one.__name__ for one in several)
            # The answer itself may be a secret: its type has to do.
            raise WrongAnswerError(f"it gave a {type(answer).__name__}, not a {names}")
        return answer

    return accept


def metrics(answer: object) -> tuple[Metric, ...]:
    """Accept a collector's answer, if Prometheus would."""
    if not isinstance(answer, Sequence) or isinstance(answer, str | bytes):
        raise WrongAnswerError(f"it gave a {type(answer).__name__}, not a list of Metric")
    if len(answer) > MOST_SAMPLES:
        raise WrongAnswerError(f"it gave {len(answer)} metrics; {MOST_SAMPLES} is the most")
    names = set()
    samples = 0
    for metric in answer:
        if not isinstance(metric, Metric):
            raise WrongAnswerError(f"it gave a list with a {type(metric).__name__} in it")
        _check_metric(metric)
        if metric.name in names:
            raise WrongAnswerError(f"it gave the metric {metric.name} twice")
        names.add(metric.name)
        samples += len(metric.samples)
        if samples > MOST_SAMPLES:
            raise WrongAnswerError(f"it gave more than {MOST_SAMPLES} samples")
    return tuple(answer)


def _check_metric(metric: Metric) -> None:
    plain: Any = metric
    name = plain.name
    if not isinstance(name, str) or not _METRIC.fullmatch(name) or len(name) > 200:
        raise WrongAnswerError(f"{name!r} is no name for a metric")
    if name.startswith("atlasd_"):
        raise WrongAnswerError(f"{name}: metrics that begin with atlasd_ are atlasd's own")
    if plain.kind not in {"gauge", "counter"}:
        raise WrongAnswerError(f"{name}: its kind must be gauge or counter")
    if (plain.kind == "counter") != name.endswith("_total"):
        raise WrongAnswerError(f"{name}: a counter's name ends in _total, and no other's does")
    if not isinstance(plain.help, str) or not plain.help.strip():
        raise WrongAnswerError(f"{name}: it needs a help text")
    if not isinstance(plain.samples, tuple):
        raise WrongAnswerError(f"{name}: its samples must be a tuple of Sample")
    seen = set()
    for sample in plain.samples:
        _check_sample(name, sample)
        labels = frozenset(sample.labels.items())
        if labels in seen:
            raise WrongAnswerError(f"{name}: two samples have the same labels")
        seen.add(labels)
    if len({frozenset(sample.labels) for sample in plain.samples}) > 1:
        raise WrongAnswerError(f"{name}: all its samples must have labels of the same names")


def _check_sample(name: str, sample: Any) -> None:
    if not isinstance(sample, Sample):
        raise WrongAnswerError(f"{name}: its samples must be a tuple of Sample")
    value: Any = sample.value
    if not isinstance(value, float | int):
        raise WrongAnswerError(f"{name}: {value!r} is not a number")
    labels: Any = sample.labels
    for label, text in labels.items():
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise WrongAnswerError(f"{name}: {label!r} is no name for a label")
        if not isinstance(text, str) or len(text) > 200:
            raise WrongAnswerError(
                f"{name}: label {label} must be a text of 200 characters at most"
            )


def decision(answer: object) -> Decision | None:
    """Accept an `authorize` hook's answer."""
    if answer is None:
        return None
    plain: Any = answer
    if isinstance(answer, Decision) and isinstance(plain.allowed, bool):
        return answer
    raise WrongAnswerError(f"it gave {answer!r:.80}, not a Decision or None")


def objection(answer: object) -> Objection | None:
    """Accept a `review_config` hook's answer."""
    if answer is None:
        return None
    plain: Any = answer
    if (
        isinstance(answer, Objection)
        and isinstance(plain.reason, str)
        and plain.reason.strip()
        and isinstance(plain.key, str)
    ):
        return replace(
            answer,
            reason=_shortened(" ".join(plain.reason.split()), MOST_VALUE),
            key=_shortened(plain.key, MOST_VALUE),
        )
    raise WrongAnswerError(f"it gave a {type(answer).__name__}, not an Objection or None")
