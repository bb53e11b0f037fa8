"""10,000 keys in five layers, loaded and validated: atlasd beside dynaconf and pydantic-settings.

`python -m benchmarks.config.load`. The peers are installed into a scratch folder. Each library
loads the same files several times in a process of its own; what it finds is compared with what is
in the files. The first layer has every key, each of the others replaces a fifth of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.config.reader import KEYS, LIBRARIES, SECTIONS
from benchmarks.supervision.install import from_pip, pip_version
from benchmarks.supervision.report import facts
from benchmarks.supervision.supervisor import Unavailable

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
LAYERS = 5
ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one library took."""

    version: str
    seconds: float
    """CPU, the median."""


def value(section: int, key: int, layer: int) -> Any:
    number = section * 100 + key + layer
    return (f"text {number}", number, number % 2 == 0, number + 0.5)[key % 4]


def written(found: Any) -> str:
    return json.dumps(found)


def lay(folder: Path) -> dict[str, dict[str, Any]]:
    """Write the layers, and give what they say together."""
    whole: dict[str, dict[str, Any]] = {}
    for layer in range(LAYERS):
        lines = []
        for section in range(SECTIONS):
            lines.append(f"[table_{section:03}]  # of layer {layer}")
            for key in range(KEYS):
                if layer == 0 or (section + key) % LAYERS == layer:
                    found = value(section, key, layer)
                    whole.setdefault(f"table_{section:03}", {})[f"key_{key:02}"] = found
                    lines.append(f"key_{key:02} = {written(found)}")
        (folder / f"{layer}.toml").write_text("\n".join(lines) + "\n")
    return whole


def measured(python: Path, library: str, folder: Path, whole: Any) -> float:
    """Give the CPU seconds of the median load; the library must find what is in the files.

    `-P`, for the files beside the reader are named as modules of the standard library are.
    """
    reader = Path(__file__).with_name("reader.py")
    done = subprocess.run(
        [python, "-P", reader, library, folder, str(ROUNDS)],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    if answer["settings"] != whole:
        raise Unavailable("what it finds is not what is in the files")
    return statistics.median(answer["seconds"])


def outcomes(cache: Path) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Give what each library took, and why one could not be measured."""
    found: dict[str, Outcome] = {}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        whole = lay(Path(folder))
        for library in LIBRARIES:
            try:
                commands = Path(sys.executable).parent
                if library != "atlasd":
                    commands = from_pip(cache, library)
                found[library] = Outcome(
                    version=pip_version(commands, library),
                    seconds=measured(commands / "python", library, Path(folder), whole),
                )
            except (Unavailable, subprocess.SubprocessError) as why:
                missing[library] = str(why)
    return found, missing


_INTRODUCTION = (
    f"{SECTIONS * KEYS:,} keys in {LAYERS} layers of TOML, read, merged and validated by type: CPU "
    f"seconds, the median of {ROUNDS}, imports and the making of models left out. atlasd knows of "
    "each key its file, line and column, its layer, and every value that it shadows, and is asked "
    "for one place; the others know nothing of that."
)


def report(found: dict[str, Outcome], missing: dict[str, str], date: str) -> str:
    """Give the report, with ratios to atlasd."""
    own = found["atlasd"].seconds
    lines = [
        f"# Configuration, {date}",
        "",
        _INTRODUCTION,
        "",
        f"{'; '.join(f'{name} {fact}' for name, fact in facts().items())}.",
        "",
        "| | seconds | of atlasd's |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {name} {one.version} | {one.seconds:.3f} | {one.seconds / own:.2f} |"
        for name, one in found.items()
    ]
    lines += [f"\n{name}: not measured, {why}" for name, why in missing.items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "bench")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    date = datetime.now(UTC).date().isoformat()
    found, missing = outcomes(chosen.cache)
    text = report(found, missing, date)
    print(text)
    chosen.results.mkdir(parents=True, exist_ok=True)
    (chosen.results / f"{date}-config.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
