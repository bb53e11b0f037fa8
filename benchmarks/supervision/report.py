"""The table, the aims and the facts of a run, as Markdown and JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.supervision.measures import Figures


@dataclass(kw_only=True)
class Results:
    """What one supervisor did: figures by measurement, and why one is missing."""

    version: str
    figures: dict[str, Figures] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def get(self, path: str) -> float | None:
        """Give a figure by `measurement/name`, None when it wasn't measured."""
        measure, _, name = path.partition("/")
        return self.figures.get(measure, {}).get(name)


def facts() -> dict[str, str]:
    """Give what of this machine bears on the figures."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return {
        "cores": str(os.cpu_count()),
        "processor": model,
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
    }


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


_Cell = Callable[[Results], str]


def _cell(*parts: tuple[str, int]) -> _Cell:
    """Make a cell of figures with so many digits each; a dash when all are missing."""

    def cell(results: Results) -> str:
        values = [(results.get(path), digits) for path, digits in parts]
        if all(value is None for value, _ in values):
            return "–"
        return " / ".join(_number(value, digits) for value, digits in values)

    return cell


def _crash_loops(results: Results) -> str:
    text = _cell(("crash_loops/cpu_s", 2), ("crash_loops/spawns", 0))(results)
    return f"{text}, gives up" if results.get("crash_loops/goes_on") == 0 else text


def _output(each: int) -> _Cell:
    def cell(results: Results) -> str:
        rate = results.get(f"output/mb_per_s.{each}")
        if rate is None:
            return "–"
        text = f"{rate:,.0f} ({_number(results.get(f'output/cpu_s_per_gb.{each}'), 2)})"
        lost = results.get(f"output/lines_lost.{each}") or 0
        return f"{text}, {lost:,.0f} lost" if lost else text

    return cell


_PREFACE = """\
All in one run, each with its defaults, the same static C program under each. {machine}. “Many” are
{many}. atlasd and journald put the time before each line they capture, the others do not.
journald's rate limit is off. A figure counts beside the others of its run, not by itself."""

ROWS: list[tuple[str, _Cell]] = [
    (
        "SIGKILL → first instruction of the new instance, p50 / p99 / max, ms",
        _cell(("restart/p50_ms", 1), ("restart/p99_ms", 1), ("restart/max_ms", 1)),
    ),
    ("of the killed came back / killed", _cell(("restart/back", 0), ("restart/killed", 0))),
    (
        "many programs started, s / status says so, s",
        _cell(("many/started_s", 2), ("many/status_agrees_s", 2)),
    ),
    ("CPU to start them, s", _cell(("many/start_cpu_s", 2))),
    ("`status` of all, ms", _cell(("many/status_ms", 1))),
    (
        "idle: CPU ms a minute / wake-ups a second",
        _cell(("many/idle_cpu_ms_per_min", 1), ("many/idle_wakeups_per_s", 2)),
    ),
    (
        "memory, PSS MiB / processes",
        _cell(("many/pss_mib", 1), ("many/processes", 0)),
    ),
    (
        "memory after so many restarts, PSS MiB / restarts",
        _cell(("many/pss_after_restarts_mib", 1), ("many/restarts", 0)),
    ),
    ("crash loops: CPU s / spawns", _crash_loops),
    ("the same, CPU ms a spawn", _cell(("crash_loops/cpu_ms_per_spawn", 2))),
    ("output, one 100-byte line a write, MB/s (CPU s per GB)", _output(1)),
    ("output, 40 lines a write, MB/s (CPU s per GB)", _output(40)),
    (
        "holder killed: adopted / died / duplicated / lines lost",
        _cell(
            ("survival/adopted", 0),
            ("survival/died", 0),
            ("survival/duplicated", 0),
            ("survival/lines_lost", 0),
        ),
    ),
    ("helpers left after stop / started", _cell(("helpers/left", 0), ("helpers/helpers", 0))),
]


def table(results: Mapping[str, Results]) -> str:
    """Make the table of all supervisors as Markdown."""
    head = ["", *(f"{name} {result.version}" for name, result in results.items())]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for label, cell in ROWS:
        lines.append(
            "| " + " | ".join([label, *(cell(result) for result in results.values())]) + " |"
        )
    return "\n".join(lines)


def by_role(result: Results) -> str:
    """List atlasd's figures role by role, since its parts are judged apart."""
    lines = []
    for measure, figures in result.figures.items():
        for name, value in sorted(figures.items()):
            if name.partition(".")[2].isalpha():
                lines.append(f"- {measure}, {name.replace('.', ' of ')}: {value:,.2f}")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Aim:
    """Something atlasd wants to reach: a figure of its own at most (or at least) a bound."""

    what: str
    value: Callable[[Results], float | None]
    bound: Callable[[Mapping[str, Results]], float | None]
    at_least: bool = False


def _own(path: str) -> Callable[[Results], float | None]:
    return lambda results: results.get(path)


def _fixed(value: float) -> Callable[[Mapping[str, Results]], float | None]:
    return lambda _: value


def _of(peer: str, path: str, times: float) -> Callable[[Mapping[str, Results]], float | None]:
    def bound(results: Mapping[str, Results]) -> float | None:
        value = results[peer].get(path) if peer in results else None
        return None if value is None else value * times

    return bound


def _growth(results: Results) -> float | None:
    before = results.get("many/pss_mib.services")
    after = results.get("many/pss_after_restarts_mib.services")
    return None if before is None or after is None else after - before


