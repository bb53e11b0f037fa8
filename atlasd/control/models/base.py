"""What all shapes of the control socket have in common, and the types of their fields."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from atlasd.contracts.settings import parse_duration
from atlasd.states import Health, Lifecycle, Traffic, Wanted

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ServiceName = Annotated[
    str, Field(min_length=1, max_length=200, description="Name of a service.", examples=["web"])
]
Index = Annotated[int, Field(ge=0, le=1_000_000, description="Index of an instance, from 0.")]
Seconds = Annotated[float, Field(ge=0, description="A duration in seconds.")]
Verdict = Literal["pass", "warn", "fail", "unknown"]
# The words of atlasd.states, which handlers may give as the plain strings of a snapshot.
WantedWord = Annotated[Wanted, Field(strict=False)]
LifecycleWord = Annotated[Lifecycle, Field(strict=False)]
HealthWord = Annotated[Health, Field(strict=False)]
TrafficWord = Annotated[Traffic, Field(strict=False)]


class Model(BaseModel):
    """What all shapes have in common: strict, frozen, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Nothing(Model):
    """A request without fields."""


def moment(value: object) -> object:
    """A point in time from `10m` (that long ago) or an ISO 8601 time.

    Anything else goes through, for pydantic to judge; a time without a zone is taken as UTC.
    """
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if not isinstance(value, str):
        return value
    text = value.strip()
    now = datetime.now(UTC)
    try:
        return max(now - parse_duration(text), _EPOCH)
    except OverflowError:
        return _EPOCH
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "expected a duration such as 10m, or a time such as 2026-11-23T17:44:43Z"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
