"""Which services a secret reaches."""

from atlasd.contracts.config import KeyPath
from atlasd.contracts.secrets import Reference
from atlasd.secrets.impact import Consumer, reached

DB = Reference(name="db")
USES: dict[KeyPath, tuple[Reference, ...]] = {
    ("services", "web", "secrets", "PW", "value"): (Reference(name="db", field="password"),),
    ("services", "web", "env", "OTHER"): (Reference(name="other"),),
    ("services", "jobs", "env", "DSN"): (Reference(name="db", backend="vault"), DB),
    ("settings", "shop", "values", "dsn"): (Reference(name="db", backend="ring"),),
    ("settings", "alone", "values", "dsn"): (DB,),
    ("checks", "db", "dsn"): (DB,),
    ("plugins", "shop", "dsn"): (DB,),
    ("secrets", "backends", "vault", "token"): (DB,),
    ("host", "log_budget"): (DB,),
}
CONSUMERS = (
    Consumer(name="jobs"),
    Consumer(name="mail", settings=("shop",), on_change="swap"),
    Consumer(name="idle"),
    Consumer(name="web", settings=("shop",), on_change="reload"),
)


def names(backend: str, name: str) -> list[tuple[str, str]]:
    found = reached(backend, name, default_backend="ring", uses=USES, consumers=CONSUMERS)
    return [(one.kind, one.name) for one in found]


def test_everything_that_refers_to_it_is_found_once() -> None:
    assert names("ring", "db") == [
        ("service", "jobs"),
        ("service", "mail"),
        ("service", "web"),
        ("backend", "vault"),
        ("check", "db"),
        ("plugin", "shop"),
        ("setting", "alone"),
        ("setting", "host.log_budget"),
    ]


def test_secrets_of_the_same_name_elsewhere_are_others() -> None:
    assert names("vault", "db") == [("service", "jobs")]
    assert names("ring", "nothing") == []
    assert names("ring", "other") == [("service", "web")]


def test_what_is_done_with_a_service_is_told() -> None:
    found = reached("ring", "db", default_backend="ring", uses=USES, consumers=CONSUMERS)
    effects = {one.name: one.effect for one in found if one.kind == "service"}
    assert effects == {
        "jobs": "restart, by `atlasctl apply`",
        "mail": "its files are exchanged; nobody is told",
        "web": "told to reload, one instance after the other",
    }
    (web,) = (one for one in found if one.name == "web")
    assert web.keys == (
        ("services", "web", "secrets", "PW", "value"),
        ("settings", "shop", "values", "dsn"),
    )
