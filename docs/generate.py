"""Write the reference from the code: `python -m docs.generate`."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs import pages
from docs.commands import commands
from docs.metrics import metrics
from docs.settings import settings

REFERENCE = Path(__file__).parent / "reference"

PAGES: Mapping[str, Callable[[], str]] = {
    "settings": settings,
    "commands": commands,
    "operations": pages.operations,
    "states": pages.states,
    "events": pages.events,
    "errors": pages.errors,
    "metrics": metrics,
    "hooks": pages.hooks,
}
"""Pages of the reference, in the order in which they are listed."""
BY_HAND = ("jobs-protocol",)
"""Pages of the reference that are written, and held against what is so by tests of their own."""


def index() -> str:
    """The page that lists the others."""
    names = "\n".join((*PAGES, *BY_HAND))
    return (
        "# Reference\n\nMade from the code by `docs/generate.py`, and checked by the tests."
        f"\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    )


def reference() -> dict[Path, str]:
    """Every file of the reference with the text that it should have."""
    texts = {REFERENCE / "index.md": index()}
    texts |= {REFERENCE / f"{name}.md": page() for name, page in PAGES.items()}
    return texts


def stale() -> list[str]:
    """Names of the files that don't say what the code says."""
    return [
        path.name
        for path, text in reference().items()
        if not path.exists() or path.read_text() != text
    ]


def main() -> int:
    """Write what is stale, or with --check only name it and answer 1."""
    names = stale()
    if "--check" in sys.argv[1:]:
        sys.stderr.writelines(f"docs/reference/{name} is stale: make docs\n" for name in names)
        return 1 if names else 0
    REFERENCE.mkdir(exist_ok=True)
    for path, text in reference().items():
        if path.name in names:
            path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
