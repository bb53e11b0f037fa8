"""Values that no place shows: a whole daemon lives with secrets, and everything it left is read."""

import asyncio
import base64
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atlasd.control.wire import OPERATIONS, Right
from atlasd.daemon.offline_secrets import perform
from atlasd.errors import AtlasError
from tests.integration.daemons import Atlas, atlas, until

OLD, NEW = "one", "two"
WAYS = ("file", "fd", "env")

# Writes what it was given in every spelling, by both streams, and then dies of a signal. It does so
# again after each restart, so that there are crashes with the old value and with the new one.
PROGRAM = """
import base64, json, os, sys, time, urllib.parse
name, value = sys.argv[1], ""
if path := os.environ.get("TOKEN_FILE"):
    value = open(path).read()
elif number := os.environ.get("TOKEN_FD"):
    value = os.read(int(number), 1000).decode()
else:
    value = os.environ["TOKEN"]
raw = value.encode()
for stream in (sys.stdout, sys.stderr):
    for text in (value, urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value),
                 json.dumps(value), raw.hex(), raw.hex().upper()):
        print("it is", text, "and no other", file=stream, flush=True)
    for before in (b"", b"u", b"us"):
        print("Basic", base64.b64encode(before + raw + b"!").decode(), file=stream, flush=True)
half = len(value) // 2
os.write(1, b"cut " + raw[:half])
time.sleep(0.2)
os.write(1, raw[half:] + b" cut\\n")
time.sleep(1)
os.write(2, b"last words " + raw)
os.abort()
"""

SERVICE = """
[services.{way}]
command = ["python3", "-I", "-S", "{program}", "{way}"]
on_change = "restart"
restart = {{ policy = "always" }}
backoff = {{ base = "200ms", factor = 1.0, cap = "1s" }}
min_uptime = "0s"
env = {{ ATLAS_TEST_ROOT = "{root}" }}
[services.{way}.secrets]
TOKEN = {{ value = "secret://{way}/token", deliver = "{way}" }}
[secrets.rotate."{way}/token"]
create = ["{step}", "create", "{way}"]
test = ["{step}", "test", "{way}"]
retire = ["{step}", "retire", "{way}"]
overlap = "0s"
"""

# A step of a rotation that says the value while it fails, as real programs do.
STEP = """#!/bin/sh
case $1 in
create) cat {root}/new/$2 ;;
test) cat >&2; [ ! -e {root}/refuse ] ;;
*) cat >/dev/null ;;
esac
"""


def value(way: str, which: str) -> str:
    """Long, and with everything in it that some spelling writes in another way."""
    return f'{way}-{which}/4711+"Zoë"\\& {way}~{which}'


VALUES = [value(way, which) for way in WAYS for which in (OLD, NEW)]


def spelled(secret: str) -> set[bytes]:
    """The value as programs write it; made here, so that redaction does not vouch for itself."""
    raw = secret.encode()
    texts = {secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote(secret)}
    texts |= {urllib.parse.quote_plus(secret), repr(secret)[1:-1]}
    texts |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    found = {text.encode() for text in texts}
    found |= {raw.hex().encode(), raw.hex().upper().encode()}
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw)
        # Characters at both ends also depend on what stands beside the value.
        middle = text[4 if before else 0 : -4]
        found |= {middle, middle.replace(b"+", b"-").replace(b"/", b"_")}
    return found


NEEDLES = {needle: secret for secret in VALUES for needle in spelled(secret)}


def shown(data: bytes) -> set[str]:
    """Whose value stands in it, in any spelling."""
    return {secret for needle, secret in NEEDLES.items() if needle in data}


@pytest.fixture
def host() -> Iterator[Atlas]:
    with atlas() as made:
        yield made


def answers(host: Atlas) -> Iterator[tuple[str, bytes]]:
    """What everything that can be asked without the right to administer says."""
    for operation in OPERATIONS:
        if operation.right is not Right.READ or {"id", "queue", "target"} & {
            *operation.fields_in_path
        }:
            continue
        for way in WAYS:
            given: dict[str, Any] = {"service": way, "name": f"{way}/token"}
            if operation.name == "config.explain":
                given = {"key": f"services.{way}.secrets.TOKEN.value"}
            fields = {
                name: given[name]
                for name in given
                if name in operation.fields_in_path or operation.name == "config.explain"
            }
            try:
                if operation.stream:
                    with host.client.stream(operation.name, **fields) as lines:
                        said = json.dumps(list(lines), ensure_ascii=False)
                else:
                    said = host.client.text(operation.name, **fields)
            except AtlasError as error:
                yield f"!{operation.name}", repr(error.to_wire()).encode()
            else:
                yield operation.name, said.encode()
    for path in ("/health", "/health/services/file", "/metrics"):
        yield path, host.http(path)[2].encode()


def handed_over(inside: str) -> bool:
    """Whether a file is one by which values reach a program or its role: on tmpfs, for nobody else.

    The role has them in files of its own so that it can go on after a crash without core.
    """
    return inside.startswith(("run/services/secrets/", "run/services/output-secrets/")) or (
        inside == "run/services/target.json"
    )


