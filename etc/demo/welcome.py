"""Wait for the demo to be up, then say what is running, where to look and what to try."""

import json
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 60.0
"""Seconds until the shop is no longer waited for."""


def instances(status: str, service: str) -> list[int]:
    """Process ids of a service's running instances, out of `atlasctl status --json`."""
    for found in json.loads(status)["services"]:
        if found["name"] == service:
            return [i["pid"] for i in found["instances"] if i["state"] == "running" and i["pid"]]
    return []


def welcome(pid: int, root: Path, programs: Path) -> str:
    """What to look at and to try, with the process id of a shop instance."""
    return f"""
The shop is open at http://127.0.0.1:8080

In another terminal:

    export ATLASD_ROOT={root} PATH={programs}:$PATH
    atlasctl status                           what is running
    kill -9 {pid:<33} an instance of the shop; then look again
    atlasctl why shop                         what happened, in plain words
    atlasctl why customer                     this one crashes by itself now and then
    atlasctl logs -f                          what they all say
    curl http://127.0.0.1:8000/health         what a load balancer would see

Ctrl-C here stops the services and atlasd.
"""


def main(root: str, atlasctl: str) -> int:
    """Ask until the shop is running; gives 1 if it never is."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        asked = subprocess.run(
            [atlasctl, "--root", root, "status", "--json"],
            check=False,
            capture_output=True,
            text=True,
        )
        running = instances(asked.stdout, "shop") if asked.returncode == 0 else []
        if running:
            print(welcome(running[0], Path(root).resolve(), Path(atlasctl).parent.resolve()))
            return 0
        time.sleep(0.3)
    print("the shop did not open; atlasctl why shop", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
