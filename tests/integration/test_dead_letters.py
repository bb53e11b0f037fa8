"""`atlasctl dead`, `job`, `queue` and `breaker` as they are typed, over a served queue."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atlasd.cli.commands import atlasctl
from atlasd.cli.options import run
from atlasd.control.client import Client
from tests.control_double import FakeCore
from tests.serving import serving

Ctl = Callable[..., str]


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "control.sock")
    with serving(FakeCore(), path):
        yield path


@pytest.fixture
def ctl(socket: str, capsys: pytest.CaptureFixture[str]) -> Ctl:
    def typed(*words: str, code: int = 0) -> str:
        found = run(atlasctl, "atlasctl", [*words, "--socket", socket])
        said = capsys.readouterr()
        assert found == code, said
        assert "Traceback" not in said.err
        return said.out + said.err

    return typed


@pytest.fixture
def dead(socket: str) -> list[int]:
    """Three dead jobs of one kind, and one of another."""
    client = Client(socket)
    jobs = [{"kind": kind, "max_attempts": 1, "args": {"n": n}} for n, kind in enumerate("aaab")]
    client.call("job.enqueue", jobs=jobs)
    given = client.call("job.work", worker="w", limit=10)["jobs"]
    fail = [
        {"id": job["id"], "token": job["token"], "error": "ValueError", "message": "no"}
        for job in given
    ]
    client.call("job.work", worker="w", fail=fail)
    return [job["id"] for job in given]


def test_looking(ctl: Ctl, dead: list[int]) -> None:
    assert "ValueError: no" in ctl("dead", "groups")
    assert len(ctl("dead", "list", "--kind", "a").splitlines()) == 4
    assert f"--after {dead[1]}" in ctl("dead", "list", "--limit", "2")
    assert '"n": 3' in ctl("dead", "show", str(dead[3]))
    assert "there is no job 999" in ctl("dead", "show", "999", code=3)
    assert "--since: 'soon' is no time" in ctl("dead", "list", "--since", "soon", code=2)


def test_nothing_said_is_not_everything(ctl: Ctl, dead: list[int]) -> None:
    assert "which dead jobs?" in ctl("dead", "requeue", code=2)
    assert "which dead jobs?" in ctl("dead", "purge", "--yes", code=2)
    assert "leave one out" in ctl("dead", "requeue", "--all", "--kind", "a", code=2)
    assert "3 jobs would be requeued" in ctl("dead", "requeue", "--kind", "a", "--dry-run")
    assert "4 jobs would be deleted" in ctl("dead", "purge", "--all", "--dry-run")
    assert "say --yes" in ctl("dead", "purge", "--all", code=2)
    assert "2 jobs requeued" in ctl("dead", "requeue", str(dead[0]), str(dead[1]))
    assert "2 jobs deleted" in ctl("dead", "purge", "--all", "--yes")
    assert "no job is dead" in ctl("dead", "groups")


def test_editing(ctl: Ctl, dead: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    one = str(dead[0])
    assert "no JSON" in ctl("dead", "edit", one, "--args", "{", code=2)
    monkeypatch.setenv("EDITOR", "sed -i s/0/7/")
    monkeypatch.delenv("VISUAL", raising=False)
    assert "is dead" in ctl("dead", "edit", one)
    assert '"n": 7' in ctl("dead", "show", one)
    assert "is available" in ctl("dead", "edit", one, "--args", "{}", "--requeue")
    assert "only a dead job" in ctl("dead", "edit", one, "--args", "{}", code=5)


def test_a_file_of_dead_jobs(ctl: Ctl, dead: list[int], tmp_path: Path) -> None:
    file = tmp_path / "dead.jsonl"
    assert "4 dead jobs written" in ctl("dead", "export", "-o", str(file))
    assert file.stat().st_mode & 0o77 == 0
    assert "cannot be written" in ctl("dead", "export", "-o", str(file), code=2)
    assert ctl("dead", "export") == file.read_text()
    ctl("dead", "purge", "--all", "--yes")
    lines = file.read_text().splitlines()
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join([*lines[:2], "", json.dumps({"kind": "x y"})]) + "\n")
    assert "line 4.kind: expected a name" in ctl("dead", "import", str(bad), code=2)
    assert "no job is dead" in ctl("dead", "groups"), "nothing was half applied"
    assert "4 dead jobs would be taken in" in ctl("dead", "import", str(file), "--dry-run")
    assert "4 dead jobs taken in, 0 known" in ctl("dead", "import", str(file))
    assert "0 dead jobs taken in, 4 known" in ctl("dead", "import", str(file))


def test_pushing(ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"n": 1}\n{"n": 2}\n')
    assert "2 jobs enqueued" in ctl("job", "push", "a", "--lines", str(file), "--tag", "x")
    assert len(ctl("job", "list", "--tag", "x").splitlines()) == 3
    file.write_text('{"kind": "a"}\n{"kind": "a", "priority": 12}\n')
    told = ctl("job", "push", "--lines", str(file), code=2)
    assert "line 2: priority: expected a whole number, 0 to 9" in told
    assert "nothing was enqueued" in told
    assert "is scheduled" in ctl("job", "push", "a", "{}", "--delay", "5m", "--fair-key", "acme")
    assert "is scheduled" in ctl("job", "push", "a", "--at", "2099-01-01T00:00:00Z")
    assert "available" in ctl("job", "push", "a", "--unique", "k", "--on-conflict", "reject")
    assert "unique key" in ctl(
        "job", "push", "a", "--unique", "k", "--on-conflict", "reject", code=5
    )
    assert "belong to --unique" in ctl("job", "push", "a", "--scope", "until_claimed", code=2)
    assert "which kind" in ctl("job", "push", code=2)
    assert "given twice" in ctl("job", "push", "a", "{}", "--args", "{}", code=2)


def test_queues_and_breakers(ctl: Ctl, dead: list[int]) -> None:
    ctl("job", "push", "a", "--target", "bank")
    shown = ctl("queue", "show", "default")
    assert "1 available" in shown
    assert "by its priority: 1: 1m00s, 5: 5m00s, 9: 9m00s" in shown
    assert "did you mean 'default'?" in ctl("queue", "show", "defualt", code=3)
    assert "did you mean 'bank'?" in ctl("breaker", "open", "bnak", code=3)
    assert "until `atlasctl breaker close bank`" in ctl("breaker", "open", "bank")
    assert "(breaker)" in ctl("job", "explain", str(dead[3] + 1))
    assert "is closed" in ctl("breaker", "reset", "bank")
    assert "nobody is there" in ctl("queue", "purge", "default", code=2)
    assert "1 job deleted" in ctl("queue", "purge", "default", "--yes")


def test_watching_ends_with_the_job(ctl: Ctl, dead: list[int]) -> None:
    told = ctl("job", "watch", str(dead[0]), code=1)
    assert "is dead; attempt 1 of 1; exhausted; ValueError: no" in told
    assert "there is no job 999" in ctl("job", "watch", "999", code=3)
    assert "default: 0 available" in ctl("job", "watch", "--queue", "default")
    assert "what is to be watched?" in ctl("job", "watch", code=2)
