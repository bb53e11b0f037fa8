from atlasd.core.doctor import examine


def test_what_the_services_role_found_is_told_in_its_order_and_words() -> None:
    said = {
        "systemd": {"available": True, "detail": "252", "reduced": "", "hint": ""},
        "root": {"available": False, "detail": "user 7", "reduced": "no users", "hint": "be root"},
        "odd": True,
    }
    found = [capability.to_wire() for capability in examine(said, why_not="")]
    assert [one["name"] for one in found][:4] == ["services-role", "systemd", "root", "odd"]
    assert found[0]["available"] is True
    assert found[2] == {
        "name": "root",
        "available": False,
        "detail": "user 7",
        "reduced": "no users",
        "hint": "be root",
    }


def test_without_the_services_role_it_says_that_first_and_why() -> None:
    first, *rest = [c.to_wire() for c in examine(None, why_not="Connection refused")]
    assert (first["name"], first["available"]) == ("services-role", False)
    assert first["detail"] == "Connection refused"
    assert "start atlas-services" in first["hint"]
    assert rest


def test_what_is_there_reduces_nothing_and_what_is_missing_says_what_and_how() -> None:
    for one in (c.to_wire() for c in examine({}, why_not="", group="no-such-group")):
        if one["available"]:
            assert (one["reduced"], one["hint"]) == ("", "")
        else:
            assert one["reduced"]
            assert one["hint"]
