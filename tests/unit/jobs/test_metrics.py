import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from atlasd.contracts.queue import Distribution
from atlasd.core import metrics as core
from atlasd.jobs.ledger import Ledger
from atlasd.jobs.measures import Measures
from atlasd.jobs.metrics import metrics_of
from docs.metrics import of_jobs
from tests.unit.jobs.test_measures import LEASE, claimed


def scraped(measures: Measures, numbers: dict[str, float | Distribution]) -> dict[str, float]:
    added = metrics_of(
        [], now=0, settled={"lost": 2}, workers=1, measures=measures, ledger=Ledger(), breakers=[],
        numbers=numbers,
    )  # fmt: skip
    text = core.render(
        core.CoreMetrics(), version="0", snapshot=None, checks=[], numbers={}, plugins={},
        added=added, now=0.0,
    )  # fmt: skip
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_histograms_are_cumulated_and_in_seconds() -> None:
    measures = Measures()
    measures.given([claimed(1, waited=3), claimed(2, waited=900), claimed(3, waited=9e9)], LEASE)  # type: ignore[arg-type]
    found = scraped(measures, {})
    assert found["atlasd_job_wait_seconds_bucket['0.005', 'mail']"] == 1
    assert found["atlasd_job_wait_seconds_bucket['1.0', 'mail']"] == 2
    assert found["atlasd_job_wait_seconds_bucket['+Inf', 'mail']"] == 3
    assert found["atlasd_job_wait_seconds_count['mail']"] == 3
    assert found["atlasd_job_wait_seconds_sum['mail']"] == 9_000_000.903
    assert found["atlasd_jobs_lost_total[]"] == 2


def test_a_store_has_counters_and_histograms_of_its_own() -> None:
    spread = Distribution("Commits.", (1.0, 2.0), (4, 0, 1), 9.0)
    found = scraped(Measures(), {"shop_commits": spread, "shop_rows_total": 3.0})
    assert found["shop_rows_total[]"] == 3
    assert found["shop_commits_bucket['1.0']"] == 4
    assert found["shop_commits_bucket['+Inf']"] == 5
    assert found["shop_commits_sum[]"] == 9


def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    text = core.render(
        core.CoreMetrics(), version="0", snapshot=None, checks=[], numbers={}, plugins={},
        added=of_jobs(), now=0.0,
    )  # fmt: skip
    answer = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
