"""Specifications: what survives the wire, and which changes need a new process."""

from dataclasses import fields, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from atlasd.services.spec import (
    RESTART_FIELDS,
    Edge,
    Hook,
    HostPolicy,
    Limits,
    Log,
    Probe,
    Reload,
    Restart,
    ServiceSpec,
    Socket,
    Stop,
    policy_from_wire,
    spec_from_wire,
    to_wire,
)

SPEC = ServiceSpec(
    name="web", command=("web",), env={"A": "1", "PATH": "/bin"}, inherited=("PATH",)
)

words = st.text(max_size=8)
specs = st.builds(
    ServiceSpec,
    name=words,
    command=st.lists(words, min_size=1, max_size=3).map(tuple),
    instances=st.integers(0, 9),
    edges=st.lists(st.builds(Edge, service=words), max_size=3).map(tuple),
    sockets=st.lists(st.builds(Socket, name=words, address=words), max_size=2).map(tuple),
    ready=st.none() | st.builds(Probe, kind=st.sampled_from(["notify", "http", "fd"])),
    stop=st.builds(
        Stop, escalation=st.lists(st.tuples(words, st.floats(0, 9)), max_size=2).map(tuple)
    ),
    restart=st.builds(Restart, no_restart_codes=st.lists(st.integers(0, 255)).map(tuple)),
    reload=st.builds(Reload, command=st.lists(words).map(tuple)),
    limits=st.builds(
        Limits, memory=st.none() | st.integers(1, 2**40), cpu=st.none() | st.floats(0.1, 9)
    ),
    log=st.builds(Log, compress=st.booleans()),
    env=st.dictionaries(words, words, max_size=4),
    user=st.none() | words,
    umask=st.none() | st.integers(0, 0o777),
    pre_start=st.lists(
        st.builds(Hook, command=st.lists(words, min_size=1).map(tuple)), max_size=2
    ).map(tuple),
)


@given(specs)
def test_the_wire_gives_back_what_it_was_given(spec: ServiceSpec) -> None:
    assert spec_from_wire(to_wire(spec)) == spec


def test_a_policy_crosses_the_wire_too() -> None:
    policy = HostPolicy(restart_rate=2.5, restart_burst=7, log_budget=1, cgroup="off")
    assert policy_from_wire(to_wire(policy)) == policy


def test_another_version_is_read_as_far_as_it_is_understood() -> None:
    body = to_wire(SPEC)
    body["from_the_future"] = 1
    del body["critical"]
    assert spec_from_wire(body) == SPEC


def test_only_fields_of_a_process_need_a_new_one() -> None:
    changes: dict[str, Any] = {
        "critical": True,
        "instances": 3,
        "stop": Stop(timeout=1),
        "limits": Limits(memory=1),
    }
    for name, value in changes.items():
        assert replace(SPEC, **{name: value}).digest() == SPEC.digest(), name
    needed: dict[str, Any] = {"command": ("x",), "env": {"A": "2"}, "cwd": "/x", "nice": 5}
    for name, value in needed.items():
        assert replace(SPEC, **{name: value}).digest() != SPEC.digest(), name
    assert replace(SPEC, limits=Limits(nofile=9)).digest() != SPEC.digest()
    assert replace(SPEC, ready=Probe(kind="notify")).digest() != SPEC.digest()
    assert set(RESTART_FIELDS) <= {f.name for f in fields(ServiceSpec)}


def test_what_is_inherited_is_no_change() -> None:
    elsewhere = replace(
        SPEC, env={"A": "1", "PATH": "/usr/bin", "LANG": "C"}, inherited=("PATH", "LANG")
    )
    assert elsewhere.digest() == SPEC.digest()
    assert elsewhere.changed(SPEC) == ()
    own = replace(SPEC, env={"A": "1", "PATH": "/usr/bin"}, inherited=())
    assert own.digest() != SPEC.digest()
    assert "env" in own.changed(SPEC)
