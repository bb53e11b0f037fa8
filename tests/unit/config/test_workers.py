"""Services that run jobs: what becomes of `worker` and `scale`."""

import sys

import pytest

from tests.unit.config.desk import Desk


def test_a_worker_is_run_by_this_python_and_knows_where_the_jobs_are(desk: Desk) -> None:
    config = desk.load(
        """
        [services.mail]
        worker = { module = "shop.jobs", queues = ["email", "sms"], concurrency = 8, processes = 2 }
        """
    )
    (spec,) = config.specs()
    assert spec.command == (
        sys.executable, "-m", "atlasd.worker", "shop.jobs", "--queue", "email", "--queue", "sms",
        "--processes", "2", "--concurrency", "8", "--grace", "25",
    )  # fmt: skip
    assert spec.env["ATLASD_JOBS"] == f"{desk.paths.run}/jobs.sock"
    assert spec.stop.timeout == 30.0
    assert spec.instances == 1


def test_a_worker_without_python_and_a_longer_grace(desk: Desk) -> None:
    config = desk.load(
        """
        [services.pdf]
        worker = { exec = ["sh", "-c", "make pdf"], queues = "pdf", grace = "2m", result = "text" }
        env = { ATLASD_JOBS = "/elsewhere/jobs.sock" }
        """
    )
    (spec,) = config.specs()
    assert spec.command[3:] == (
        "--exec", "sh -c 'make pdf'", "--result", "text", "--queue", "pdf", "--grace", "120",
    )  # fmt: skip
    assert spec.env["ATLASD_JOBS"] == "/elsewhere/jobs.sock"
    assert spec.stop.timeout == 125.0


def test_a_scaled_service_begins_with_the_least(desk: Desk) -> None:
    config = desk.load(
        """
        [services.mail]
        worker = { module = "shop.jobs", queues = ["email"], concurrency = 4 }
        scale = { min = 2, max = 8, target_wait = "10s" }
        """
    )
    (spec,) = config.specs()
    assert spec.instances == 2
    assert config.settings.services["mail"].scale is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "services.a.command: expected a command, or a worker, got nothing"),
        (
            'command = "true"\nworker = { module = "x" }',
            "services.a.worker: means nothing beside a command; keep one of the two",
        ),
        ("worker = {}", "services.a.worker: expected exactly one of module, exec, http, got none"),
        (
            'worker = { module = "x", http = "http://h/" }',
            "services.a.worker: expected exactly one of module, exec, http, got module and http",
        ),
        ('worker = { http = "http://h/" }', "services.a.worker: expected queues, got none"),
        (
            'worker = { http = "ftp://h/", queues = ["a"] }',
            "services.a.worker.http: expected a URL, http:// or https://",
        ),
        (
            'worker = { module = "x", result = "text" }',
            "services.a.worker.result: means nothing for a module",
        ),
        (
            'worker = { module = "x" }\nstop = { timeout = "20s" }',
            "services.a.stop.timeout: expected at least 30s: the worker's grace and 5s, got 20s",
        ),
        (
            'type = "oneshot"\nworker = { module = "x" }',
            'services.a.type: expected "simple" for a worker, got "oneshot"',
        ),
        (
            'command = "true"\nscale = { max = 2 }',
            "services.a.scale: means nothing without a worker, whose queues it goes by",
        ),
        (
            'worker = { module = "x" }\nscale = { max = 2 }',
            "services.a.worker: expected queues, got none; scale goes by their backlog",
        ),
        (
            'worker = { module = "x", queues = "q" }\ninstances = 3\nscale = { max = 2 }',
            "services.a.instances: scale says it too; keep one of the two",
        ),
        (
            'worker = { module = "x", queues = "q" }\nscale = { min = 3, max = 2 }',
            "services.a.scale.min: expected at most max, 2, got 3",
        ),
    ],
)
def test_a_mistake_is_explained(desk: Desk, text: str, said: str) -> None:
    found = [line.partition(": ")[2] for line in desk.says(f"[services.a]\n{text}\n")]
    assert len(found) == 1, found
    assert found[0].startswith(said)
