"""Templates: what they can do, what they can't, and how they say so."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from atlasd.settings.render import CannotRenderError
from atlasd.settings.template import Template

VALUES: dict[str, Any] = {
    "db": {"host": "db", "password": "it's s3cret"},
    "tags": ["a", "<b>"],
    "on": True,
}


def write(folder: Path, text: str) -> Path:
    (folder / "shop.conf.j2").write_text(text)
    return folder / "shop.conf.j2"


def test_a_template_writes_a_file_as_it_stands(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "host {{ db.host }}\n"
        "{% for tag in tags %}tag {{ tag|json }};\n{% endfor %}"
        "password {{ db.password|shell }}\n"
        "env {{ db.password|env('systemd') }} {{ tags|env }}\n",
    )
    assert Template(path).render(VALUES, []) == (
        'host db\ntag "a";\ntag "<b>";\n'
        "password 'it'\"'\"'s s3cret'\n"
        'env "it\'s s3cret" \'["a","<b>"]\'\n'
    )


def test_it_may_include_its_neighbours_which_are_then_known(tmp_path: Path) -> None:
    (tmp_path / "head").write_text("# head\n")
    template = Template(write(tmp_path, "{% include 'head' %}x"))
    assert template.render({}, []) == "# head\nx"
    assert template.files == [str(tmp_path / "shop.conf.j2"), str(tmp_path / "head")]
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(CannotRenderError, match=r"shop\.conf\.j2:1"):
        Template(write(inner, "{% include '../head' %}")).render({}, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n{{ db.hsot }}", "shop.conf.j2:2: 'dict object' has no attribute 'hsot'"),
        ("a\n\n{{ nothing }}", "shop.conf.j2:3: 'nothing' is undefined"),
        ("a\n{% if %}", "shop.conf.j2:2: "),
        ("{{ db.__class__.__mro__ }}", "shop.conf.j2:1: "),
        ("\n{{ tags.append(1) }}", "shop.conf.j2:2: "),
        ("{{ 1 / 0 }}", "shop.conf.j2:1: division by zero"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CannotRenderError) as caught:
        Template(write(tmp_path, text)).render(VALUES, [])
    assert said in str(caught.value)


def test_no_secret_is_in_what_is_told(tmp_path: Path) -> None:
    template = Template(write(tmp_path, "{{ tags[db.password] }}{{ db[db.password] }}"))
    with pytest.raises(CannotRenderError) as caught:
        template.render(VALUES, ["it's s3cret"])
    assert "s3cret" not in str(caught.value)
    assert "shop.conf.j2:1" in str(caught.value)


def test_a_template_without_end_is_ended(tmp_path: Path) -> None:
    loops = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"
    with pytest.raises(CannotRenderError, match="larger than 4 MiB"):
        Template(write(tmp_path, loops)).render({}, [], clock=lambda: 0.0)
    seconds = itertools.count()
    with pytest.raises(CannotRenderError, match="longer than 5 s"):
        Template(write(tmp_path, loops)).render({}, [], clock=lambda: float(next(seconds)))
