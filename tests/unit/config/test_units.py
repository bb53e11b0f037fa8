"""Durations, sizes, signals, modes and addresses as operators write them."""

import contextlib
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.config import units
from atlasd.config.units import WrongValueError

PARSERS: list[Callable[[object], object]] = [
    units.parse_duration,
    units.parse_size,
    units.parse_signal,
    units.parse_mode,
    units.parse_statuses,
    units.parse_listen,
    units.parse_tcp_target,
    units.parse_socket_address,
    units.parse_http_url,
]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("0.1s0ms", 0.1),
        ("2d", 172800),
        ("1w1d1h1m1s1ms1us", 694861.001001),
        ("0s", 0),
    ],
)
def test_a_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "30", "s", "30 s", "-1s", "1s1s", "1s1m", "1.s", ".5s", "1e3s", "30S", "٣s", "1s\n", "1y"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(WrongValueError, match="a duration such as"):
        units.parse_duration(text)


def test_a_bare_number_is_no_duration_and_the_unit_is_offered() -> None:
    with pytest.raises(WrongValueError) as caught:
        units.parse_duration(30)
    assert caught.value.hint == 'a duration has a unit: "30s" for seconds'


@given(st.integers(min_value=0, max_value=units.LONGEST * 1_000_000))
def test_a_duration_survives_being_written_and_read(micros: int) -> None:
    seconds = micros / 1_000_000
    text = units.format_duration(seconds)
    assert math.isclose(units.parse_duration(text), seconds, rel_tol=1e-12, abs_tol=1e-9)


@given(st.integers(0, 20), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_the_parts_of_a_duration_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}d{hours}h{minutes}m{seconds}s"
    assert units.parse_duration(text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 * 1024**2),
        ("10MB", 10_000_000),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1.5GiB", 1610612736),
        ("0B", 0),
        (4096, 4096),
    ],
)
def test_a_size_is_read_as_bytes(text: object, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("512M", '"512MiB" counts by 1024, "512MB" by 1000'),
        ("1g", '"1GiB" counts by 1024, "1GB" by 1000'),
        ("1mb", '"1MiB" counts by 1024, "1MB" by 1000'),
        ("5bits", "units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"),
        ("-1B", ""),
        (-1, ""),
        (True, ""),
        (1.5, ""),
        ("0.3B", ""),
        ("99999999TiB", ""),
    ],
)
def test_what_is_no_size_is_refused(value: object, hint: str) -> None:
    with pytest.raises(WrongValueError) as caught:
        units.parse_size(value)
    assert caught.value.hint == hint


@given(st.integers(min_value=0, max_value=units.LARGEST))
def test_a_size_survives_being_written_and_read(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == size


@pytest.mark.parametrize("text", ["TERM", "SIGTERM", "term", "SigTerm"])
def test_a_signal_has_one_name_however_it_is_written(text: str) -> None:
    assert units.parse_signal(text) == "TERM"


def test_real_time_signals_are_named_from_the_first() -> None:
    assert units.parse_signal("SIGRTMIN+3") == "RTMIN+3"
    with pytest.raises(WrongValueError):
        units.parse_signal("RTMIN+60")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (15, "numbers differ between machines; write the name"),
        ("TREM", "did you mean 'TERM'?"),
        ("WHATEVER", "see `kill -l`"),
    ],
)
def test_what_is_no_signal_is_refused_with_advice(value: object, hint: str) -> None:
    with pytest.raises(WrongValueError) as caught:
        units.parse_signal(value)
    assert caught.value.hint == hint


def test_modes_are_octal_digits_in_a_string() -> None:
    assert [units.parse_mode(text) for text in ("660", "0660", "0o660")] == [0o660] * 3
    for wrong in (660, 0o660, "66", "0888", "rw-", True, "10660"):
        with pytest.raises(WrongValueError):
            units.parse_mode(wrong)


def test_statuses_are_single_or_a_range() -> None:
    assert units.parse_statuses(204) == (204, 204)
    assert units.parse_statuses("200-299") == (200, 299)
    for wrong in (99, 600, "299-200", "2xx", True, None):
        with pytest.raises(WrongValueError):
            units.parse_statuses(wrong)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8080", ("::1", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("::1:80", None),
        ("[127.0.0.1]:80", None),
        (":80", None),
        ("host", None),
        ("host:65536", None),
        ("-host:80", None),
        ("ho st:80", None),
    ],
)
def test_host_and_port_are_told_apart(text: str, found: tuple[str, int] | None) -> None:
    assert units.split_host_port(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "tcp://127.0.0.1:80",
        "tcp://[::]:0",
        "udp://localhost:53",
        "unix:///run/shop/http.sock",
        "unixgram:///run/shop/log.sock",
    ],
)
def test_addresses_of_sockets_are_kept_as_they_were_written(text: str) -> None:
    assert units.parse_socket_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:80",
        "tcp:127.0.0.1:80",
        "tcp://host.example:80",
        "unix://run/x",
        "unix:///",
        "unix:///run/\0",
        "unix:///run/" + "x" * 103,
        "",
    ],
)
def test_what_is_no_address_of_a_socket_is_refused(text: str) -> None:
    with pytest.raises(WrongValueError):
        units.parse_socket_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8080/healthz",
        "http://[::1]/",
        "http://shop.example",
        "http+unix://%2Frun%2Fshop.sock/healthz",
    ],
)
def test_urls_of_probes_are_kept_as_they_were_written(text: str) -> None:
    assert units.parse_http_url(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "https://127.0.0.1/",
        "http:///healthz",
        "http://user@127.0.0.1/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:port/",
        "http://127.0.0.1/a b",
        "http://[::1/",
        "http://127.0.0.1/ü",
        "http+unix:///run/shop.sock/healthz",
        "ftp://127.0.0.1/",
    ],
)
def test_urls_that_a_probe_cannot_ask_are_refused(text: str) -> None:
    with pytest.raises(WrongValueError):
        units.parse_http_url(text)


def test_targets_of_tcp_probes() -> None:
    for good in ("127.0.0.1:80", "db.example:5432", "unix:/run/db.sock"):
        assert units.parse_tcp_target(good) == good
    for wrong in ("127.0.0.1:0", "unix:run/db.sock", "db", 5432):
        with pytest.raises(WrongValueError):
            units.parse_tcp_target(wrong)


@given(
    st.sampled_from(PARSERS),
    st.one_of(
        st.text(),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.none(),
        st.lists(st.text()),
        st.text(alphabet="0123456789smhdBMKi:/.[]-+_unixtcphSIG%"),
    ),
)
def test_whatever_is_written_is_read_or_refused(
    parse: Callable[[object], object], value: object
) -> None:
    with contextlib.suppress(WrongValueError):
        parse(value)
