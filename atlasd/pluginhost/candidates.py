"""What might become a plugin, wherever it was found, and why it may not."""

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

GROUP = "atlasd.plugins"
"""The entry point group in which installed distributions offer plugins, atlasd's own included."""

OWN_DISTRIBUTION = "atlasd"


class Refusal(Exception):  # noqa: N818  it is a decision, and says so
    """A plugin is not admitted, and this is the sentence that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something that was found and is not yet loaded."""

    name: str
    origin: str
    """The distribution, or the path of a drop-in."""
    load: Callable[[], object]
    """Gives the plugin: a module, or an object with hook implementations. May raise anything."""
    version: str = ""
    """Of the distribution; empty for a drop-in."""
    sources: tuple[Path, ...] = ()
    """Files in which to look for what it would have supplied, should loading fail."""
    extras: tuple[str, ...] = ()
    """Extras of the distribution that the entry point asks for."""
    drop_in: bool = True

    @property
    def distribution(self) -> str:
        """The distribution whose extras bring what the plugin needs."""
        return OWN_DISTRIBUTION if self.drop_in else self.origin


def find_entry_points(
    points: Iterable[importlib.metadata.EntryPoint] | None = None,
) -> list[Candidate]:
    """The plugins of installed distributions; `points` replaces what is installed.

    atlasd's own come first, so that installing a package never changes what a shipped name means;
    the rest in the order of distribution and name.
    """
    if points is None:
        points = importlib.metadata.entry_points(group=GROUP)
    found = [_candidate(point) for point in points]
    return sorted(found, key=lambda c: (_normal(c.origin) != OWN_DISTRIBUTION, c.origin, c.name))


def _candidate(point: importlib.metadata.EntryPoint) -> Candidate:
    distribution = point.dist
    return Candidate(
        name=point.name,
        origin=distribution.name if distribution is not None else point.value,
        version=distribution.version if distribution is not None else "",
        load=point.load,
        sources=_sources(point.module),
        extras=tuple(point.extras),
        drop_in=False,
    )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _sources(module: str) -> tuple[Path, ...]:
    """The file of a module of a top-level package, found without importing anything."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ()
    if spec is None:
        return ()
    if not rest:
        return (Path(spec.origin),) if spec.origin else ()
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return (file,)
    return ()
