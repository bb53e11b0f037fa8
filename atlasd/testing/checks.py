"""The conformance suite of check types."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from atlasd.contracts.checks import Check, CheckResult, CheckType, Health
from atlasd.pluginhost import answers
from atlasd.testing.context import PlainContext
from atlasd.testing.descriptors import assert_settings_are_strict

LIMIT = timedelta(seconds=30)


class CheckTypeSuite:
    """What every check type keeps.

    Derive a class whose name begins with `Test`, and give it:

    - a fixture `check_type`, the descriptor (see `load_drop_in` and `load_module`);
    - a fixture `passing`, settings of a check that passes;
    - a fixture `failing`, settings of a check that fails or warns, or None if none can be made.

    Fixtures may start what is to be checked; the settings are plain, as a TOML file has them. The
    tests are coroutines: pytest-asyncio must run in its mode `auto`.
    """

    @pytest.fixture
    def context(self, tmp_path: Path) -> Iterator[PlainContext]:
        """What the check is opened with."""
        plain = PlainContext(tmp_path / "plugin_state")
        yield plain
        plain.close()

    async def test_settings_are_strict(self, check_type: CheckType, passing: Any) -> None:
        """Settings are read, unknown names refused, and every field described."""
        assert_settings_are_strict(check_type.settings, passing)

    async def test_what_is_well_passes(
        self, check_type: CheckType, passing: Any, context: PlainContext
    ) -> None:
        """A check that should pass does, and gives a proper result."""
        async with _opened(check_type, passing, context) as check:
            result = _accepted(await check.run(LIMIT))
        assert result.status is Health.PASS, result.output

    async def test_what_is_ill_says_why(
        self, check_type: CheckType, failing: Any, context: PlainContext
    ) -> None:
        """A check that should not pass does not, and has words for it."""
        if failing is None:
            pytest.skip("this check type cannot be made to fail")
        async with _opened(check_type, failing, context) as check:
            result = _accepted(await check.run(LIMIT))
        assert result.status in {Health.WARN, Health.FAIL}
        assert result.output.strip(), "a person needs to read why it does not pass"

    async def test_it_runs_again_and_again(
        self, check_type: CheckType, passing: Any, context: PlainContext
    ) -> None:
        """An opened check can be run more than once."""
        async with _opened(check_type, passing, context) as check:
            results = [_accepted(await check.run(LIMIT)) for _ in range(3)]
        assert [result.status for result in results] == [Health.PASS] * 3

    async def test_checks_do_not_disturb_each_other(
        self, check_type: CheckType, passing: Any, context: PlainContext
    ) -> None:
        """Two checks of one type may be open, and run, at the same time."""
        async with (
            _opened(check_type, passing, context) as one,
            _opened(check_type, passing, context) as two,
        ):
            results = await asyncio.gather(one.run(LIMIT), two.run(LIMIT))
        assert [_accepted(result).status for result in results] == [Health.PASS] * 2

    async def test_no_time_is_a_verdict_too(
        self, check_type: CheckType, passing: Any, context: PlainContext
    ) -> None:
        """With a limit of nothing at all it still comes to a verdict, and soon."""
        async with _opened(check_type, passing, context) as check:
            async with asyncio.timeout(LIMIT.total_seconds()):
                _accepted(await check.run(timedelta(0)))

    async def test_a_run_that_is_given_up_can_be_followed_by_another(
        self, check_type: CheckType, passing: Any, context: PlainContext
    ) -> None:
        """Cancelling a run ends it, and leaves the check usable."""
        async with _opened(check_type, passing, context) as check:
            run = asyncio.ensure_future(check.run(LIMIT))
            await asyncio.sleep(0)
            run.cancel()
            async with asyncio.timeout(LIMIT.total_seconds()):
                await asyncio.wait({run})
            result = _accepted(await check.run(LIMIT))
        assert result.status is Health.PASS, result.output

    async def test_nothing_is_left_when_it_is_closed(
        self, check_type: CheckType, passing: Any, context: PlainContext
    ) -> None:
        """No task of the check's goes on after it was closed."""
        before = asyncio.all_tasks()
        async with _opened(check_type, passing, context) as check:
            await check.run(LIMIT)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() - before == set()


@asynccontextmanager
async def _opened(
    check_type: CheckType, settings: dict[str, Any], context: PlainContext
) -> AsyncIterator[Check]:
    model = check_type.settings.model_validate(settings)
    async with check_type.open(model, context) as check:
        yield check


def _accepted(answer: object) -> CheckResult:
    """The result, if the daemon would take it as it is, uncut, and could write it as JSON."""
    floods: list[str] = []
    result = answers.check_result(floods.append)(answer)
    assert floods == []
    json.dumps(asdict(result), allow_nan=False)
    return result
