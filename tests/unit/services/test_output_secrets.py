"""Secrets in captured output: never in a file, and every other byte once, whoever dies when."""

import base64
import contextlib
import itertools
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd import redaction
from atlasd.clock import HandClock
from atlasd.services import output_secrets
from atlasd.services.loop import Loop
from atlasd.services.output import REST, Capture, Stream
from atlasd.services.output_journal import Journal
from atlasd.services.output_records import join, parse
from atlasd.services.output_secrets import Carry, OutputSecrets
from atlasd.services.spec import KnownSecret

DB = KnownSecret(name="db", value="hunter22/and+more")
OURS = (
    *("output.py", "output_file.py", "output_files.py", "output_journal.py"),
    *("output_records.py", "output_secrets.py", "output_stream.py"),
)


class Death(BaseException):
    """Stands for kill -9: nothing that was about to be done is done."""


class Life:
    """One services role's capture, and those that follow it on the same folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = HandClock(wall=1_795_455_883.0)
        self.said: list[str] = []
        (root / "run/fifo").mkdir(parents=True)
        pipe = root / "run/fifo/web.0.out"
        os.mkfifo(pipe)
        self.program = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        """The end of a program that outlives the role, and so does what is in the pipe."""
        self.begin()

    def begin(self) -> None:
        self.loop = Loop(self.clock)
        self.capture = Capture(
            self.loop, str(self.root / "run"), str(self.root / "log"), report=self.said.append
        )

    def end(self) -> None:
        """Let go of the descriptors, as the kernel does of a dead process's."""
        with contextlib.suppress(Exception):
            self.capture.close()
        self.loop.close()

    def over(self) -> None:
        """The program has ended too."""
        self.end()
        os.close(self.program)

    def begin_again(self) -> None:
        """A successor starts."""
        self.end()
        self.begin()

    @property
    def out(self) -> Stream:
        return self.capture.stream("web", 0, "stdout")

    def write(self, data: bytes) -> None:
        """What the program does, which doesn't know who reads."""
        assert os.write(self.program, data) == len(data)

    def settle(self) -> None:
        for _ in range(4):
            self.loop.turn(0)
            self.clock.wind(REST * 1.01)

    def lines(self) -> list[bytes]:
        try:
            text = (self.root / "log/web/0.log").read_bytes()
        except FileNotFoundError:
            return []
        return [line.message for line in join(filter(None, map(parse, text.split(b"\n"))))]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    made.capture.recover()
    assert made.out.adopted
    yield made
    made.over()


# --- what is known


def test_what_an_instance_is_searched_for_outlives_the_role(tmp_path: Path) -> None:
    folder = str(tmp_path / "secrets")
    first = OutputSecrets(folder)
    assert first.learn("web", 0, [DB])
    assert not first.learn("web", 0, [DB])
    assert (tmp_path / "secrets/web.0.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    second = OutputSecrets(folder)
    assert second.redactor("web", 0).redact(b"hunter22/and+more") == b"[secret:db]"
    assert not second.redactor("web", 1)
    second.forget("web", 0)
    assert not OutputSecrets(folder).redactor("web", 0)
    assert list(Path(folder).iterdir()) == []


def test_an_old_value_is_searched_for_until_a_process_starts_anew(tmp_path: Path) -> None:
    secrets = OutputSecrets(str(tmp_path / "secrets"))
    secrets.learn("web", 0, [DB])
    secrets.learn("web", 0, [KnownSecret(name="db", value="the new one")])
    text = b"hunter22/and+more, the new one"
    assert secrets.redactor("web", 0).redact(text) == b"[secret:db], [secret:db]"
    secrets.learn("web", 0, [KnownSecret(name="db", value="the new one")], anew=True)
    assert secrets.redactor("web", 0).redact(text) == b"hunter22/and+more, [secret:db]"


def test_of_many_old_values_the_last_are_searched_for(tmp_path: Path) -> None:
    secrets = OutputSecrets(str(tmp_path / "secrets"))
    for number in range(output_secrets.KEPT + 1):
        secrets.learn("web", 0, [KnownSecret(name="db", value=f"password-{number:02}")])
    redactor = secrets.redactor("web", 0)
    assert redactor.redact(b"password-00 password-01") == b"password-00 [secret:db]"


def test_instances_of_a_service_share_what_was_prepared(tmp_path: Path) -> None:
    secrets = OutputSecrets(str(tmp_path / "secrets"))
    for instance in range(3):
        secrets.learn("web", instance, [DB])
    assert secrets.redactor("web", 0) is secrets.redactor("web", 2)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"db": "x"}', b'{"db": [1]}'])
