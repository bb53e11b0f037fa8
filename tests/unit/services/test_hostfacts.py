"""What is said of a host, from what was found there."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from atlasd.services import hostfacts, procinfo
from atlasd.services.cgroup_place import Place
from atlasd.services.hostfacts import Capabilities, detect, effective_capabilities, filesystem_of

NOWHERE = Place(detail="switched off: host.cgroup is off", hint="switch it on")


def found(place: Place = NOWHERE, environ: Mapping[str, str] | None = None) -> Capabilities:
    return detect(place=place, environ=environ or {})


def test_everything_is_told_in_a_fixed_order_and_goes_over_the_wire() -> None:
    told = found()
    assert [one.name for one in told.found] == list(hostfacts.WITHOUT)
    assert list(told.to_wire()) == list(hostfacts.WITHOUT)
    assert set(told.to_wire()["gzip"]) == {"available", "detail", "reduced", "hint"}


def test_what_is_missing_names_what_is_reduced_and_how_to_get_it() -> None:
    told = found()
    for one in told.found:
        assert bool(one.reduced) == (not one.available), one
        assert bool(one.hint) == (not one.available), one
    assert set(told.reduced()) == {one for one in told.found if not one.available}


def test_without_a_cgroup_nothing_of_it_is_there_and_the_reason_is_told() -> None:
    told = found()
    for name in ("cgroup-v2", "cgroup-memory", "cgroup-cpu", "cgroup-kill", "clone-into-cgroup"):
        assert not told.has(name)
    assert told["cgroup-v2"].detail == NOWHERE.detail
    assert told["cgroup-v2"].hint == "switch it on"


def test_controllers_of_either_version_count(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io\n")
    (tmp_path / "cgroup.kill").touch()
    place = Place(v2=f"{tmp_path}/services", v1={"memory": "/x"}, detail="here")
    told = found(place)
    assert told["cgroup-v2"].detail == "here"
    assert told["cgroup-cpu"].detail == "version 2"
    assert "version 1" in told["cgroup-memory"].detail
    assert told.has("cgroup-memory")
    assert not told.has("cgroup-pids")
    assert told.has("cgroup-kill")


def test_what_systemd_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atlasd.services.cgroup_place.systemd_booted", lambda: True)
    monkeypatch.setattr(hostfacts, "systemd_version", lambda: 252)
    unit = {"INVOCATION_ID": "x", "NOTIFY_SOCKET": "/run/systemd/notify"}
    told = found(environ={**unit, "WATCHDOG_USEC": "3000000"})
    assert told["systemd"].detail == "started by systemd 252"
    assert told.has("systemd")
    assert told.has("notify-socket")
    assert told.has("fd-store")
    assert "does not say" in told["fd-store"].detail
    assert told["watchdog"].detail == "3 s"
    shell = found()
    assert not shell.has("systemd")
    assert "not started by it" in shell["systemd"].detail
    assert not shell.has("fd-store")
    assert not shell.has("watchdog")


@pytest.mark.parametrize(("announced", "there"), [("4096", True), ("0", False)])
def test_a_newer_systemd_announces_its_store(
    monkeypatch: pytest.MonkeyPatch, announced: str, there: bool
) -> None:
    monkeypatch.setattr("atlasd.services.cgroup_place.systemd_booted", lambda: True)
    monkeypatch.setattr(hostfacts, "systemd_version", lambda: 257)
    assert found(environ={"NOTIFY_SOCKET": "/n", "FDSTORE": announced}).has("fd-store") is there
    assert not found(environ={"NOTIFY_SOCKET": "/n"}).has("fd-store")


def test_the_version_of_systemd_is_in_the_name_of_its_library(tmp_path: Path) -> None:
    assert hostfacts.systemd_version((str(tmp_path), "/nonexistent")) is None
    (tmp_path / "libsystemd-core-252.so").touch()
    (tmp_path / "libsystemd-shared-252.38-1.so").touch()
    assert hostfacts.systemd_version((str(tmp_path),)) == 252


def test_rights_are_read_from_the_kernels_mask() -> None:
    status = "Name:\tx\nCapInh:\tffff\nCapEff:\t00000000000000c0\nCapBnd:\tffff\n"
    assert effective_capabilities(status) == {"setuid", "setgid"}
    assert effective_capabilities("CapEff:\t000001ffffffffff\n") >= {"sys_resource", "kill"}
    assert effective_capabilities("") == frozenset()


def test_root_without_its_rights_is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostfacts, "effective_capabilities", lambda _text: frozenset({"kill"}))
    told = found()
    assert not told.has("root")
    assert not told.has("raise-limits")


def test_the_file_system_of_a_path() -> None:
    mountinfo = (
        "1 0 8:1 / / rw - ext4 /dev/vda rw\n"
        "2 1 0:5 / /run rw shared:1 - tmpfs tmpfs rw\n"
        "3 2 0:6 / /run/my\\040disk rw - xfs /dev/vdb rw\n"
    )
    assert filesystem_of("/run/atlasd", mountinfo) == "tmpfs"
    assert filesystem_of("/run", mountinfo) == "tmpfs"
    assert filesystem_of("/running", mountinfo) == "ext4"
    assert filesystem_of("/run/my disk/x", mountinfo) == "xfs"
    assert filesystem_of("/anything", "") == ""


def test_a_clone3_that_is_forbidden_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hostfacts, "_clone3_refusal", lambda: "clone3: Function not implemented")
    told = found(Place(v2=f"{tmp_path}/services"))
    assert not told.has("clone-into-cgroup")
    assert "not implemented" in told["clone-into-cgroup"].detail


def test_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError):
        found().has("warp-drive")


def test_looking_costs_no_descriptor_and_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostfacts, "_known_exit_info", None)
    before = len(list(Path("/proc/self/fd").iterdir()))
    children = set(procinfo.children(os.getpid()))
    release = tuple(int(p) for p in os.uname().release.split(".")[:2])
    assert found().has("pidfd-exit-info") == (release >= (6, 15))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert set(procinfo.children(os.getpid())) <= children
