"""The parser of references: what it takes apart, it can put together; nonsense is explained."""

import base64
import json
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.config import references
from atlasd.config.references import Encrypted, Placeholder, Template, address, filtered, parse
from atlasd.config.units import WrongValueError
from atlasd.contracts.secrets import Reference

BACKENDS = ("aws", "fernet", "vault2")
WORD = st.from_regex(r"[A-Za-z0-9_+=-][A-Za-z0-9_.+=-]{0,12}", fullmatch=True)
NAMES = st.lists(WORD, min_size=1, max_size=4).map("/".join)
SELECTORS = st.just("") | st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True)
FIELDS = st.just("") | st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="|{}#"), min_size=1, max_size=9
)
REFERENCES = st.builds(
    Reference,
    name=NAMES,
    backend=st.sampled_from(["", *BACKENDS]),
    selector=SELECTORS,
    field=FIELDS,
).filter(lambda r: r.backend or "/" not in r.name or r.name.split("/")[0] not in BACKENDS)
FILTERS = st.lists(st.sampled_from(sorted(references.FILTERS)), max_size=3).map(tuple)
PLACEHOLDERS = st.one_of(
    st.builds(
        Placeholder,
        kind=st.just("secret"),
        what=REFERENCES.map(lambda r: str(r).removeprefix("secret://")),
        filters=FILTERS,
        optional=st.booleans(),
    ),
    st.builds(
        Placeholder,
        kind=st.just("env"),
        what=st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True),
        filters=FILTERS,
        optional=st.booleans(),
    ),
    st.builds(
        Placeholder,
        kind=st.just("file"),
        what=st.text(
            st.characters(exclude_categories=["C"], exclude_characters="|}~"),
            min_size=1,
            max_size=20,
        ),
        filters=FILTERS,
        optional=st.booleans(),
    ),
    st.builds(
        Placeholder,
        kind=st.just("cfg"),
        what=st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8}(\[[0-9]\])?){0,3}", fullmatch=True),
        filters=FILTERS,
        optional=st.booleans(),
    ),
)
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("${}?:|"), max_size=20)


def parts_of(text: str) -> tuple[object, ...]:
    template = parse(text)
    return (text,) if template is None else template.parts


@given(REFERENCES)
def test_an_address_that_was_written_is_read_as_it_was(reference: Reference) -> None:
    text = str(reference)
    assert address(text.removeprefix("secret://"), BACKENDS) == reference
    template = parse(text)
    assert template is not None
    assert template.whole == Placeholder(kind="secret", what=text.removeprefix("secret://"))


@given(st.lists(TEXTS | PLACEHOLDERS, max_size=6))
def test_a_text_is_taken_apart_into_what_it_was_made_of(
    pieces: list[str | Placeholder],
) -> None:
    expected: list[str | Placeholder] = []
    for piece in pieces:
        if not isinstance(piece, str):
            if expected and isinstance(expected[-1], str):
                # A $ in front of a reference would make it an escape.
                expected[-1] = expected[-1].rstrip("$") or " "
            expected.append(piece)
        elif expected and isinstance(expected[-1], str):
            expected[-1] += piece
        elif piece:
            expected.append(piece)
    written = "".join(
        references.escape(piece) if isinstance(piece, str) else str(piece) for piece in expected
    )
    if not written.startswith((references.SCHEME, references.SEALED)):
        assert parts_of(written) == (tuple(expected) or ("",))


@given(TEXTS)
def test_an_escaped_text_is_itself(text: str) -> None:
    if not text.startswith((references.SCHEME, references.SEALED)):
        assert "".join(map(str, parts_of(references.escape(text)))) == text


