"""Durations, sizes, signals, modes and addresses: from what an operator writes to plain values."""

import ipaddress
import re
import signal
from decimal import Decimal
from urllib.parse import unquote, urlsplit

from atlasd.paths import SOCKET_PATH_MAX

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""What a service, a check or a socket may be called: it becomes a file name and a metric label."""

LONGEST = 10 * 366 * 86400
"""Seconds; a longer duration is a mistake in its unit."""
LARGEST = 2**62
"""Bytes; more than any counter of the kernel is sure to take."""

_DURATION_UNITS = {
    "w": Decimal(604800),
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
    "us": Decimal("0.000001"),
}
_SIZE_UNITS = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_NUMBER = r"[0-9]{1,19}(?:\.[0-9]{1,9})?"
_DURATION_PART = re.compile(rf"({_NUMBER})(us|ms|[wdhms])")
_DURATION = re.compile(rf"(?:{_NUMBER}(?:us|ms|[wdhms]))+")
_SIZE = re.compile(rf"({_NUMBER})([A-Za-z]+)")
_HOST_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*):(?P<port>[0-9]{1,5})")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")

DURATION = 'a duration such as "250ms", "30s", "5m" or "1h30m"'
SIZE = 'a size such as "512MiB" or "10MB"'
SIGNAL = 'the name of a signal such as "TERM"'
MODE = 'a file mode in octal digits, as a string such as "0660"'
TCP_TARGET = '"HOST:PORT" or "unix:/PATH"'
LISTEN = '"HOST:PORT" such as "127.0.0.1:8000"'
SOCKET_ADDRESS = '"tcp://HOST:PORT", "udp://HOST:PORT", "unix:///PATH" or "unixgram:///PATH"'
HTTP_URL = 'a URL such as "http://127.0.0.1:8080/healthz"'
STATUS = 'an HTTP status such as 200, or a range such as "200-299"'


class WrongValueError(ValueError):
    """A value that is not what its setting takes: what was expected, and what may help.

    `got` replaces the value in the message, where the value as a whole says too little or too much.
    `below` is the way to the part of a list or table that is to blame.
    """

    def __init__(
        self, expected: str, *, hint: str = "", got: str = "", below: tuple[str | int, ...] = ()
    ) -> None:
        super().__init__(f"expected {expected}")
        self.below = below
        self.expected = expected
        self.hint = hint
        self.got = got


def parse_duration(text: object) -> float:
    """Seconds, from `"1h30m"`: numbers with units, the larger unit first, each unit once."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise WrongValueError(DURATION, hint=f'a duration has a unit: "{text}s" for seconds')
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise WrongValueError(DURATION)
    parts = _DURATION_PART.findall(text)
    order = list(_DURATION_UNITS)
    places = [order.index(unit) for _, unit in parts]
    if places != sorted(set(places)):
        raise WrongValueError(DURATION, hint="the larger unit stands first, and each unit once")
    seconds = sum((Decimal(number) * _DURATION_UNITS[unit] for number, unit in parts), Decimal(0))
    if seconds > LONGEST:
        raise WrongValueError("a duration of at most ten years")
    return float(seconds)


def parse_size(text: object) -> int:
    """Bytes, from `"512MiB"` (powers of 1024), `"10MB"` (powers of 1000), or a whole number."""
    if isinstance(text, int) and not isinstance(text, bool):
        size = Decimal(text)
    else:
        found = _SIZE.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise WrongValueError(SIZE)
        number, unit = found.groups()
        if unit not in _SIZE_UNITS:
            raise WrongValueError(SIZE, hint=_unit_hint(number, unit))
        size = Decimal(number) * _SIZE_UNITS[unit]
    if size < 0 or size != int(size):
        raise WrongValueError("a whole number of bytes")
    if size > LARGEST:
        raise WrongValueError("a size of at most 4 EiB")
    return int(size)


def _unit_hint(number: str, unit: str) -> str:
    for known in ("KiB", "MiB", "GiB", "TiB"):
        if unit.lower() in (known.lower(), known[0].lower(), known[0].lower() + "b"):
            decimal = known[0] + "B"
            return f'"{number}{known}" counts by 1024, "{number}{decimal}" by 1000'
    return f"units: {', '.join(u for u in _SIZE_UNITS if u != 'KB')}"


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration that `parse_duration` reads back."""
    rest = round(seconds * 1_000_000)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size * 1_000_000)
        if count:
            parts.append(f"{count}{unit}")
    millis, micros = divmod(rest, 1000)
    parts += [f"{millis}ms"] * bool(millis) + [f"{micros}us"] * bool(micros)
    return "".join(parts) or "0s"


def format_size(size: int) -> str:
    """The size in the largest unit of 1024 that it is a whole number of."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def parse_signal(text: object) -> str:
    """The name of a signal without `SIG`, in capitals."""
    if not isinstance(text, str):
        raise WrongValueError(SIGNAL, hint="numbers differ between machines; write the name")
    name = text.upper().removeprefix("SIG")
    above = re.fullmatch(r"RTMIN\+([0-9]{1,2})", name)
    if above and signal.SIGRTMIN + int(above[1]) < signal.SIGRTMAX:
        return name
    if f"SIG{name}" not in signal.Signals.__members__:
        import difflib

        known = [s.removeprefix("SIG") for s in signal.Signals.__members__]
        close = difflib.get_close_matches(name, known, n=1)
        raise WrongValueError(
            SIGNAL, hint=f"did you mean {close[0]!r}?" if close else "see `kill -l`"
        )
    return name


