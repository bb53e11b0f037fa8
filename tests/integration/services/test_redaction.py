"""A real program prints its secrets in every spelling, and nobody ever reads them."""

import base64
import fcntl
import json
import os
import re
import socket
import sys
import termios
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

import pytest

from atlasd.services.spec import (
    Hook,
    KnownSecret,
    Probe,
    Reload,
    Restart,
    ServiceSpec,
    to_wire,
)
from tests.integration.services.host import Host, until

VALUE = "hünter22/and+more"
NEW = "Tomorrow's value #2"
DB = KnownSecret(name="prod/db#password", value=VALUE)
LABEL = "[secret:prod/db#password]"
PATH = {"PATH": os.environ["PATH"]}

# Writes what it is told: each file `N` in its folder, in order, as soon as it is there, by one
# write; then makes `N.done`. The file `end` ends it with that exit code.
SCRIPT = """
import os, sys, time
folder, number = sys.argv[1], 0
while True:
    path = os.path.join(folder, str(number))
    if os.path.exists(path):
        data = open(path, "rb").read()
        while data:
            data = data[os.write(1, data):]
        open(path + ".done", "w").close()
        number += 1
    elif os.path.exists(os.path.join(folder, "end")):
        sys.exit(int(open(os.path.join(folder, "end")).read()))
    else:
        time.sleep(0.005)
"""


class Speaker:
    """A service that says what the test wants."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = host.files / "speaker"
        self.folder.mkdir()
        self._number = 0

    def spec(self, *secrets: KnownSecret, **more: object) -> ServiceSpec:
        return ServiceSpec(
            name="web",
            command=(sys.executable, "-I", "-S", "-c", SCRIPT, str(self.folder)),
            secrets=secrets,
            env=PATH,
            restart=Restart(policy="never"),
            **more,  # type: ignore[arg-type]
        )

    def apply(self, *specs: ServiceSpec) -> None:
        self.host.ask_services("apply", services=[to_wire(s) for s in specs], wanted={})

    def start(self, *specs: ServiceSpec) -> None:
        self.host.start_role("services")
        self.apply(*specs)
        self.host.wait_for("web")

    def say(self, text: bytes) -> None:
        """Have it written, and wait until that was done."""
        path = self.folder / str(self._number)
        path.with_suffix(".new").write_bytes(text)
        path.with_suffix(".new").rename(path)
        self._number += 1
        until(path.with_suffix(".done").exists, self.host.logs_of_roles)

    def lines(self, count: int) -> list[str]:
        """What stands in the log, once it is so many lines."""
        return until(lambda: found if len(found := self.host.lines("web")) >= count else None)

    def read(self) -> None:
        """Wait until all that was written is in the log, or held back."""
        fifo = next(Path(self.host.run).rglob("web.0.out"))
        pipe = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        try:
            until(lambda: not _waiting(pipe))
        finally:
            os.close(pipe)


def _waiting(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.fixture
def speaker(host: Host) -> Speaker:
    return Speaker(host)


def files_with(folders: Iterable[Path], *values: bytes) -> list[Path]:
    """The files below in which one of the values stands."""
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and any(value in path.read_bytes() for value in values)
    ]


RAW = VALUE.encode()
SPELT = {
    "raw": RAW,
    "json": json.dumps(VALUE).encode(),
    "json, not ASCII only": json.dumps(VALUE, ensure_ascii=False).encode(),
    "json with slashes": json.dumps(VALUE).replace("/", r"\/").encode(),
    "url": urllib.parse.quote_plus(VALUE).encode(),
    "url in small letters": re.sub(
        "%..", lambda found: found[0].lower(), urllib.parse.quote(VALUE)
    ).encode(),
    "hex": RAW.hex().encode(),
    "HEX": RAW.hex().upper().encode(),
    "base64": base64.b64encode(RAW),
    "base64, second": base64.b64encode(b"u" + RAW + b"!"),
    "base64, third": base64.urlsafe_b64encode(b"u:" + RAW + b"!!"),
}


def test_in_every_spelling_whole_and_cut_with_a_pause(speaker: Speaker) -> None:
    speaker.start(speaker.spec(DB))
    for text in SPELT.values():
        speaker.say(b"<" + text + b">\n")
    for text in SPELT.values():
        for piece in (b"<" + text[: len(text) // 2], text[len(text) // 2 :] + b">\n"):
            speaker.say(piece)
            speaker.read()
    lines = speaker.lines(2 * len(SPELT))
    assert lines[: len(SPELT)] == lines[len(SPELT) :]
    for how, line in zip(SPELT, lines, strict=False):
        assert re.fullmatch(rf'<"?.{{0,4}}{re.escape(LABEL)}.{{0,6}}"?>', line), (how, line)
    parts = [text[3:-3] for text in SPELT.values()]
    assert files_with([speaker.host.root / "log", speaker.host.root / "state"], *parts) == []


def test_cut_by_the_death_of_the_role(speaker: Speaker) -> None:
    speaker.start(speaker.spec(DB))
    for cut in range(1, len(RAW), 3):
        speaker.say(b"before " + RAW[:cut])
        if cut % 2:
            speaker.read()  # held back by the role that dies
        speaker.host.kill("services")
        speaker.say(RAW[cut:] + b" after\n")
        speaker.host.start_role("services")
        speaker.host.wait_for("web")
    count = len(range(1, len(RAW), 3))
    assert speaker.lines(count) == [f"before {LABEL} after"] * count


def test_old_and_new_values_until_the_process_ends(speaker: Speaker) -> None:
    speaker.start(speaker.spec(DB))
    pid = speaker.host.pid("web")
    speaker.apply(speaker.spec(KnownSecret(name=DB.name, value=NEW)))
    speaker.say(f"old {VALUE} new {NEW}\n".encode())
    assert speaker.lines(1) == [f"old {LABEL} new {LABEL}"]
    speaker.host.restart_role("services")
    assert speaker.host.wait_for("web")["pid"] == pid
    speaker.say(f"old {VALUE} new {NEW}\n".encode())
    assert speaker.lines(2)[1:] == [f"old {LABEL} new {LABEL}"]
    speaker.host.ask_services("restart", service="web")
    until(lambda: speaker.host.instance("web")["pid"] not in (pid, None))
    speaker.host.wait_for("web")
    until(lambda: len(speaker.lines(2)) >= 4)  # it says everything from the beginning
    assert speaker.lines(4)[2:] == [f"old {VALUE} new {LABEL}"] * 2


def test_long_lines_many_secrets_and_bytes_that_are_none(speaker: Speaker) -> None:
    secrets = [KnownSecret(name=f"s{n}", value=f"value-{n:02}-{n * 7919:x}") for n in range(60)]
    speaker.start(speaker.spec(DB, *secrets))
    noise = bytes(range(256)).replace(b"\n", b"") * 900
    speaker.say(noise + RAW + noise + b"\n")
    speaker.say(b" ".join(s.value.encode() for s in secrets) + b"\n")
    speaker.say(noise + b"\n")
    speaker.lines(3)
    raw = [
        record[37:]
        for record in (speaker.host.root / "log/web/0.log").read_bytes().split(b"\n")
        if record
    ]
    text = b"".join(raw)
    assert text == (
        noise
        + LABEL.encode()
        + noise
        + b" ".join(f"[secret:s{n}]".encode() for n in range(60))
        + noise
    )


def facts(host: Host) -> list[dict[str, object]]:
    """Every fact that the role still knows."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(host.run / "services.sock"))
        link.sendall(json.dumps({"id": 1, "op": "subscribe", "since": 0}).encode() + b"\n")
        with link.makefile("rb") as lines:
            last = json.loads(lines.readline())["ok"]["next_seq"] - 1
            found: list[dict[str, object]] = []
            while not found or found[-1]["seq"] != last:
                found.append(json.loads(lines.readline())["event"])
            return found


