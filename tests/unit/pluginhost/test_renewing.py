import asyncio
from collections.abc import Mapping

import pytest
from pydantic import BaseModel

from atlasd.pluginhost.renewing import Renewing


class Settings(BaseModel):
    number: int


class Work:
    """Goes on until it is cancelled, and tells how it began and ended."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, settings: Mapping[str, BaseModel]) -> None:
        name = ",".join(f"{key}={value.model_dump()['number']}" for key, value in settings.items())
        await self.told.put(f"begun {name}")
        try:
            await asyncio.Event().wait()
        finally:
            await self.told.put(f"ended {name}")

    async def says(self) -> str:
        return await asyncio.wait_for(self.told.get(), 30)


async def test_other_settings_begin_the_work_anew_and_equal_ones_do_not() -> None:
    work = Work()
    renewing = Renewing(work, {"a": Settings(number=1)})
    task = asyncio.create_task(renewing.run())
    assert await work.says() == "begun a=1"
    await renewing.renew({"a": Settings(number=1)})
    await renewing.renew({"a": Settings(number=2)})
    assert [await work.says(), await work.says()] == ["ended a=1", "begun a=2"]
    # Two in a row are one.
    await renewing.renew({})
    await renewing.renew({"a": Settings(number=3)})
    assert [await work.says(), await work.says()] == ["ended a=2", "begun a=3"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await work.says() == "ended a=3"


async def test_work_that_falls_takes_its_runner_along() -> None:
    async def fall(settings: Mapping[str, BaseModel]) -> None:
        raise ValueError("fallen")

    with pytest.raises(ExceptionGroup) as error:
        await Renewing(fall, {}).run()
    assert error.group_contains(ValueError, match="fallen")
