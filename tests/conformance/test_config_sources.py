"""Every configuration source that is shipped keeps what a source promises."""

from datetime import date
from typing import Any

import pytest

from atlasd.contracts.config import ConfigSource
from atlasd.testing.config_sources import ConfigSourceSuite
from atlasd.testing.descriptors import load_module
from atlasd_plugins import config_toml


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