def test_last_words_readiness_hooks_and_probes(speaker: Speaker) -> None:
    host = speaker.host
    say = ("/bin/sh", "-c", f"echo; printf '%s, %s' '{VALUE}' '{VALUE[:9]}'; exit 1")
    host.start_role("services")
    speaker.apply(
        speaker.spec(
            DB,
            ready=Probe(kind="log", target="ready"),
            live=Probe(kind="exec", command=say, interval=0.2),
            post_start=(Hook(command=say),),
            reload=Reload(kind="exec", command=say),
        )
    )
    speaker.say(b"ready with " + RAW + b"\n")
    host.wait_for("web")
    until(lambda: host.snapshot()["web"]["health"] == "warn")
    host.ask_services("reload", service="web")
    until(lambda: "reload /bin/sh" in host.instance("web")["detail"])
    speaker.say(b"the last words: " + RAW + b"\nand " + RAW[:-1])
    (speaker.folder / "end").write_text("9")
    crash = until(lambda: host.crashes("web"))[0]
    assert f"the last words: {LABEL}" in crash["last_output"]
    assert f"and {LABEL}" in crash["last_output"]
    snapshot = host.ask_services("snapshot")
    told = json.dumps([snapshot, facts(host)], ensure_ascii=False)
    for what in ("output says: ready with", "exit code 1:", "post_start /bin/sh", "reload /bin/sh"):
        assert re.search(rf"{what}[^\"]*{re.escape(LABEL)}", told), what
    assert VALUE[1:9] not in told
    assert files_with([host.root / "log", host.root / "state"], RAW[1:9]) == []


def test_nobody_but_the_role_can_read_what_it_searches_for(speaker: Speaker) -> None:
    speaker.start(speaker.spec(DB))
    found = files_with([speaker.host.run], RAW, json.dumps(VALUE)[1:-1].encode())
    assert found
    for path in found:
        assert path.stat().st_mode & 0o077 == 0, path
    speaker.apply()
    until(lambda: "web" not in speaker.host.snapshot())
    assert files_with([speaker.host.run / "services/output-secrets"], b"") == []
