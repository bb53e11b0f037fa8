"""Every configuration source that is shipped keeps what a source promises."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from atlasd.contracts.config import ConfigSource, Layer
from atlasd.testing.config_sources import ORIGIN, ConfigSourceSuite
from atlasd.testing.descriptors import load_module
from atlasd_plugins import (
    config_dotenv,
    config_environ,
    config_json,
    config_toml,
    config_yaml,
)


class TestToml(ConfigSourceSuite):
    @pytest.fixture
    def source(self) -> ConfigSource:
        return load_module(config_toml, ConfigSource, "toml")

    @pytest.fixture
    def document(self) -> str:
        return (
            '[host]\nenvironment = "production"  # a comment\n\n[services.web]\n'
            'command = ["gunicorn", "shop:app"]\nlimits = { cpu = 1.5, tasks = 100 }\n'
            "since = 2026-11-23\nenv.LOG_LEVEL = 'info'\n"
        )

    @pytest.fixture
    def expected(self) -> dict[str, Any]:
        return {
            "host": {"environment": "production"},
            "services": {
                "web": {
                    "command": ["gunicorn", "shop:app"],
                    "limits": {"cpu": 1.5, "tasks": 100},
                    "since": date(2026, 11, 23),
                    "env": {"LOG_LEVEL": "info"},
                }
            },
        }

    @pytest.fixture
    def broken(self) -> tuple[str, int]:
        return "[host]\n\nenvironment = production\n", 3


class TestYaml(ConfigSourceSuite):
    @pytest.fixture
    def source(self) -> ConfigSource:
        return load_module(config_yaml, ConfigSource, "yaml")

    @pytest.fixture
    def document(self) -> str:
        return (
            "host: {environment: production}  # a comment\n\nservices:\n  web: &web\n"
            "    command:\n    - gunicorn\n    - 'shop:app'\n"
            '    env: {LOG_LEVEL: "info"}\n'
            "    limits:\n      cpu: 1.5\n      tasks: 0x64\n      none: ~\n"
            "  api:\n    <<: *web\n    critical: true\n    text: |\n      two\n      lines\n"
        )

    @pytest.fixture
    def expected(self) -> dict[str, Any]:
        web = {
            "command": ["gunicorn", "shop:app"],
            "env": {"LOG_LEVEL": "info"},
            "limits": {"cpu": 1.5, "tasks": 100, "none": None},
        }
        api = {"critical": True, "text": "two\nlines\n", **web}
        return {"host": {"environment": "production"}, "services": {"web": web, "api": api}}

    @pytest.fixture
    def broken(self) -> tuple[str, int]:
        return "host:\n  environment: production\n environment: x\n", 3


class TestYamlWithFaults(TestYaml):
    """What could be read all the same is told of in the same way."""

    @pytest.fixture
    def broken(self) -> tuple[str, int]:
        return "host:\n  a: 1\n  b: 2\n  a: 3\n", 4


class TestJson(ConfigSourceSuite):
    @pytest.fixture
    def source(self) -> ConfigSource:
        return load_module(config_json, ConfigSource, "json")

    @pytest.fixture
    def document(self) -> str:
        return (
            '{"host": {"environment": "production"},\n "services": {\n'
            '  "web": {"command": ["gunicorn", "shop:app"], "limits": {"cpu": 1.5, "tasks": 1e2},\n'
            '          "critical": true, "user": null, "text": "gr\\u00f6\\u00dfe\\n"}\n}}\n'
        )

    @pytest.fixture
    def expected(self) -> dict[str, Any]:
        web = {
            "command": ["gunicorn", "shop:app"],
            "limits": {"cpu": 1.5, "tasks": 100.0},
            "critical": True,
            "user": None,
            "text": "größe\n",
        }
        return {"host": {"environment": "production"}, "services": {"web": web}}

    @pytest.fixture
    def broken(self) -> tuple[str, int]:
        return '{"host": {\n  "environment": production\n}}\n', 2


class DotenvSuite(ConfigSourceSuite):
    """What holds for each dialect."""

    dialect = ""

    @pytest.fixture
    def source(self) -> ConfigSource:
        return load_module(config_dotenv, ConfigSource, "dotenv")

    @pytest.fixture
    def read(self, source: ConfigSource) -> Callable[[str], Layer]:
        parse = source.dialects[self.dialect]
        return lambda text: parse(text, ORIGIN, {"HOME": "/root"})


class TestBash(DotenvSuite):
    dialect = "bash"

    @pytest.fixture
    def document(self) -> str:
        return "# shop\nexport A='one two'\"$HOME\" B=2\nC=${B:-3}${D:-x y}\nE=$'a\\tb'\n"

    @pytest.fixture
    def expected(self) -> dict[str, Any]:
        return {"A": "one two/root", "B": "2", "C": "2x y", "E": "a\tb"}

    @pytest.fixture
    def broken(self) -> tuple[str, int]:
        return "A=1\n\nB=$(date)\n", 3


class TestDocker(DotenvSuite):
    dialect = "docker"

    @pytest.fixture
    def document(self) -> str:
        return "# shop\nA= 'one' # two \n  B.c=$HOME\nHOME\n"

    @pytest.fixture
    def expected(self) -> dict[str, Any]:
        return {"A": " 'one' # two ", "B.c": "$HOME", "HOME": "/root"}

    @pytest.fixture
    def broken(self) -> tuple[str, int]:
        return "A=1\nB C=2\n", 2


class TestCompose(DotenvSuite):
    dialect = "compose"

    @pytest.fixture
    def document(self) -> str:
        return (
            '# shop\nexport A=one two # three\nB: \'${A}\n  four\'\nC="$A \\"five\\"\\n"\n'
            "D=$$A ${HOME} ${E:-six}\nHOME\n"
        )

    @pytest.fixture
    def expected(self) -> dict[str, Any]:
        return {
            "A": "one two",
            "B": "${A}\n  four",
            "C": 'one two "five"\n',
            "D": "$A /root six",
            "HOME": "/root",
        }

    @pytest.fixture
    def broken(self) -> tuple[str, int]:
        return "A=1\nB='two\n", 2


class TestSystemd(DotenvSuite):
    dialect = "systemd"

    @pytest.fixture
    def document(self) -> str:
        return (
            '; shop\n# shop\nA= one two # three \nB=\'$HOME\n four\' \nC="\\"five\\" \\n"\n'
            "D=six \\\n seven\\ \n"
        )

    @pytest.fixture
    def expected(self) -> dict[str, Any]:
        return {
            "A": "one two # three",
            "B": "$HOME\n four",
            "C": '"five" \\n',
            "D": "six  seven ",
        }

    @pytest.fixture
    def broken(self) -> tuple[str, int]:
        return "A=1\n\nexport B=2\n", 3


def test_variables_are_named_after_the_schema() -> None:
    source = load_module(config_environ, ConfigSource, "environ")
    assert source.suffixes == ()
    assert source.name_settings is not None
