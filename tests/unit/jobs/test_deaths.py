import pytest

from atlasd.jobs import deaths
from atlasd.jobs.deaths import EVERY, Mourning
from atlasd.jobs.ledger import Died


def died(group: str = "g", job: int = 1) -> Died:
    return Died(group, "mail", "send", "exhausted", job, "ValueError: no")


def test_the_first_is_told_at_once_and_the_others_once_a_minute() -> None:
    mourning = Mourning()
    news = mourning.note(died(), 0.0)
    assert news is not None
    assert news.count == 1
    assert [mourning.note(died(job=n), n / 10) for n in range(2, 102)] == [None] * 100
    assert mourning.due(EVERY - 1) == []
    (news,) = mourning.due(EVERY)
    assert (news.count, news.last.job) == (100, 101)
    assert mourning.due(EVERY + 1) == []
    assert mourning.due(3 * EVERY) == [], "nobody has died since"
    assert mourning.note(died(), 3 * EVERY) is not None, "it is news again"


def test_groups_are_told_apart_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths, "GROUPS", 2)
    mourning = Mourning()
    told = [mourning.note(died(name), 0.0) for name in ("a", "b", "c", "d", "e")]
    assert [news.last.fingerprint if news else None for news in told] == ["a", "b", "", None, None]
    (news,) = mourning.due(EVERY)
    assert (news.last.fingerprint, news.count) == ("", 2)