def test_a_file_that_is_not_ours_says_nothing(tmp_path: Path, text: bytes) -> None:
    secrets = OutputSecrets(str(tmp_path))
    (tmp_path / "web.0.json").write_bytes(text)
    assert not secrets.redactor("web", 0)


def test_a_full_run_directory_is_told_and_the_secrets_are_kept_out(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, body: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output_secrets, "replace_json", full)
    life.capture.keep_out("web", 0, [DB])
    life.write(b"hunter22/and+more\n")
    life.settle()
    assert life.lines() == [b"[secret:db]"]
    assert life.said == [
        "a successor would not know the secrets of web: No space left on device",
    ]


def test_what_is_held_back_takes_the_old_ones_place_in_two_steps(tmp_path: Path) -> None:
    path = str(tmp_path / "held")
    carry = Carry(path)
    carry.commit()
    assert carry.data == b""
    carry.stage(b"hunt")
    assert Carry(path).data == b""
    carry.commit()
    carry.commit()
    assert Carry(path).data == b"hunt"
    assert Path(path).stat().st_mode & 0o777 == 0o600
    carry.remove()
    assert list(tmp_path.iterdir()) == []


# --- what is written


@pytest.mark.parametrize(
    "text",
    [
        b"hunter22/and+more",
        b"hunter22\\/and+more",
        b"hunter22%2Fand%2Bmore",
        b"hunter22/and+more".hex().encode(),
        b"hunter22/and+more".hex().upper().encode(),
        *(base64.b64encode(b"x" * n + b"hunter22/and+more" + b"y" * n) for n in range(3)),
    ],
)
def test_however_it_is_spelt_and_wherever_it_is_cut(life: Life, text: bytes) -> None:
    life.capture.keep_out("web", 0, [DB])
    for cut in range(len(text) + 1):
        for piece in (b"a " + text[:cut], text[cut:] + b" b\n"):
            life.write(piece)
            life.settle()
    lines = life.lines()
    assert len(set(lines)) == 1
    assert b"[secret:db]" in lines[0]
    assert b"hunter" not in lines[0]
    assert not {text[:8], text[8:16]} & {lines[0][2:10], lines[0][10:18]}


def test_a_line_is_there_at_once_and_a_prompt_but_for_what_may_be_a_secret(life: Life) -> None:
    life.capture.keep_out("web", 0, [DB])
    life.write(b"one\nContinue? h")
    life.settle()
    assert life.lines() == [b"one", b"Continue? "]
    life.out.finish()
    assert life.lines() == [b"one", b"Continue? h"]


def test_both_streams_are_held_back_by_themselves(life: Life) -> None:
    life.capture.keep_out("web", 0, [DB])
    err = life.capture.stream("web", 0, "stderr")
    life.write(b"hunter22")
    pipe = err.child_end()
    os.write(pipe, b"/and+more is no end of it\n")
    life.settle()
    life.write(b"/and+more\n")
    life.settle()
    os.close(pipe)
    assert sorted(life.lines()) == [b"/and+more is no end of it", b"[secret:db]"]


def test_whoever_watches_the_output_sees_no_secret(life: Life) -> None:
    life.capture.keep_out("web", 0, [DB])
    seen: list[bytes] = []
    life.out.tap = seen.append
    for piece in (b"ready with hunter", b"22/and+", b"more\n"):
        life.write(piece)
        life.settle()
    assert seen == [b"ready with ", b"[secret:db]\n"]