@given(
    st.text(max_size=40)
    | st.lists(
        st.sampled_from(
            ["${", "$${", "}", "secret", "env", "file", "cfg", ":", "?", "|", "url", "secret://",
             "enc:v1:", "k1:", "db", "/", "@", "#", "x", " ", "\0", "\n", "é"]
        ),
        max_size=12,
    ).map("".join)
)  # fmt: skip
def test_nonsense_is_a_template_or_an_explanation(text: str) -> None:
    wrong: WrongValueError | None = None
    template = None
    try:
        template = parse(text)
    except WrongValueError as error:
        wrong = error
    if wrong is not None:
        assert wrong.expected
        assert wrong.got
        assert "\n" not in wrong.got
    elif template is None:
        assert "${" not in text
        assert not text.startswith(("secret://", "enc:v1:"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plain", ("plain",)),
        ("secret://db", (Placeholder(kind="secret", what="db"),)),
        (
            "secret://aws/prod/db@current#password",
            (Placeholder(kind="secret", what="aws/prod/db@current#password"),),
        ),
        (
            "postgres://app:${secret:prod/db#password|url}@db/app",
            (
                "postgres://app:",
                Placeholder(kind="secret", what="prod/db#password", filters=("url",)),
                "@db/app",
            ),
        ),
        (
            "${?env:X|trim|json}",
            (Placeholder(kind="env", what="X", filters=("trim", "json"), optional=True),),
        ),
        ("${file:/run/key}", (Placeholder(kind="file", what="/run/key"),)),
        ("${cfg:api.listen}", (Placeholder(kind="cfg", what="api.listen"),)),
        ("$${env:X}", ("${env:X}",)),
        ("$$${env:X}", ("$${env:X}",)),
        ("${HOME} ${HOME:-/root} ${x:?no} ${?X}", ("${HOME} ${HOME:-/root} ${x:?no} ${?X}",)),
        ("enc:v1:k1:abc=", (Encrypted(text="enc:v1:k1:abc=", key="k1"),)),
        ("see enc:v1:k1:abc=", ("see enc:v1:k1:abc=",)),
    ],
)
def test_a_text_and_its_parts(text: str, parts: tuple[object, ...]) -> None:
    assert parts_of(text) == parts


@pytest.mark.parametrize("text", ["${HOME:-hunter2}", "${", "${\nhunter2", "${A B}", "${?A}"])
def test_of_what_is_not_expanded_only_a_name_is_shown(text: str) -> None:
    template = parse(text)
    assert template is not None
    assert template.unexpanded == "${…"


def test_what_is_not_expanded_is_pointed_out() -> None:
    template = parse("${env:A} ${HOME} ${B}")
    assert isinstance(template, Template)
    assert template.unexpanded == "${HOME}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("secret://", "a name is missing"),
        ("secret:///db", "a name is missing"),
        ("secret://a//b", "a part of the name is empty"),
        ("secret://db password", "a name has letters"),
        ("secret://a/../b", "no part of a secret's name is . or .."),
        ("secret://db|url", "filters stand in a string's reference"),
        (f"secret://{'a' * 513}", "at most"),
        ("${secret://db}", "inside a string it is ${secret:db}"),
        ("${secret:}", "a name is missing"),
        ("${secrt:db}", "did you mean 'secret'?"),
        ("${secret:db|ulr}", "did you mean 'url'?"),
        ("${secret:db|}", "'' in ${secret:db|}"),
        ("${secret:db", "a } that closes"),
        ("${env:1X}", "the name of an environment variable"),
        ("${file:~/x}", "does not expand ~"),
        ("${file:}", "the path of a file"),
        ("${cfg:a..b}", "the key of another setting"),
        ("enc:v1:k1", "atlasctl config encrypt"),
    ],
)
def test_a_mistake_is_explained(text: str, says: str) -> None:
    with pytest.raises(WrongValueError) as caught:
        parse(text)
    error = caught.value
    assert says in f"{error.expected} {error.got} {error.hint}"


def test_what_follows_an_open_brace_is_not_repeated() -> None:
    with pytest.raises(WrongValueError) as caught:
        parse("${env:USER:hunter2-hunter2")
    assert "hunter2" not in f"{caught.value.expected} {caught.value.got} {caught.value.hint}"


@given(st.text())
def test_filters_can_be_undone(text: str) -> None:
    raw = text.encode(errors="surrogatepass")
    assert base64.b64decode(filtered(raw, ("base64",))) == raw
    assert unquote(filtered(raw, ("url",)), errors="surrogatepass") == text
    try:
        raw.decode()
    except UnicodeDecodeError:
        return
    assert json.loads(filtered(raw, ("json",))) == text


def test_filters_apply_in_their_order() -> None:
    assert filtered(b" a b \n", ("trim", "url")) == "a%20b"
    assert filtered(b"a\n", ("url", "trim")) == "a%0A"


@pytest.mark.parametrize(("value", "filters"), [(b"\xff", ()), (b"\xff", ("json",)), (b"a\0", ())])
def test_what_is_no_text_is_refused_without_being_shown(
    value: bytes, filters: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="text") as caught:
        filtered(value, filters)
    assert caught.value.__cause__ is None
    assert "xff" not in str(caught.value)
