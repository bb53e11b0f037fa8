"""What it costs to keep secrets out of output: alone, and as a part of capturing it.

    python -m benchmarks.config.redaction [--seconds 2]

First the redactor by itself, in MB a second of CPU time, on chunks as capture reads them: several
kinds of text in which no secret stands. Then the whole capture, as `benchmarks.output_capture`
measures it, with and without secrets. A secret has seven to twelve spellings.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import shutil
import tempfile
import time
from pathlib import Path

from atlasd.redaction import Redactor
from atlasd.services.output_journal import CHUNK
from atlasd.services.spec import KnownSecret
from atlasd.spellings import spellings
from benchmarks.output_capture import compile_writer, measure

COUNTS = (0, 1, 5, 50)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SENTENCE = (
    "the order of a customer was paid and is on its way to be packed while another waits for "
    "stock; retrying in a moment, connection reset by peer"
)


def secrets(count: int) -> list[KnownSecret]:
    """Values as one finds them: keys, passwords with signs, addresses, tokens."""
    chance = random.Random(count)

    def letters(size: int, more: str = "") -> str:
        return "".join(chance.choices(LETTERS + more, k=size))

    makers = (
        lambda: letters(32),
        lambda: letters(20, "!#$%&*+-=?@^_~"),
        lambda: f"postgres://shop:{letters(16)}@db.internal:5432/shop",
        lambda: chance.randbytes(32).hex(),
        lambda: base64.b64encode(chance.randbytes(30)).decode(),
    )
    return [KnownSecret(name=f"s{n}", value=makers[n % 5]()) for n in range(count)]


def texts() -> dict[str, bytes]:
    """A chunk of each kind of output."""
    chance = random.Random(1)
    words = SENTENCE.split()

    def access() -> str:
        return (
            f"10.0.{chance.randrange(256)}.{chance.randrange(256)} - - [25/Nov/2026:18:04:05 +0000]"
            f' "GET /api/v1/items/{chance.randrange(99999)} HTTP/1.1" 200 {chance.randrange(9999)}'
            ' "-" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"'
        )

    def structured() -> str:
        return json.dumps(
            {
                "ts": f"2026-11-25T18:04:{chance.random() * 60:09.6f}Z",
                "level": "info",
                "message": " ".join(chance.choices(words, k=9)),
                "trace_id": chance.randbytes(16).hex(),
            }
        )

    kinds = {
        "sentences": lambda: " ".join(chance.choices(words, k=14)),
        "access log": access,
        "JSON lines": structured,
        "base64": lambda: base64.b64encode(chance.randbytes(57)).decode(),
        "hex": lambda: chance.randbytes(38).hex(),
    }
    made = {kind: _chunk(line) for kind, line in kinds.items()}
    made["binary"] = chance.randbytes(CHUNK)
    return made


def _chunk(line: object) -> bytes:
    assert callable(line)
    lines, size = [], 0
    while size < CHUNK:
        lines.append(line())
        size += len(lines[-1]) + 1
    return "\n".join(lines).encode()[:CHUNK]


def speed(redactor: Redactor, text: bytes, seconds: float) -> float:
    """MB a second of CPU time, the best of the runs that fit into the time."""
    redactor.split(text)  # which bytes are rare is learned by now
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.process_time()
        redactor.split(text)
        best = min(best, time.process_time() - begun)
    return len(text) / best / 1e6


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args(arguments)
    chunks = texts()
    print(
        "redaction alone, MB/s of CPU time\n" + " " * 26 + "".join(f"{kind:>12}" for kind in chunks)
    )
    for count in COUNTS[1:]:
        known = [(secret.name, secret.value) for secret in secrets(count)]
        number = len({s for _, value in known for s in spellings(value)})
        begun = time.process_time()
        Redactor(known)
        ready = (time.process_time() - begun) * 1e3
        row = [speed(Redactor(known), text, options.seconds / 10) for text in chunks.values()]
        print(
            f"{count:>3} secrets, {number:>3} spellings "
            + "".join(f"{rate:>12,.0f}" for rate in row)
            + f"   (ready in {ready:.1f} ms)"
        )
    folder = Path(tempfile.mkdtemp(prefix="atlasd-redaction-"))
    try:
        writer = compile_writer(folder)
        for count in COUNTS:
            print(f"output capture with {count} secrets")
            for lines in (1, 40):
                measure(folder, writer, lines, options.seconds, 1, secrets(count))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
