"""What is handed to a program: how it is told of it, and what a change of it means."""

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.services import delivery
from atlasd.services.spec import Delivery, KnownSecret, OnChange, ServiceSpec


def handed(name: str, value: str = "x", kind: str = "file", path: str = "") -> Delivery:
    content = base64.b64encode(value.encode()).decode()
    return Delivery(name=name, kind=kind, path=path, content=content)


SPEC = ServiceSpec(
    name="web",
    command=("web",),
    deliveries=(handed("CERT"), handed("TOKEN", kind="fd"), handed("URL", kind="env")),
)


def test_each_kind_is_told_in_its_own_way() -> None:
    found = delivery.variables(
        (
            handed("CERT", path="cert.pem"),
            handed("DB"),
            handed("TOKEN", kind="fd"),
            handed("URL", "a{instance}b", kind="env"),
        ),
        "/run/x",
    )
    assert found == {
        "SECRETS_DIR": "/run/x",
        "CERT_FILE": "/run/x/cert.pem",
        "DB_FILE": "/run/x/DB",
        "URL": "a{instance}b",
    }
    assert delivery.files((handed("CERT", "c", path="cert.pem"), handed("T", kind="fd"))) == {
        "cert.pem": b"c"
    }
    assert delivery.variables((handed("T", kind="fd"),), "/run/x") == {}


@given(st.binary())
def test_any_bytes_are_delivered_as_they_are(data: bytes) -> None:
    one = Delivery(name="A", content=base64.b64encode(data).decode())
    assert delivery.content(one) == data
    assert delivery.files((one,)) == {"A": data}


def test_what_is_no_base64_is_refused_and_not_shown() -> None:
    one = Delivery(name="A", content="hunter2!")
    with pytest.raises(ValueError, match="delivered as A is no base64") as caught:
        delivery.content(one)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "a/b", ".", "..", "a\0b"])
def test_no_file_leaves_its_folder(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a file"):
        delivery.files((handed("A", path=name),))


def test_no_value_shows_in_a_repr() -> None:
    known = KnownSecret(name="URL", value="hunter2")
    shown = repr(replace(SPEC, env={"A": "hunter2"}, secrets=(known,)))
    for one in (shown, repr(known), repr(SPEC.deliveries[0])):
        assert SPEC.deliveries[0].content not in one
        assert "hunter2" not in one


# ---------------------------------------------------------------------- what has changed


def test_contents_are_no_part_of_the_definition_but_files_and_descriptors_are() -> None:
    other = replace(SPEC, deliveries=tuple(replace(d, content="eQ==") for d in SPEC.deliveries))
    assert other.digest() == SPEC.digest()
    assert delivery.digest(other.deliveries) != delivery.digest(SPEC.deliveries)
    more = (*SPEC.deliveries, handed("MORE"))
    moved = (replace(SPEC.deliveries[0], path="elsewhere"), *SPEC.deliveries[1:])
    for deliveries in (SPEC.deliveries[1:], more, moved):
        assert replace(SPEC, deliveries=deliveries).digest() != SPEC.digest()
    variable = (*SPEC.deliveries, handed("MORE", kind="env"))
    assert replace(SPEC, deliveries=variable).digest() == SPEC.digest()
    assert replace(SPEC, deliveries=SPEC.deliveries[::-1]).digest() == SPEC.digest()


def test_a_service_that_is_handed_nothing_has_the_digest_that_it_always_had() -> None:
    # An upgrade in place must not find every service changed.
    assert ServiceSpec(name="web", command=("web", "-x")).digest() == "948ec208a3d7212a"


contents = st.dictionaries(st.sampled_from("ABCD"), st.sampled_from(["1", "2"]), max_size=4)


@given(contents, contents)
def test_the_names_that_differ_are_those_whose_contents_do(
    old: dict[str, str], new: dict[str, str]
) -> None:
    before, after = (tuple(handed(n, v) for n, v in c.items()) for c in (old, new))
    found = delivery.differing(delivery.fingerprints(before), delivery.fingerprints(after))
    assert found == tuple(sorted(n for n in old | new if old.get(n) != new.get(n)))
    assert (delivery.digest(before) == delivery.digest(after)) == (old == new)


def test_what_is_done_is_said_in_words() -> None:
    def words(kind: str, *names: str) -> str:
        return delivery.in_words(replace(SPEC, on_change=OnChange(kind=kind)), names)

    assert words("restart", "CERT", "URL") == "changed: CERT, URL"
    assert words("none", "CERT") == "changed: CERT; the next start has it"
    assert words("reload", "CERT") == "changed: CERT; the program reloads"
    assert words("signal", "CERT") == "changed: CERT; the program is sent HUP"
    assert words("swap", "CERT", "TOKEN") == (
        "changed: CERT, TOKEN; files are exchanged, nobody is told; "
        "the running process keeps its TOKEN, the next start has it"
    )
    assert words("signal", "URL") == (
        "changed: URL; the running process keeps its URL, the next start has it"
    )
    assert words("restart") == "changed: what it is handed"
