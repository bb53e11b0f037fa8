"""What `atlasd run` says when it is up."""

from typing import Any

from atlasd.core.banner import banner

PLAIN: dict[str, Any] = {
    "version": "1.2.3",
    "environment": "production",
    "root": None,
    "programs": None,
    "api": "127.0.0.1:8000",
    "adopted": False,
    "status": "2 running",
    "services": ["shop", "packer"],
}


def test_it_says_what_runs_where_to_look_and_what_to_try() -> None:
    text = banner(**PLAIN)
    assert "atlasd 1.2.3 (production) is up; 2 running" in text
    assert "services: shop, packer" in text
    assert "  curl http://127.0.0.1:8000/health\n" in text
    assert "  atlasctl why shop " in text
    assert "kill -9 PID" in text
    assert "export" not in text


def test_a_root_and_programs_off_the_path_are_exported_first() -> None:
    text = banner(**PLAIN | {"root": "/srv/demo", "programs": "/opt/bin"})
    assert "  export ATLASD_ROOT=/srv/demo PATH=/opt/bin:$PATH\n  atlasctl status\n" in text


def test_without_an_api_no_address_is_made_up() -> None:
    assert "curl" not in banner(**PLAIN | {"api": ""})


def test_many_services_are_not_all_named() -> None:
    text = banner(**PLAIN | {"services": [f"s{number}" for number in range(20)]})
    assert "s7 and 12 more" in text
    assert "s8" not in text


def test_with_no_services_it_says_how_to_get_one() -> None:
    text = banner(**PLAIN | {"services": []})
    assert "add [services.NAME]" in text
    assert "atlasctl why NAME" in text


def test_services_that_were_adopted_are_mentioned() -> None:
    assert "running already" in banner(**PLAIN | {"adopted": True})
