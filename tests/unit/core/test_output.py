import json

from hypothesis import given
from hypothesis import strategies as st

from atlasd.core.output import encoded, merged
from atlasd.services.logfiles import Line


def line(second: int, service: str = "web") -> Line:
    return Line(
        time=f"2026-11-23T17:44:{second:02}.000000Z",
        service=service,
        instance=0,
        stream="stdout",
        message=f"{service} {second}",
    )


def test_a_line_is_json_with_exactly_what_is_promised() -> None:
    text = encoded(line(7))
    assert text.endswith(b"\n")
    assert json.loads(text) == {
        "time": "2026-11-23T17:44:07.000000Z",
        "service": "web",
        "instance": 0,
        "stream": "stdout",
        "message": "web 7",
    }


@given(
    st.lists(st.lists(st.integers(0, 59)).map(sorted), max_size=4),
    st.none() | st.integers(0, 20),
)
def test_services_are_merged_by_time_and_the_last_lines_are_of_all_together(
    seconds: list[list[int]], lines: int | None
) -> None:
    services = [[line(s, f"s{n}") for s in some] for n, some in enumerate(seconds)]
    found = list(merged([iter(some) for some in services], lines))
    times = [one.time for one in found]
    assert times == sorted(times)
    everything = sorted(one.time for some in services for one in some)
    if lines is not None and len(services) != 1:  # of a single one, the reader counts itself
        everything = everything[max(0, len(everything) - lines) :]
    assert times == everything
