"""Looking into the PostgreSQL queue."""

import json
from collections.abc import Sequence
from typing import Any

from atlasd.contracts.queue import DeadGroup, Filter, JobState, Row
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.link import Rows, Statement


def row_of(found: tuple[Any, ...]) -> Row:
    """A job, from the columns of `sql.ROW`."""
    known = Row._make(found)
    return known._replace(state=JobState(known.state))


def selecting(which: Filter, limit: int, *, lock: str = "") -> Statement:
    """The statement for the jobs that a filter means, by id; `lock` is added to it."""
    clauses: list[str] = []
    values: list[str] = []

    def clause(text: str, value: str) -> None:
        values.append(value)
        clauses.append(text.format(f"${len(values)}"))

    clause("j.id > {}::bigint", str(which.after))
    for text, value in (
        ("q.name = {}", which.queue),
        ("j.kind = {}", which.kind),
        ("l.fair_key = {}", which.fair_key),
        ("l.target = {}", which.target),
        ("j.fingerprint = {}", which.fingerprint),
    ):
        if value:
            clause(text, value)
    if which.finalized_since:
        clause("j.finalized_at >= {}::bigint", str(which.finalized_since))
    if which.finalized_before:
        clause("j.finalized_at < {}::bigint", str(which.finalized_before))
    if which.ids:
        clause("j.id = ANY({}::bigint[])", sql.array(which.ids))
    if which.states:
        # The words stand in the text, so that the planner finds the index of that state.
        words = ", ".join(f"'{state.value}'" for state in which.states)
        clauses.append(f"j.state IN ({words})" if len(which.states) > 1 else f"j.state = {words}")
    if which.tag:
        clause(
            "j.options <> '' AND (j.options::json->'tags')::jsonb @> to_jsonb({}::text)", which.tag
        )
    values.append(str(limit))
    where = " AND ".join(clauses)
    text = f"{sql.ROW} WHERE {where} ORDER BY j.id LIMIT ${len(values)}::bigint {lock}"
    return text, tuple(values)


def groups_of(rows: Rows) -> Sequence[DeadGroup]:
    """Groups of dead jobs, from the columns of `sql.DEAD_GROUPS`."""
    groups = []
    for print_, queue, kind, reason, errors, count, first, last in rows:
        known = json.loads(errors)[-1] if errors else {"error": "", "message": ""}
        said = f"{known['error']}: {known['message']}" if known["message"] else known["error"]
        groups.append(DeadGroup(print_, queue, kind, reason, said, count, first, last))
    return groups