AIMS: Sequence[Aim] = (
    Aim(
        what="restart p50, ms: level with runit (× 1.25)",
        value=_own("restart/p50_ms"),
        bound=_of("runit", "restart/p50_ms", 1.25),
    ),
    Aim(
        what="restart p50, ms: 1/200 of supervisord's",
        value=_own("restart/p50_ms"),
        bound=_of("supervisord", "restart/p50_ms", 1 / 200),
    ),
    Aim(
        what="restart at worst, ms: twice runit's",
        value=_own("restart/max_ms"),
        bound=_of("runit", "restart/max_ms", 2),
    ),
    Aim(
        what="many started, s: half of supervisord's",
        value=_own("many/started_s"),
        bound=_of("supervisord", "many/started_s", 0.5),
    ),
    Aim(
        what="services idle, CPU ms a minute",
        value=_own("many/idle_cpu_ms_per_min.services"),
        bound=_fixed(5),
    ),
    Aim(
        what="services idle, wake-ups a second",
        value=_own("many/idle_wakeups_per_s.services"),
        bound=_fixed(0.05),
    ),
    Aim(
        what="core idle, CPU ms a minute (0.1 % of a core)",
        value=_own("many/idle_cpu_ms_per_min.core"),
        bound=_fixed(60),
    ),
    Aim(
        what="services, PSS MiB: less than supervisord",
        value=_own("many/pss_mib.services"),
        bound=_of("supervisord", "many/pss_mib", 1),
    ),
    Aim(
        what="services, PSS MiB: the aim of 22",
        value=_own("many/pss_mib.services"),
        bound=_fixed(22),
    ),
    Aim(
        what="services, PSS MiB more after the restarts: flat",
        value=_growth,
        bound=_fixed(0.5),
    ),
    Aim(
        what="`status`, ms: half of supervisorctl's",
        value=_own("many/status_ms"),
        bound=_of("supervisord", "many/status_ms", 0.5),
    ),
    Aim(
        what="crash loops, CPU ms a spawn",
        value=_own("crash_loops/cpu_ms_per_spawn"),
        bound=_fixed(1.5),
    ),
    Aim(
        what="crash loops: never gives up",
        value=_own("crash_loops/goes_on"),
        bound=_fixed(1),
        at_least=True,
    ),
    Aim(
        what="output, a line a write, MB/s: s6's",
        value=_own("output/mb_per_s.1"),
        bound=_of("s6", "output/mb_per_s.1", 1),
        at_least=True,
    ),
    Aim(
        what="the same, CPU s per GB: s6's",
        value=_own("output/cpu_s_per_gb.1"),
        bound=_of("s6", "output/cpu_s_per_gb.1", 1),
    ),
    Aim(
        what="the same, MB/s: supervisord's",
        value=_own("output/mb_per_s.1"),
        bound=_of("supervisord", "output/mb_per_s.1", 1),
        at_least=True,
    ),
    Aim(
        what="the same, CPU s per GB: half of supervisord's",
        value=_own("output/cpu_s_per_gb.1"),
        bound=_of("supervisord", "output/cpu_s_per_gb.1", 0.5),
    ),
    Aim(what="the same, lines lost", value=_own("output/lines_lost.1"), bound=_fixed(0)),
    Aim(
        what="holder killed: not adopted",
        value=lambda r: (
            None
            if r.get("survival/programs") is None
            else (r.get("survival/programs") or 0) - (r.get("survival/adopted") or 0)
        ),
        bound=_fixed(0),
    ),
    Aim(
        what="holder killed: duplicated",
        value=_own("survival/duplicated"),
        bound=_fixed(0),
    ),
    Aim(
        what="holder killed: lines lost",
        value=_own("survival/lines_lost"),
        bound=_fixed(0),
    ),
    Aim(what="helpers left after stop", value=_own("helpers/left"), bound=_fixed(0)),
)


def aims(results: Mapping[str, Results]) -> str:
    """Say for each aim whether this run reached it, as Markdown."""
    own = results.get("atlasd")
    if own is None:
        return "atlasd was not measured."
    lines = ["| aim | atlasd | bound | |", "| --- | --- | --- | --- |"]
    for aim in AIMS:
        value, bound = aim.value(own), aim.bound(results)
        if value is None or bound is None:
            verdict = "not measured"
        elif (value >= bound) if aim.at_least else (value <= bound):
            verdict = "reached"
        else:
            verdict = "**behind**"
        sign = "≥" if aim.at_least else "≤"
        lines.append(
            f"| {aim.what} | {_number(value, 2)} | {sign} {_number(bound, 2)} | {verdict} |"
        )
    return "\n".join(lines)


def markdown(results: Mapping[str, Results], *, date: str, quick: bool, many: int) -> str:
    """Make the whole report."""
    machine = "; ".join(f"{key} {value}" for key, value in facts().items())
    parts = [
        f"# Supervision, {date}{' (quick)' if quick else ''}",
        _PREFACE.format(machine=machine, many=many),
        table(results),
        "## What atlasd aims at",
        aims(results),
    ]
    if "atlasd" in results:
        parts += ["## atlasd, role by role", by_role(results["atlasd"])]
    missing = [
        f"- {name}, {measure}: {why}"
        for name, result in results.items()
        for measure, why in result.missing.items()
    ]
    if missing:
        parts += ["## Not measured", "\n".join(missing)]
    return "\n\n".join(part for part in parts if part) + "\n"


def save(
    results: Mapping[str, Results], folder: Path, *, date: str, quick: bool, many: int
) -> Path:
    """Write the report and its figures into `folder` and return the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{date}-supervision{'-quick' if quick else ''}"
    report = folder / f"{name}.md"
    report.write_text(markdown(results, date=date, quick=quick, many=many))
    figures = {
        "date": date,
        "quick": quick,
        "machine": facts(),
        "supervisors": {key: asdict(result) for key, result in results.items()},
    }
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    return report