def test_lines_longer_than_a_chunk_hide_a_secret_across_the_cut(life: Life) -> None:
    life.capture.keep_out("web", 0, [DB])
    for before in (65_530, 65_536 - 4, 70_000):
        line = b"x" * before + b"hunter22/and+more" + b"y" * 70_000 + b"\n"
        for at in range(0, len(line), 60_000):
            life.write(line[at : at + 60_000])
            life.settle()
        assert life.lines()[-1] == b"x" * before + b"[secret:db]" + b"y" * 70_000


@given(st.binary(max_size=2000).map(lambda raw: raw.replace(b"\n", b"") + b"\n"))
def test_what_is_no_secret_is_written_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    life = Life(tmp_path_factory.mktemp("capture"))
    try:
        life.capture.recover()
        assert life.out.adopted
        life.capture.keep_out("web", 0, [DB])
        life.write(text)
        life.settle()
        assert life.lines() == [text[:-1]]
    finally:
        life.over()


def test_fifty_secrets_and_a_flood_in_which_none_of_them_stands(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(5)
    secrets = [KnownSecret(name=f"s{n}", value=chance.randbytes(20).hex()) for n in range(50)]
    life.capture.keep_out("web", 0, secrets)
    made = []
    real = redaction._replaced

    def counted(text: bytes, places: list[Any]) -> bytes:
        made.extend(places)
        return real(text, places)

    monkeypatch.setattr(redaction, "_replaced", counted)
    flood = b"a plain line, as programs print them\n" * 1000
    for _ in range(20):
        life.write(flood)
        life.settle()
    assert life.capture.bytes_total == 20 * len(flood)
    assert made == []
    assert not life.out.carry.data


# --- deaths


class Deaths:
    """Ends what is done before the n-th line of our code, for one n after the other."""

    def __init__(self, after: Iterable[int]) -> None:
        self._after = iter(after)
        self._left = next(self._after)
        self.count = 0
        self.dead = False

    def come(self, act: Callable[[], object]) -> bool:
        """Do something; whether death came."""
        before = sys.gettrace()
        self.dead = False
        sys.settrace(self._call)
        try:
            act()
        except Death:
            self.count += 1
            self._left = next(self._after)
            return True
        finally:
            sys.settrace(before)
        return False

    def _call(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.endswith(OURS) else None

    def _line(self, _frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            self._left -= 1
            if self._left <= 0:
                self.dead = True
                raise Death
        return self._line


PIECES = (
    b"one\nit is hunt",
    b"er22/and+",
    b"more, and more: hunter2",
    b"3\n",
    b"hunter22/and+more hunter22",
)
EXPECTED = [b"one", b"it is [secret:db], and more: hunter23", b"[secret:db] [secret:db]"]


def play(root: Path, deaths: Deaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program write those pieces while the role dies again and again."""
    done = Journal.done

    def done_if_alive(journal: Journal, count: int) -> None:
        if not deaths.dead:  # Python runs a `finally` where the kernel runs nothing any more
            done(journal, count)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "done", done_if_alive)
        play_on(root, deaths)


def play_on(root: Path, deaths: Deaths) -> None:
    root.mkdir()
    life = Life(root)

    def survive(act: Callable[[], object]) -> None:
        while deaths.come(act):
            life.begin_again()
            while deaths.come(recover):
                life.begin_again()

    def recover() -> None:
        life.capture.recover()

    def settle() -> None:
        assert life.out.adopted
        life.settle()

    def finish() -> None:
        life.out.finish()

    try:
        life.capture.recover()
        life.capture.keep_out("web", 0, [DB])
        for piece in PIECES:
            life.write(piece)
            survive(settle)
        survive(finish)
        assert life.lines() == EXPECTED
        assert not life.out.carry.data
    finally:
        life.over()


NEVER = 10**9


def test_through_a_death_before_any_line_each_byte_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in itertools.count(1, 3):
        deaths = Deaths([number, NEVER])
        play(tmp_path / str(number), deaths, monkeypatch)
        if not deaths.count:
            break
    assert number > 150, "the code that is on trial was hardly met"


def test_through_deaths_upon_deaths_each_byte_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(20261125)
    died = 0
    for number in range(40):
        deaths = Deaths(iter(lambda: chance.choice((5, 20, 40, 60, 90, 200, 500)), None))
        play(tmp_path / str(number), deaths, monkeypatch)
        died += deaths.count
    assert died > 100
