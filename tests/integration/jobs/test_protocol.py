"""The protocol as a program in any language would speak it: a socket and lines of JSON."""

import json
import socket
from typing import Any

import pytest

from atlasd.errors import AtlasError
from atlasd.states import JobState
from tests.integration.daemons import until
from tests.integration.jobs.served import Served


class Line:
    """A bare socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(path)
        self._file = self._socket.makefile("rb")

    def say(self, text: str | bytes) -> None:
        self._socket.sendall(text.encode() if isinstance(text, str) else text)

    def hear(self) -> dict[str, Any]:
        found = json.loads(self._file.readline())
        assert isinstance(found, dict)
        return found

    def ask(self, **body: Any) -> dict[str, Any]:
        self.say(json.dumps({"n": 1, **body}) + "\n")
        return self.hear()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def test_a_job_goes_round_by_hand(engine: Served) -> None:
    line = Line(engine.path)
    made = line.ask(op="enqueue", jobs=[{"kind": "email.send", "args": {"to": "ops@example.org"}}])
    ((number, state, outcome),) = made["jobs"]
    assert (state, outcome) == ("available", "created")
    hello = line.ask(op="hello", worker="by-hand", concurrency=1)
    assert hello["lease"] == 30_000
    (job,) = line.ask(op="work", want=5)["jobs"]
    assert job[:3] == [number, 1, 1]
    assert job[6] == {"to": "ops@example.org"}
    assert line.ask(op="beat", held=[[number, 1], [999, 1]])["lost"] == [999]
    assert line.ask(op="work", finish=[[number, 1, '{"sent":true}']]) == {"n": 1, "jobs": []}
    again = line.ask(op="work", finish=[[number, 1]])
    assert again["lost"] == [number]
    (row,) = engine.rows()
    assert (row.state, row.result) == (JobState.COMPLETED, '{"sent":true}')
    line.close()


def test_many_requests_in_one_write_are_answered_each(engine: Served) -> None:
    line = Line(engine.path)
    asked = [
        {"n": n, "op": "enqueue", "jobs": [{"kind": "a", "args": {"n": n}}]} for n in range(1, 101)
    ]
    line.say("".join(json.dumps(one) + "\n" for one in asked))
    answers = [line.hear() for _ in asked]
    assert [one["n"] for one in answers] == list(range(1, 101))
    assert len({one["jobs"][0][0] for one in answers}) == 100
    line.close()


def test_a_request_cut_anywhere_is_one_request(engine: Served) -> None:
    line = Line(engine.path)
    text = json.dumps({"n": 7, "op": "ping"}).encode() + b"\n"
    for byte in text:
        line.say(bytes([byte]))
    assert line.hear() == {"n": 7}
    line.close()


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ("no json\n", "request.invalid", "no JSON"),
        ("[1, 2]\n", "request.invalid", "one JSON object a line"),
        ('{"n": 1, "op": "dance"}\n', "operation.unknown", "no operation 'dance'"),
        ('{"n": 1, "op": "work"}\n', "request.invalid", "say hello first"),
        ('{"n": 1, "op": "enqueue", "jobs": 5}\n', "job.invalid", "jobs: expected a list"),
        ('{"n": 1, "op": "enqueue", "jbos": []}\n', "job.invalid", "jobs: expected a list"),
        (
            '{"n": 1, "op": "enqueue", "job": {"kind": "a"}}\n',
            "job.invalid",
            "args: expected a list",
        ),
        (
            '{"n": 1, "op": "enqueue", "job": {"kind": "a"}, "args": [5]}\n',
            "job.invalid",
            "args[0]: expected an object",
        ),
        ('{"n": 1, "op": "enqueue", "jobs": [{}]}\n', "job.invalid", "jobs[0].kind"),
        (
            '{"n": 1, "op": "enqueue", "jobs": [{"kind": "a", "prio": 3}]}\n',
            "job.invalid",
            "jobs[0].prio: unknown key",
        ),
        (
            '{"n": 1, "op": "enqueue", "jobs": [{"kind": "a", "delay": "soon"}]}\n',
            "job.invalid",
            "jobs[0].delay",
        ),
        (
            '{"n": 1, "op": "enqueue", "jobs": [{"kind": "a", "args": [1]}]}\n',
            "job.invalid",
            "jobs[0].args: expected an object",
        ),
        ('{"n": 1, "op": "hello", "worker": ""}\n', "request.invalid", "worker"),
    ],
)
def test_a_mistake_is_explained_and_costs_only_itself(
    engine: Served, said: str, code: str, words: str
) -> None:
    line = Line(engine.path)
    line.say(said)
    error = line.hear()["error"]
    assert error["code"] == code
    assert words in error["message"]
    assert line.ask(op="ping") == {"n": 1}
    assert engine.rows() == []
    line.close()


def test_a_list_with_one_mistake_enqueues_nothing(engine: Served) -> None:
    line = Line(engine.path)
    answer = line.ask(op="enqueue", jobs=[{"kind": "a"}, {"kind": "b", "priority": 99}])
    assert "jobs[1].priority" in answer["error"]["message"]
    assert engine.rows() == []
    line.close()


def test_a_claim_waits_for_its_job(engine: Served) -> None:
    worker, producer = Line(engine.path), Line(engine.path)
    worker.ask(op="hello", worker="w")
    worker.say(json.dumps({"n": 5, "op": "work", "want": 1, "wait": 60_000}) + "\n")
    assert worker.ask(op="ping") == {"n": 1}, "the connection is free for other requests"
    producer.ask(op="enqueue", jobs=[{"kind": "a"}])
    found = worker.hear()
    assert (found["n"], len(found["jobs"])) == (5, 1)
    worker.close()
    producer.close()


def test_a_connection_that_breaks_gives_its_jobs_back(engine: Served) -> None:
    line = Line(engine.path)
    line.ask(op="enqueue", job={"kind": "a"}, args=[{"n": n} for n in range(1000)])
    line.ask(op="hello", worker="w", concurrency=2)
    assert len(line.ask(op="work", want=1000)["jobs"]) == 1000
    line.close()
    until(lambda: not engine.rows(JobState.RUNNING), "the leases to be taken back")
    until(lambda: not engine.rows(JobState.SCHEDULED), "the lost ones to be available again")
    rows = engine.rows(JobState.AVAILABLE)
    assert len(rows) == 1000
    lost = [row for row in rows if row.lost_count]
    assert [row.id for row in lost] == [row.id for row in rows][: len(lost)]
    assert 2 <= len(lost) < 1000
    assert all(row.attempt == 0 for row in rows if not row.lost_count), "nobody had begun them"


def test_a_worker_of_an_older_claim_is_refused(engine: Served) -> None:
    first, second = Line(engine.path), Line(engine.path)
    first.ask(op="enqueue", jobs=[{"kind": "a"}])
    first.ask(op="hello", worker="first")
    ((job, token, *_),) = first.ask(op="work", want=1)["jobs"]
    first.ask(op="work", release=[[job, token]])
    second.ask(op="hello", worker="second")
    ((same, newer, *_),) = second.ask(op="work", want=1)["jobs"]
    assert (same, newer) == (job, token + 1)
    assert first.ask(op="work", finish=[[job, token]])["lost"] == [job]
    assert "lost" not in second.ask(op="work", finish=[[job, newer]])
    first.close()
    second.close()


def test_a_repetition_with_the_same_key_is_the_same_answer(engine: Served) -> None:
    line = Line(engine.path)
    once = line.ask(op="enqueue", key="order-17", jobs=[{"kind": "a"}])
    twice = line.ask(op="enqueue", key="order-17", jobs=[{"kind": "a"}])
    assert once["jobs"] == twice["jobs"]
    assert len(engine.rows()) == 1
    line.close()


def test_what_a_job_says_comes_after_it(engine: Served) -> None:
    line = Line(engine.path)
    line.ask(op="enqueue", jobs=[{"kind": "a", "then": [{"kind": "b", "args": {"x": 1}}]}])
    line.ask(op="hello", worker="w")
    ((job, token, *_),) = line.ask(op="work", want=1)["jobs"]
    line.ask(op="work", finish=[[job, token]])
    assert [(row.kind, row.state.value) for row in engine.rows()] == [
        ("a", "completed"), ("b", "available"),
    ]  # fmt: skip
    line.close()


def test_the_client_explains_an_engine_that_is_gone(engine: Served) -> None:
    connection = engine.connect()
    connection.call("ping")
    connection.close()
    with pytest.raises(AtlasError) as caught:
        connection.call("ping")
    assert caught.value.code == "core.unreachable"
