"""Whatever stands in a configuration, the answer is a configuration or a list of problems."""

import dataclasses
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlasd.config import rules
from atlasd.config.problems import Findings, report
from atlasd.config.shape import Shape, at
from atlasd.config.surroundings import examine
from atlasd.config.validate import validate
from atlasd.contracts.config import KeyPath, Layer
from atlasd.errors import AtlasError
from tests.unit.config.desk import ENVIRON, Desk, FakeHost

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["30s", "1MiB", "TERM", "0660", "web", "db:ready", "always", "tcp://127.0.0.1:80", "true"]
    ),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
    st.dates(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def values_for(shape: Shape | None, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that often have the shape that the schema wants, and often not."""
    if shape is None or depth > 4:
        return VALUES
    if shape.model is not None:
        known = {key: values_for(shape.child(key), depth + 1) for key in shape.keys}
        return st.one_of(st.fixed_dictionaries({}, optional=known), VALUES)
    return VALUES


SERVICES = st.dictionaries(
    st.sampled_from(["web", "db", "Bad", "x y"]),
    values_for(at(("services", "web"))),
    max_size=3,
)


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({}, optional={"services": SERVICES, "host": VALUES, "more": VALUES}))
def test_no_data_breaks_validation(data: dict[str, Any]) -> None:
    findings = Findings(Layer(origin="fuzz.toml", data=data))
    validated = validate(data, findings, None)
    declared = data.get("services")
    rules.examine(validated.settings, list(declared) if declared else [], findings)
    examine(validated.settings.services, findings, FakeHost(), ENVIRON, folder_of=lambda _path: "/")
    for problem in findings.problems:
        assert problem.file == "fuzz.toml"
        assert "\n" not in str(problem)
        assert problem.expected or problem.got
    assert report(findings.problems).count("\n") == max(len(findings.problems) - 1, 0)


SECRET_KEYS = st.sampled_from(
    ["password", "db_password", "api_key", "token", "client_secret", "DSN", "auth", "PGPASSWORD"]
)


@given(SECRET_KEYS, st.from_regex(r"[a-z0-9]{12,40}", fullmatch=True), st.booleans())
def test_what_may_be_a_secret_is_never_repeated(key: str, value: str, listed: bool) -> None:
    given_value: Any = [value] if listed else value
    data = {
        "host": {key: given_value},
        "services": {"web": {"command": "true", "env": {key: [value], "A": {key: value}}}},
        "plugins": {"x": value},
        "checks": {"c": {"type": ["x"], key: value}},
    }
    findings = Findings(Layer(origin="x.toml", data=data))
    validate(data, findings, None)
    said = "\n".join(
        line for line in report(findings.problems).splitlines() if "plugins" not in line
    )
    assert "host" in said
    assert value not in said


LAYER = st.dictionaries(
    st.sampled_from(["services", "host", "checks", "secrets+", "log-", "extends", "x"]),
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-5, 5),
            st.sampled_from(["web", "secret://db", "${env:HOME}", "${?env:X}", "30s", ""]),
            st.just({"unset": True}),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(
                    ["web", "db", "command", "requires", "requires+", "env-", "env", "id", "nice"]
                ),
                inner,
                max_size=4,
            ),
        ),
        max_leaves=12,
    ),
    max_size=4,
)
NAMES = st.lists(
    st.sampled_from(["SERVICES", "WEB", "ENV", "NICE", "HOST", "LOG", "LEVEL", "X", ""]), max_size=5
).map("__".join)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(LAYER, min_size=3, max_size=3),
    st.dictionaries(
        NAMES, st.sampled_from(["1", "x", "[1]", "{}", "{unset=true}", ""]), max_size=3
    ),
    st.lists(
        st.sampled_from(["log.level=x", "a", "services.web.requires+=[1]", "x.y=1"]), max_size=2
    ),
)
def test_whatever_the_layers_say_the_answer_is_a_configuration_or_problems(
    desk: Desk, layers: list[dict[str, Any]], variables: dict[str, str], words: list[str]
) -> None:
    places = ("atlasd.json", "conf.d/a.json", "environments/production.json")
    for name, data in zip(places, layers, strict=True):
        desk.write(json.dumps(data), name)
    tried = dataclasses.replace(
        desk,
        paths=dataclasses.replace(desk.paths, config=f"{desk.etc}/atlasd.json"),
        environ=desk.environ | {f"ATLASD__{name}": text for name, text in variables.items()},
        overrides=tuple(words),
    )
    try:
        problems = tried.check()
    except AtlasError as error:
        if error.code != "config.environment":
            raise
        return
    errors = [problem for problem in problems if not problem.warning]
    assert all(problem.file and (problem.expected or problem.got) for problem in problems)
    if not errors:
        config = tried.load()
        for path in leaves_of(config.data):
            assert config.origin(path).origin
            assert config.layer_of(path)


def leaves_of(data: Any, path: KeyPath = ()) -> list[KeyPath]:
    found = [path] if path else []
    for key, value in data.items() if isinstance(data, dict) else ():
        found += leaves_of(value, (*path, key))
    return found
