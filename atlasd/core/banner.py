"""What `atlasd run` says on a terminal: what is running, where to look, what to try."""

from collections.abc import Sequence


def banner(
    *,
    version: str,
    environment: str,
    root: str | None,
    programs: str | None,
    api: str,
    adopted: bool,
    status: str,
    services: Sequence[str],
) -> str:
    """A few lines; `api` is HOST:PORT, empty when it could not listen; `root` as in `--root`.

    `programs` is the folder of atlasctl, or None if a shell finds it by its name.
    """
    name = services[0] if services else "NAME"
    url = f"http://{api}" if api else ""
    lines = ["", f"atlasd {version} ({environment}) is up; {status}"]
    if adopted:
        lines.append("services were running already: their role was found, and is used")
    if services:
        shown = ", ".join(services[:8]) + (f" and {len(services) - 8} more" if services[8:] else "")
        lines.append(f"services: {shown}")
    else:
        lines.append("no services are configured: add [services.NAME] to etc/atlasd.toml")
    lines += ["", "look, from another terminal:"]
    settings = [f"ATLASD_ROOT={root}"] if root else []
    settings += [f"PATH={programs}:$PATH"] if programs else []
    if settings:
        lines.append(f"  export {' '.join(settings)}")
    lines += ["  atlasctl status", f"  atlasctl logs -f {name}"]
    if url:
        lines += [f"  curl {url}/health", f"  curl {url}/metrics"]
    lines += [
        "try:",
        f"  {'kill -9 PID':30}PID from the table; it is back before the next command",
        f"  {f'atlasctl why {name}':30}what happened, in plain words",
        f"  {'atlasctl plan':30}after a change of the configuration: what would be done, and why",
        f"  {'atlasctl apply':30}do it",
        "end: Ctrl-C stops everything, services included; kill -9 of atlasd leaves them running",
        "",
    ]
    return "\n".join(lines)
