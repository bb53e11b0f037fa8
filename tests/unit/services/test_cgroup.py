"""Where cgroups may be, from what the kernel says; and their files, on a tree of plain ones."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.services import cgroup as module
from atlasd.services.cgroup import Cgroups, open_cgroups
from atlasd.services.cgroup_place import (
    Place,
    find_place,
    is_delegated,
    is_writable,
    mounts,
    own_cgroups,
    own_folders,
    this_place,
)
from atlasd.services.spec import Limits

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
35 31 0:32 / /sys/fs/cgroup/memory rw shared:7 - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_OWN = "4:pids:/\n3:memory:/box/1\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n"
UNIT = "/system.slice/atlas-services.service"


def place(policy: str = "auto", **given: object) -> Place:
    settings: dict[str, object] = {
        "mountinfo": UNIFIED,
        "cgroup": "0::/\n",
        "systemd": False,
        "delegated": lambda _folder: False,
        "writable": lambda _folder: True,
    }
    return find_place(policy, "/run/atlasd", **{**settings, **given})  # type: ignore[arg-type]


def test_who_we_are_in_each_hierarchy() -> None:
    assert own_cgroups(HYBRID_OWN) == {
        "pids": "/",
        "memory": "/box/1",
        "cpu": "/",
        "cpuacct": "/",
        "": "/",
    }


def test_where_the_hierarchies_are() -> None:
    assert own_folders(HYBRID, HYBRID_OWN) == {
        "": "/sys/fs/cgroup/unified",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory/box/1",
        "pids": "/sys/fs/cgroup/pids",
    }


def test_a_container_without_its_own_namespace_sees_a_part() -> None:
    part = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
    assert own_folders(part, "0::/docker/abc\n") == {"": "/sys/fs/cgroup"}
    assert own_folders(part, "0::/docker/abc/x\n") == {"": "/sys/fs/cgroup/x"}
    assert own_folders(part, "0::/docker/abcdef\n") == {"": "/sys/fs/cgroup"}
    assert own_folders(UNIFIED, "0::/../elsewhere\n") == {}


def test_mount_points_with_spaces() -> None:
    assert mounts("1 2 0:3 / /my\\040cgroups rw - cgroup2 x rw\n") == {"": ("/my cgroups", "/")}


@given(st.text(max_size=300))
def test_whatever_the_files_say_is_survived(text: str) -> None:
    assert isinstance(own_folders(text, text), dict)


def test_without_systemd_our_own_cgroup_counts_where_it_is_writable() -> None:
    found = place(mountinfo=HYBRID, cgroup=HYBRID_OWN)
    name = found.v2.removeprefix("/sys/fs/cgroup/unified/")
    assert name.startswith("atlasd.")
    assert found.v1 == {
        "cpu": f"/sys/fs/cgroup/cpu,cpuacct/{name}",
        "memory": f"/sys/fs/cgroup/memory/box/1/{name}",
        "pids": f"/sys/fs/cgroup/pids/{name}",
    }
    denied = place(writable=lambda _folder: False)
    assert denied.v2 == ""
    assert "not ours to write" in denied.detail


def test_two_roots_have_two_places() -> None:
    settings = {"mountinfo": UNIFIED, "cgroup": "0::/\n", "systemd": False}
    found = [
        find_place("auto", run, delegated=bool, writable=bool, **settings)  # type: ignore[arg-type]
        for run in ("/run/a", "/run/b")
    ]
    assert found[0].v2 != found[1].v2


def test_v1_folders_that_cannot_be_written_are_left_alone() -> None:
    found = place(
        mountinfo=HYBRID, cgroup=HYBRID_OWN, writable=lambda folder: "memory" not in folder
    )
    assert set(found.v1) == {"cpu", "pids"}


@pytest.mark.parametrize("where", [UNIT, f"{UNIT}/supervisor"])
def test_under_systemd_only_what_was_delegated_is_ours(where: str) -> None:
    asked: list[str] = []

    def delegated(folder: str) -> bool:
        asked.append(folder)
        return True

    own = f"3:memory:{UNIT}\n4:pids:/user.slice\n0::{where}\n"
    found = place(mountinfo=HYBRID, cgroup=own, systemd=True, delegated=delegated)
    assert asked == [f"/sys/fs/cgroup/unified{UNIT}"]
    assert found.v2 == f"/sys/fs/cgroup/unified{UNIT}/services"
    assert found.v1 == {"memory": f"/sys/fs/cgroup/memory{UNIT}/services"}
    refused = place(mountinfo=HYBRID, cgroup=own, systemd=True)
    assert refused.v2 == ""
    assert "delegated" in refused.detail
    assert "Delegate=yes" in refused.hint


def test_the_policy_decides() -> None:
    assert place("off").v2 == ""
    assert "host.cgroup" in place("off").detail
    own = place("/sys/fs/cgroup/mine/", systemd=True)
    assert own.v2.startswith("/sys/fs/cgroup/mine/atlasd.")
    assert place(mountinfo="").detail == "no cgroup version 2 is mounted here"


def test_plain_folders_are_not_taken_for_cgroups(tmp_path: Path) -> None:
    assert not is_writable(str(tmp_path))
    assert not is_delegated(str(tmp_path))
    assert this_place(str(tmp_path), "/run/x").v2 == ""


# --- files, on a tree of plain ones


class Tree:
    """A place that looks like two hierarchies, with the files that a test puts there."""

    def __init__(self, root: Path, *controllers: str, v1: tuple[str, ...] = ()) -> None:
        self.root = root
        self.unit = root / "unit"
        self.put("unit/cgroup.controllers", " ".join(controllers))
        self.put("unit/cgroup.subtree_control")
        self.put("unit/cgroup.procs")
        self.put("unit/services/cgroup.subtree_control")
        for name in v1:
            (root / name / "services").mkdir(parents=True)
        self.cgroups = Cgroups(
            Place(
                v2=str(self.unit / "services"),
                v1={name: str(root / name / "services") for name in v1},
            )
        )

    def put(self, path: str, text: str = "") -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def get(self, path: str) -> str:
        return (self.root / path).read_text()


LIMITS = Limits(memory=1 << 20, cpu=1.5, tasks=7)


def test_limits_by_version_2(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "memory", "cpu", "pids")
    for name in ("memory.max", "cpu.max", "pids.max"):
        tree.put(f"unit/services/web.0/{name}", "\0" * 20)
    web = tree.cgroups.create("web", 0)
    assert web.apply_limits(LIMITS) == ()
    assert tree.get("unit/services/web.0/memory.max").rstrip("\0") == "1048576"
    assert tree.get("unit/services/web.0/cpu.max").rstrip("\0") == "150000 100000"
    assert tree.get("unit/services/web.0/pids.max").rstrip("\0") == "7"
    web.close()


def test_limits_are_lifted(tmp_path: Path) -> None:
    tree = Tree(tmp_path, v1=("cpu",))
    tree.put("unit/services/web.0/memory.max", "99")
    tree.put("cpu/services/web.0/cpu.cfs_quota_us", "50000")
    web = tree.cgroups.create("web", 0)
    assert web.apply_limits(Limits()) == ()
    assert tree.get("unit/services/web.0/memory.max") == "max"
    assert tree.get("cpu/services/web.0/cpu.cfs_quota_us").startswith("-1")
    assert not (tmp_path / "unit/services/web.0/cpu.max").exists()
    web.close()


def test_what_version_2_lacks_is_limited_by_version_1(tmp_path: Path) -> None:
    tree = Tree(tmp_path, v1=("memory", "cpu"))
    tree.put("memory/services/web.0/memory.limit_in_bytes")
    tree.put("cpu/services/web.0/cpu.cfs_period_us")
    tree.put("cpu/services/web.0/cpu.cfs_quota_us")
    web = tree.cgroups.create("web", 0)
    assert web.apply_limits(LIMITS) == ("tasks",)
    assert tree.get("memory/services/web.0/memory.limit_in_bytes") == "1048576"
    assert tree.get("cpu/services/web.0/cpu.cfs_quota_us") == "150000"
    assert set(web.join_paths) == {
        f"{tmp_path}/memory/services/web.0/cgroup.procs",
        f"{tmp_path}/cpu/services/web.0/cgroup.procs",
    }
    web.close()


def test_no_v1_folder_is_made_without_a_limit(tmp_path: Path) -> None:
    tree = Tree(tmp_path, v1=("memory", "cpu", "pids"))
    web = tree.cgroups.create("web", 0)
    assert web.apply_limits(Limits()) == ()
    assert web.join_paths == ()
    assert list((tmp_path / "memory/services").iterdir()) == []
    web.close()


def test_limits_that_no_hierarchy_can_set_are_named(tmp_path: Path) -> None:
    web = Tree(tmp_path).cgroups.create("web", 0)
    assert web.apply_limits(LIMITS) == ("memory", "cpu", "tasks")
    assert web.apply_limits(Limits(cpu=1)) == ("cpu",)
    web.close()


def test_a_tiny_share_of_a_processor_is_what_the_kernel_takes_at_least(tmp_path: Path) -> None:
    tree = Tree(tmp_path, v1=())
    tree.put("unit/services/web.0/cpu.max")
    web = tree.cgroups.create("web", 0)
    assert web.apply_limits(Limits(cpu=0.0001)) == ()
    assert tree.get("unit/services/web.0/cpu.max") == "1000 100000"
    web.close()


def test_controllers_are_handed_on_for_the_first_limit_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Tree(tmp_path, "memory", "pids")
    written: list[tuple[str, str]] = []

    def write(path: str, text: str) -> bool:
        written.append((path.removeprefix(f"{tmp_path}/"), text))
        # As the kernel: a cgroup that holds processes hands nothing on.
        return path != f"{tree.unit}/cgroup.subtree_control" or not tree.get("unit/cgroup.procs")

    monkeypatch.setattr(module, "write", write)
    tree.put("unit/cgroup.procs", "100\n")

    def empty(folder: str, leaf: str) -> None:
        assert (folder, leaf) == (str(tree.unit), f"{tree.unit}/supervisor")
        tree.put("unit/cgroup.procs")

    monkeypatch.setattr(module, "move_all", empty)
    assert tree.cgroups.enable("memory")
    assert [w for w in written if "subtree" in w[0]] == [
        ("unit/cgroup.subtree_control", "+memory"),
        ("unit/cgroup.subtree_control", "+memory"),
        ("unit/services/cgroup.subtree_control", "+memory"),
    ]
    assert not tree.cgroups.enable("cpu")
    written.clear()
    tree.put("unit/services/cgroup.subtree_control", "memory")
    assert tree.cgroups.enable("memory")
    assert written == []


def test_usage_by_version_2(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    web = tree.cgroups.create("web", 0)
    tree.put("unit/services/web.0/cpu.stat", "usage_usec 2500000\nuser_usec 1\n")
    tree.put("unit/services/web.0/memory.current", "4096\n")
    tree.put("unit/services/web.0/memory.peak", "8192\n")
    tree.put("unit/services/web.0/pids.current", "3\n")
    tree.put("unit/services/web.0/memory.events", "low 0\nmax 7\noom 2\noom_kill 1\n")
    usage = web.usage()
    assert (usage.memory_bytes, usage.memory_peak_bytes, usage.tasks) == (4096, 8192, 3)
    assert usage.cpu_seconds == 2.5
    assert web.oom_kills() == 1
    web.begin()
    tree.put("unit/services/web.0/cpu.stat", "usage_usec 2750000\n")
    assert web.usage().cpu_seconds == 0.25
    web.close()


def test_usage_by_version_1(tmp_path: Path) -> None:
    tree = Tree(tmp_path, v1=("memory", "pids"))
    tree.put("memory/services/web.0/memory.usage_in_bytes", "5000\n")
    tree.put("memory/services/web.0/memory.oom_control", "under_oom 0\noom_kill 4\n")
    tree.put("pids/services/web.0/pids.current", "2\n")
    web = tree.cgroups.create("web", 0)
    assert (web.usage().memory_bytes, web.usage().tasks) == (5000, 2)
    assert web.usage().cpu_seconds is None
    assert web.oom_kills() == 4
    web.close()


def test_what_this_host_cannot_tell_is_null(tmp_path: Path) -> None:
    web = Tree(tmp_path).cgroups.create("web", 0)
    assert web.usage().cpu_seconds is None
    assert web.oom_kills() is None
    assert web.processes() == ()
    assert not web.populated()
    web.close()


def test_a_successor_finds_the_place_of_its_predecessor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()

    def offered(name: str) -> None:
        here = Place(v2=str(tmp_path / name), v1={"cpu": "/x"}, detail=name)
        monkeypatch.setattr(module, "this_place", lambda _policy, _run: here)

    offered("one")
    first, place = open_cgroups("auto", str(run))
    assert first is not None
    assert place.v2 == str(tmp_path / "one")
    first.create("web", 0).close()
    offered("two")
    second, place = open_cgroups("auto", str(run))
    assert second is not None
    assert (place.v2, place.v1) == (str(tmp_path / "one"), {"cpu": "/x"})
    (tmp_path / "one" / "web.0").rmdir()
    third, place = open_cgroups("auto", str(run))
    assert third is not None
    assert place.v2 == str(tmp_path / "two")
    for rubbish in ("", "[]", json.dumps({"v2": 1, "v1": 2})):
        (run / "cgroup.json").write_text(rubbish)
        assert open_cgroups("auto", str(run))[1].v2 == str(tmp_path / "two")


def test_a_place_that_cannot_be_made_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    here = Place(v2=str(tmp_path / "file" / "below"))
    monkeypatch.setattr(module, "this_place", lambda _policy, _run: here)
    cgroups, place = open_cgroups("auto", str(tmp_path))
    assert cgroups is None
    assert place.v2 == ""
    assert "cannot make" in place.detail