def files(host: Atlas) -> Iterator[tuple[str, Path]]:
    """All files of the root but for what the test itself wrote."""
    for path in host.root.rglob("*"):
        inside = path.relative_to(host.root).as_posix()
        if path.is_file() and not inside.startswith("new/"):
            yield inside, path


def processes(host: Atlas, daemon: int) -> Iterator[tuple[str, bytes]]:
    """Arguments and variables of the daemon's processes and of what they run."""
    for pid in {daemon, host.services_pid(), *host.marked()}:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
            last = arguments.split(b"\0")[-2].decode()
            yield f"cmdline {pid}", arguments
            yield f"environ {last}", Path(f"/proc/{pid}/environ").read_bytes()
        except (OSError, IndexError):  # It has just crashed, as it is to.
            continue


def offline(host: Atlas, operation: str, **fields: Any) -> None:
    """As `atlasctl` does it where no daemon runs."""

    async def all_of_it() -> None:
        async for _ in perform(operation, fields, host.paths, None):
            pass

    asyncio.run(all_of_it())


def crashes(host: Atlas, way: str) -> list[dict[str, Any]]:
    found = [dict(event) for event in host.client.stream("events", kind="crash", limit=500)]
    return [event for event in found if event["service"] == way]


def crashed(host: Atlas, way: str, times: int) -> None:
    until(lambda: len(crashes(host, way)) >= times, f"{way} to crash {times} times")


def output(host: Atlas, way: str) -> str:
    return json.dumps(list(host.client.stream("service.logs", service=way)))


def test_no_value_is_anywhere_but_where_it_was_handed_over(host: Atlas) -> None:
    (host.root / "new").mkdir()
    for way in WAYS:
        (host.root / "new" / way).write_text(value(way, NEW))
    program, step = host.root / "program.py", host.root / "step"
    program.write_text(PROGRAM)
    step.write_text(STEP.format(root=host.root))
    step.chmod(0o755)
    host.configure(
        "".join(SERVICE.format(way=way, program=program, step=step, root=host.root) for way in WAYS)
    )
    offline(host, "secret.keygen")
    for way in WAYS:
        offline(host, "secret.set", name=f"{way}/token", value=value(way, OLD))
    daemon = host.up()

    for way in WAYS:
        crashed(host, way, 1)
    (host.root / "refuse").touch()
    with pytest.raises(AtlasError) as refused:
        list(host.client.stream("secret.rotate", name="file/token"))
    assert not shown(repr(refused.value.to_wire()).encode())
    assert "the step test" in str(refused.value)
    (host.root / "refuse").unlink()
    for way in WAYS:
        list(host.client.stream("secret.rotate", name=f"{way}/token"))
        assert host.client.call("secret.reveal", name=f"{way}/token")["value"] == value(way, NEW)
    with pytest.raises(AtlasError) as refused:
        host.client.call("secret.set", name="a name with blanks", value=value("file", NEW))
    assert not shown(repr(refused.value.to_wire()).encode())

    # Each has crashed with the new value too, and the old ones are retired.
    known = {way: len(crashes(host, way)) for way in WAYS}
    for way in WAYS:
        crashed(host, way, known[way] + 2)
        assert f"[secret:{way}/token]" in output(host, way)

    # What is looked with does find values: where they are handed over, and nowhere else.
    folder = Path(host.paths.run, "services", "secrets", "file", "current")
    assert shown(folder.joinpath("TOKEN").read_bytes()) == {value("file", NEW)}
    seen = until(
        lambda: found if shown((found := dict(processes(host, daemon.pid)))["environ env"]) else {},
        "the variable to be seen in /proc",
    )
    assert shown(seen.pop("environ env")) == {value("env", NEW)}
    assert {"environ file", "environ fd"} <= seen.keys() or until(
        lambda: {"environ file", "environ fd"} <= dict(processes(host, daemon.pid)).keys(),
        "the other programs to run",
    )

    left = {}
    for inside, path in files(host):
        if handed_over(inside):
            assert path.stat().st_mode & 0o077 == 0, inside
        else:
            left[inside] = path.read_bytes()
    said = dict(answers(host))
    assert {"service.logs", "service.why", "events", "config.show", "config.explain"} <= said.keys()
    assert {"secret.list", "secret.versions", "secret.impact", "secret.check"} <= said.keys()
    limits = until(
        lambda: Path(f"/proc/{host.pids('file')[0]}/limits").read_text(), "a process to look at"
    )
    assert "Max core file size        1 " in limits
    everything = {**said, **seen, **left}
    assert any(place.startswith("log/") for place in everything)
    assert any(place.startswith("state/") for place in everything)
    assert {place: who for place, data in everything.items() if (who := shown(data))} == {}


@pytest.mark.parametrize("secret", VALUES)
def test_what_is_looked_with_finds_each_spelling(secret: str) -> None:
    for before in (b"", b"u", b"us"):
        encoded = base64.b64encode(before + secret.encode() + b"!")
        assert shown(b"Basic " + encoded + b"\n") == {secret}
    for text in (secret, json.dumps(secret), urllib.parse.quote_plus(secret), repr(secret)):
        assert shown(text.encode()) == {secret}
