"""Missing Debian packages are installed by name; a failure is loud, but ends nothing."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "requirements" / "install-debian"

pytestmark = pytest.mark.skipif(
    not Path("/etc/debian_version").exists(), reason="this host is not Debian or Ubuntu"
)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder of programs that stand for the package manager; `apt-get` writes a diary."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def program(name: str, text: str) -> None:
        path = folder / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    program("id", 'echo "${FAKE_UID:-0}"\n')
    program(
        "dpkg-query",
        'for last; do :; done\ncase " $FAKE_INSTALLED " in *" $last "*) printf installed ;; esac\n',
    )
    program(
        "apt-get",
        'echo "$@" >>"$FAKE_DIARY"\n'
        'for last; do :; done\ncase "$*" in *install*"$FAKE_BROKEN"*) exit 100 ;; esac\n',
    )
    return folder


def run(tools: Path, tmp_path: Path, **extra: str) -> tuple[list[str], str]:
    """The lines of the diary, and what was said."""
    diary = tmp_path / "diary"
    diary.touch()
    env = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "FAKE_DIARY": str(diary),
        "FAKE_INSTALLED": "",
        "FAKE_BROKEN": "no-such-package",
        "POLICY_RC_D": str(tmp_path / "policy-rc.d"),
    }
    done = subprocess.run(
        [str(SCRIPT)], env=env | extra, capture_output=True, text=True, check=True
    )
    return diary.read_text().splitlines(), done.stderr


def listed() -> list[str]:
    text = (SCRIPT.parent / "debian.txt").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_only_what_is_missing_is_installed(tools: Path, tmp_path: Path) -> None:
    names = listed()
    diary, _ = run(tools, tmp_path, FAKE_INSTALLED=" ".join(names[1:]))
    assert [line.split()[-1] for line in diary] == ["update", names[0]]


def test_nothing_is_asked_for_when_nothing_is_missing(tools: Path, tmp_path: Path) -> None:
    diary, said = run(tools, tmp_path, FAKE_INSTALLED=" ".join(listed()))
    assert diary == []
    assert said == ""


def test_one_that_cannot_be_installed_is_named_and_costs_no_other(
    tools: Path, tmp_path: Path
) -> None:
    broken = listed()[0]
    diary, said = run(tools, tmp_path, FAKE_BROKEN=broken)
    assert f"FAILED: {broken}" in said
    single = [line.split()[-1] for line in diary if line.endswith(tuple(listed()))][1:]
    assert set(single) == set(listed())
    assert said.count("FAILED") == 1


def test_without_root_nothing_is_touched_and_it_is_said(tools: Path, tmp_path: Path) -> None:
    diary, said = run(tools, tmp_path, FAKE_UID="1000")
    assert diary == []
    assert "only root can install" in said


def test_servers_are_kept_from_starting_and_the_ban_is_lifted(tools: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with (tools / "apt-get").open("a") as program:
        program.write('cat "$POLICY_RC_D" >>"$FAKE_DIARY"\n')
    diary, _ = run(tools, tmp_path)
    assert "exit 101" in diary
    assert not policy.exists()
    policy.write_text("#!/bin/sh\nexit 0\n")
    run(tools, tmp_path)
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"
