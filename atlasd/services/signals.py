"""Signals by the names that people write."""

import signal


def signal_name(number: int) -> str:
    """`TERM` for 15; `SIG<n>` numbers without a name are given as `RTMIN+n` or the number."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        if signal.SIGRTMIN < number <= signal.SIGRTMAX:
            return f"RTMIN+{number - signal.SIGRTMIN}"
        return str(number)


def signal_number(name: str) -> int:
    """`TERM`, `SIGTERM`, `RTMIN+3` or `15` as a number. Raises `ValueError` for no signal."""
    text = name.upper().removeprefix("SIG")
    base, plus, offset = text.partition("+")
    try:
        if text.isdigit():
            return signal.Signals(int(text)).value
        number = signal.Signals[f"SIG{base}"].value + (int(offset) if plus else 0)
    except (KeyError, ValueError):
        raise ValueError(f"no signal is called {name!r}") from None
    if plus and (base != "RTMIN" or not signal.SIGRTMIN <= number <= signal.SIGRTMAX):
        raise ValueError(f"no signal is called {name!r}")
    return number
