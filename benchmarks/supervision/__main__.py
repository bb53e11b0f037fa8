"""Run every supervisor that can be had on the same work: `python -m benchmarks.supervision`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.supervision import probe, report
from benchmarks.supervision.measures import MEASURES, Bench, Scale
from benchmarks.supervision.peers.atlasd import Atlasd
from benchmarks.supervision.peers.circus import Circus
from benchmarks.supervision.peers.pm2 import Pm2
from benchmarks.supervision.peers.runit import Runit
from benchmarks.supervision.peers.s6 import S6
from benchmarks.supervision.peers.supervisord import Supervisord
from benchmarks.supervision.peers.systemd import Systemd
from benchmarks.supervision.supervisor import Supervisor, Unavailable, first_line

_REPOSITORY = Path(__file__).parents[2]
SUPERVISORS: tuple[type[Supervisor], ...] = (
    Atlasd,
    Supervisord,
    Circus,
    Runit,
    S6,
    Systemd,
    Pm2,
)


def main(arguments: list[str] | None = None) -> int:
    names = [kind.name for kind in SUPERVISORS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.supervision", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs, a first impression")
    parser.add_argument("--only", metavar="NAME,...", help=f"some of {', '.join(names)}")
    parser.add_argument("--measure", metavar="NAME,...", help=f"some of {', '.join(MEASURES)}")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="where to write the report (a full run of all: benchmarks/results)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=_REPOSITORY / "var/bench",
        help="folder that keeps the peers between runs (default: var/bench)",
    )
    options = parser.parse_args(arguments)
    chosen = options.only.split(",") if options.only else names
    measures = options.measure.split(",") if options.measure else list(MEASURES)
    for unknown in {*chosen} - {*names} | {*measures} - {*MEASURES}:
        parser.error(f"{unknown}: no such supervisor or measurement")

    scale = Scale.quick() if options.quick else Scale()
    results = run(chosen, measures, scale, options.cache.resolve())
    date = datetime.now(UTC).date().isoformat()
    if not results:
        return 1
    text = report.markdown(results, date=date, quick=options.quick, many=scale.many)
    print(f"\n{text}")
    full = not (options.quick or options.only or options.measure)
    folder = options.results or (_REPOSITORY / "benchmarks/results" if full else None)
    if folder:
        saved = report.save(results, folder, date=date, quick=options.quick, many=scale.many)
        print(f"written to {saved}", file=sys.stderr)
    return 0


def run(
    chosen: list[str], measures: list[str], scale: Scale, cache: Path
) -> dict[str, report.Results]:
    """Measure one supervisor after the other; one that can't be had is left out by name."""
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="bench-"))
    work.chmod(0o755)
    results: dict[str, report.Results] = {}
    try:
        binary = probe.build(work)
        for kind in SUPERVISORS:
            if kind.name not in chosen:
                continue
            supervisor = kind()
            try:
                supervisor.install(cache, work)
            except Unavailable as why:
                print(f"{kind.name}: left out: {why}", file=sys.stderr)
                continue
            try:
                result = report.Results(version=supervisor.version())
                results[kind.name] = result
                bench = Bench(supervisor, binary, work, scale)
                for name in measures:
                    _one(bench, name, result)
            finally:
                supervisor.close()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return results


def _one(bench: Bench, name: str, result: report.Results) -> None:
    who = bench.supervisor.name
    why_not = bench.supervisor.why_not(name)
    if why_not:
        result.missing[name] = why_not
        return
    began = time.monotonic()
    try:
        result.figures[name] = MEASURES[name](bench)
    except Exception as error:  # noqa: BLE001 - one measurement of one peer must not end the run
        result.missing[name] = f"{type(error).__name__}: {first_line(str(error))}"
    took = time.monotonic() - began
    found = result.figures.get(name, result.missing.get(name))
    print(f"{who}: {name} ({took:.0f} s): {found}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