def parse_mode(text: object) -> int:
    """File permission bits, from a string of octal digits."""
    if isinstance(text, int) and not isinstance(text, bool):
        raise WrongValueError(MODE, hint="a bare number would be read as decimal")
    if not isinstance(text, str) or not re.fullmatch(r"(?:0o?)?[0-7]{3}", text):
        raise WrongValueError(MODE)
    return int(text[-3:], 8)


def parse_statuses(value: object) -> tuple[int, int]:
    """An inclusive range of HTTP statuses, from 200 or `"200-299"`."""
    if isinstance(value, int) and not isinstance(value, bool):
        low = high = value
    else:
        found = re.fullmatch(r"([0-9]{3})(?:-([0-9]{3}))?", value) if isinstance(value, str) else ""
        if not found:
            raise WrongValueError(STATUS)
        low = int(found[1])
        high = int(found[2] or found[1])
    if not 100 <= low <= high <= 599:
        raise WrongValueError(STATUS, hint="statuses are 100 to 599, the lower one first")
    return low, high


def split_host_port(text: str) -> tuple[str, int] | None:
    """Host and port of `host:port` or `[v6]:port`; None when it is neither."""
    found = _HOST_PORT.fullmatch(text)
    if found is None:
        return None
    host, port = found["host"], int(found["port"])
    if host.startswith("["):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return None
    elif not _HOST_NAME.fullmatch(host):
        return None
    return (host, port) if port <= 65535 else None


def parse_listen(text: object) -> str:
    """A `host:port` to listen on, as it was written; port 0 takes any that is free."""
    if not isinstance(text, str) or split_host_port(text) is None:
        raise WrongValueError(LISTEN)
    return text


def parse_tcp_target(text: object) -> str:
    """A `host:port` or `unix:/path` to connect to, as it was written."""
    if not isinstance(text, str):
        raise WrongValueError(TCP_TARGET)
    if text.startswith("unix:"):
        _unix_path(text.removeprefix("unix:"), TCP_TARGET)
        return text
    if text.startswith("tcp://"):
        raise WrongValueError(TCP_TARGET, hint=f'write "{text.removeprefix("tcp://")}"')
    target = split_host_port(text)
    if target is None or target[1] == 0:
        raise WrongValueError(TCP_TARGET)
    return text


def parse_socket_address(text: object) -> str:
    """The address of a listening socket, as it was written."""
    scheme, separator, rest = text.partition("://") if isinstance(text, str) else ("", "", "")
    if not separator or scheme not in ("tcp", "udp", "unix", "unixgram"):
        raise WrongValueError(SOCKET_ADDRESS)
    if scheme.startswith("unix"):
        _unix_path(rest, SOCKET_ADDRESS)
    else:
        target = split_host_port(rest)
        if target is None:
            hint = ""
            if rest.startswith((":", "*:")):
                hint = (
                    f'"{scheme}://0.0.0.0:{rest.partition(":")[2]}" listens on every IPv4 address'
                )
            raise WrongValueError(SOCKET_ADDRESS, hint=hint)
        if target[0] != "localhost" and not _is_ip(target[0]):
            raise WrongValueError(
                SOCKET_ADDRESS, hint="HOST is an IP address or localhost, not a name"
            )
    assert isinstance(text, str)
    return text


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _unix_path(path: str, expected: str) -> None:
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise WrongValueError(expected, hint="the path of a unix socket is absolute")
    length = len(path.encode())
    if length > SOCKET_PATH_MAX:
        raise WrongValueError(
            f"the path of a unix socket of at most {SOCKET_PATH_MAX} bytes",
            got=f"one of {length} bytes",
        )


def parse_http_url(text: object) -> str:
    """A URL that a probe asks, as it was written."""
    if not isinstance(text, str):
        raise WrongValueError(HTTP_URL)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise WrongValueError(HTTP_URL) from None
    if parts.scheme == "https":
        raise WrongValueError(
            HTTP_URL, hint="a probe speaks plain HTTP; for TLS use a check, or exec"
        )
    if parts.username is not None or parts.password is not None:
        raise WrongValueError(
            HTTP_URL, hint="a probe sends no credentials", got="one with credentials"
        )
    if parts.scheme == "http+unix":
        path = unquote(parts.netloc)
        if not path.startswith("/"):
            raise WrongValueError(
                HTTP_URL, hint='a unix socket: "http+unix://%2Frun%2Fshop.sock/healthz"'
            )
        _unix_path(path, HTTP_URL)
    elif parts.scheme != "http" or not parts.hostname or port == 0:
        raise WrongValueError(HTTP_URL)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise WrongValueError(HTTP_URL, hint="percent-encode spaces and what is not ASCII")
    return text
