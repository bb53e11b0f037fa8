"""What `atlasd run` says on a terminal: what is running, where to look, what to try."""

from collections.abc import Sequence


def banner(
    *,
    version: str,
    environment: str,
    root: str | None,
    api: str,
    adopted: bool,
    status: str,
    services: Sequence[str],
) -> str:
    """A few lines; `api` is HOST:PORT, empty when it could not listen; `root` as in `--root`."""
    option = f" --root {root}" if root else ""
    name = services[0] if services else "NAME"
    url = f"http://{api}" if api else ""
    lines = [
        "",
        f"atlasd {version} ({environment}) is up; {status}",
    ]
    if adopted:
        lines.append("services were running already: their role was found, and is used")
    if services:
        shown = ", ".join(services[:8]) + (f" and {len(services) - 8} more" if services[8:] else "")
        lines.append(f"services: {shown}")
    else:
        lines.append("no services are configured: add [services.NAME] to etc/atlasd.toml")
    lines += [
        "",
        "look:",
        f"  atlasctl{option} status",
        f"  atlasctl{option} logs -f {name}",
    ]
    if url:
        lines += [f"  curl {url}/health", f"  curl {url}/metrics"]
    lines += [
        "try:",
        f"  atlasctl{option} signal KILL {name}      it is back before the next command",
        f"  atlasctl{option} why {name}              what happened, in plain words",
        "  edit the configuration, then:",
        f"  atlasctl{option} plan  &&  atlasctl{option} apply",
        "end: Ctrl-C stops everything, services included; kill -9 leaves them running",
        "",
    ]
    return "\n".join(lines)
