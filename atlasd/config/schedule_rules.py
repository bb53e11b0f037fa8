"""Rules of a schedule that no single setting of it can know."""

from collections.abc import Mapping

from atlasd.config.problems import Findings
from atlasd.config.referenced import Referenced
from atlasd.config.schedules import JOB_NAME, JOB_NAME_EXPECTED, Schedule
from atlasd.config.service import NAME_EXPECTED
from atlasd.config.units import NAME
from atlasd.contracts.config import KeyPath

PLANS = ("cron", "every", "at")
_ONE = "one of cron, every and at"


def examine(name: str, schedule: Schedule, findings: Findings) -> None:
    """Note every breach of a rule."""
    path: KeyPath = ("jobs", "schedules", name)
    if not NAME.fullmatch(name):
        findings.add(path, expected=NAME_EXPECTED, got=repr(name), at_key=True)
    given = [key for key in PLANS if key in schedule.model_fields_set]
    if len(given) > 1:
        findings.add((*path, given[-1]), expected=_ONE, got=" and ".join(given), at_key=True)
    elif not given:
        findings.add(path, expected=_ONE, got="none of them")
    elif "zone" in schedule.model_fields_set:
        _zone(schedule, given[0], path, findings)
    for index, tag in enumerate(schedule.tags):
        if JOB_NAME.fullmatch(tag) is None:
            findings.add((*path, "tags", index), expected=JOB_NAME_EXPECTED, got=repr(tag))


def examine_arguments(references: Mapping[KeyPath, Referenced], findings: Findings) -> None:
    """Note secrets among what a job is made of: all of it is kept in the queue, and shown."""
    for path, referenced in references.items():
        if path[:2] == ("jobs", "schedules") and referenced.sources:
            findings.add(
                path,
                got="a secret, and what a job is made of is kept in the queue and shown",
                hint="have the handler read it: `secrets` of the worker's service",
            )


def _zone(schedule: Schedule, plan: str, path: KeyPath, findings: Findings) -> None:
    if plan == "every":
        got, hint = "means nothing for every, which goes by no zone's clock", "remove it"
    elif plan == "at" and schedule.at is not None and schedule.at.tzinfo is not None:
        got, hint = "at says it too", "keep one of the two"
    else:
        return
    findings.add((*path, "zone"), got=got, hint=hint, at_key=True)
