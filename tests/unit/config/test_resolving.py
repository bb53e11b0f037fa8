"""References in a configuration: resolved, explained where they cannot be, and never shown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.config import resolving
from atlasd.config.load import Offers
from atlasd.config.problems import Findings, report
from atlasd.config.resolving import Around
from atlasd.contracts.checks import CheckType
from atlasd.contracts.config import Layer
from atlasd.contracts.secrets import (
    Reference,
    Resolved,
    RotatorType,
    Sealed,
    SecretBackend,
    SecretsPolicy,
    SecretValue,
)
from atlasd.contracts.settings import Settings
from atlasd.errors import AtlasError
from atlasd.services import delivery
from atlasd.services.spec import ServiceSpec
from tests.unit.config.desk import Desk, FakeHost

PASSWORD = "correct-horse-battery"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def never(settings: object, context: object) -> Any:
    """What nothing in these tests opens."""
    raise NotImplementedError


class VaultSettings(Settings):
    """A backend that cannot do without settings."""

    url: str
    token: str = ""
    retries: int = 3


class ShopSettings(Settings):
    """Of a plugin."""

    limit: int = 1
    greeting: str = ""


class HttpSettings(Settings):
    """Of a check."""

    url: str
    port: int = 80


OFFERS = Offers(
    check_types={"http": CheckType(name="http", summary="", settings=HttpSettings, open=never)},
    plugin_settings={"shop": ShopSettings},
    secret_backends={
        "fernet": SecretBackend(name="fernet", summary="", open=never),
        "environ": SecretBackend(name="environ", summary="", open=never),
        "vault": SecretBackend(name="vault", summary="", open=never, settings=VaultSettings),
    },
    rotators={"postgres": RotatorType(name="postgres", summary="", open=never)},
    refused=("plugin secrets_aws was refused: no module boto3",),
)


@dataclass(kw_only=True)
class Keeper:
    """Resolves what the test put into it."""

    values: dict[str, bytes | Exception] = field(default_factory=dict)
    """By the text of a reference, or the encrypted text."""
    asked: list[tuple[str, ...]] = field(default_factory=list)
    policies: list[SecretsPolicy] = field(default_factory=list)

    def __call__(
        self, policy: SecretsPolicy, wanted: Sequence[Reference | Sealed], /
    ) -> Mapping[Reference | Sealed, Resolved | Exception]:
        self.policies.append(policy)
        self.asked.append(tuple(map(name_of, wanted)))
        return {reference: self.answer(reference) for reference in wanted}

    def answer(self, reference: Reference | Sealed) -> Resolved | Exception:
        found = self.values.get(name_of(reference))
        if isinstance(found, Exception):
            return found
        if found is None:
            return AtlasError("secret.not_found", "there is no such secret", hint="set it")
        return Resolved(
            value=SecretValue(found), backend="fernet", version="7", fetched=NOW, stale=True
        )


def name_of(reference: Reference | Sealed) -> str:
    if isinstance(reference, Sealed):
        return f"{reference.text} for {reference.binding}"
    return str(reference)


@pytest.fixture
def keeper(desk: Desk) -> Keeper:
    """The desk resolves secrets by this."""
    keeper = Keeper()
    desk.resolve = keeper
    desk.offers = OFFERS
    return keeper


def env_of(desk: Desk, lines: str, more: str = "") -> dict[str, str]:
    config = desk.load(f'[services.web]\ncommand = "sleep 9"\n[services.web.env]\n{lines}\n{more}')
    (spec,) = config.specs()
    return variables_of(spec)


def variables_of(spec: ServiceSpec) -> dict[str, str]:
    """Its own variables, those too that are handed over for the secrets in them."""
    own = {name: value for name, value in spec.env.items() if name not in spec.inherited}
    return own | delivery.variables(spec.deliveries, "")


def test_references_of_every_form_arrive(desk: Desk, keeper: Keeper) -> None:
    keeper.values = {
        "secret://db#password": b"p@ss",
        "secret://vault/prod/db@previous": b"old",
        "enc:v1:k1:abc for services.web.env.SEALED": b"opened",
    }
    desk.environ["USER_NAME"] = "ann"
    desk.host.files = {"/run/token": b" tok \n", f"{desk.etc}/near": b"neighbour"}
    found = env_of(
        desk,
        """
        WHOLE = "secret://db#password"
        URL = "postgres://app:${secret:db#password|url}@db/${env:USER_NAME}"
        OLD = "secret://vault/prod/db@previous"
        SEALED = "enc:v1:k1:abc"
        TOKEN = "${file:/run/token|trim|base64}"
        NEAR = "${file:near}"
        LISTEN = "on ${cfg:api.listen}, ${cfg:services.web.env.WHOLE}"
        ESCAPED = "$${env:X} costs $5"
        SHELL = "${HOME}"
        """,
        '[api]\nlisten = "127.0.0.1:81"\n[secrets.backends.vault]\nurl = "https://v"',
    )
    assert found == {
        "WHOLE": "p@ss",
        "URL": "postgres://app:p%40ss@db/ann",
        "OLD": "old",
        "SEALED": "opened",
        "TOKEN": "dG9r",
        "NEAR": "neighbour",
        "LISTEN": "on 127.0.0.1:81, p@ss",
        "ESCAPED": "${env:X} costs $5",
        "SHELL": "${HOME}",
    }
    assert len(keeper.asked) == 1
    assert len(keeper.asked[0]) == 3


def test_a_reference_stands_where_a_number_is_wanted_too(desk: Desk, keeper: Keeper) -> None:
    keeper.values = {"secret://n": b"3\n", "secret://flag": b"true", "secret://rate": b"2.5"}
    config = desk.load(
        """
        [host]
        restart_budget.rate = "secret://rate"
        [services.web]
        command = "sleep 9"
        instances = "secret://n"
        critical = "secret://flag"
        nice = "${cfg:services.web.instances}"
        [plugins.shop]
        limit = "secret://n"
        greeting = "secret://n"
        [checks.a]
        type = "http"
        url = "secret://n"
        port = "secret://n"
        """
    )
    (spec,) = config.specs()
    assert (spec.instances, spec.critical, spec.nice) == (3, True, 3)
    assert config.host_policy().restart_rate == 2.5
    assert config.plugins["shop"] == ShopSettings(limit=3, greeting="3\n")
    assert config.checks[0].settings == HttpSettings(url="3\n", port=3)


def test_what_is_optional_is_left_out(desk: Desk, keeper: Keeper) -> None:
    keeper.values = {"secret://there": b"1"}
    config = desk.load(
        """
        [services.web]
        command = ["sleep", "${?env:NOT_SET}", "9"]
        nice = "${?secret:gone}"
        [services.web.env]
        A = "${?env:NOT_SET}"
        B = "x${?file:/none}${?cfg:api.nothing}"
        C = "${?secret:there}"
        """
    )
    (spec,) = config.specs()
    assert spec.command == ("sleep", "9")
    assert spec.nice is None
    assert variables_of(spec) == {"B": "x", "C": "1"}


def test_each_secret_is_asked_for_once(desk: Desk, keeper: Keeper) -> None:
    keeper.values = {"secret://db": b"x"}
    desk.environ["PART"] = "y"
    env_of(desk, 'A = "secret://db"\nB = "secret://db"\nC = "${secret:db}${secret:db|url}"')
    assert keeper.asked == [("secret://db",)]


def test_no_reference_asks_nobody(desk: Desk, keeper: Keeper) -> None:
    assert env_of(desk, 'A = "$$ {x} secret: //"') == {"A": "$$ {x} secret: //"}
    assert keeper.asked == []


def test_the_policy_says_what_the_files_say(desk: Desk, keeper: Keeper) -> None:
    keeper.values = {"secret://environ/TOKEN": b"tok-1234", "secret://db": b"x"}
    desk.environ["REGION"] = "eu"
    config = desk.load(
        """
        [secrets]
        backend = "main"
        max_stale = "2h"
        fail_closed = true
        [secrets.backends.main]
        type = "vault"
        url = "https://${env:REGION}.vault"
        token = "secret://environ/TOKEN"
        [services.web]
        command = "sleep 9"
        env.A = "secret://db"
        """
    )
    policy = config.secrets
    assert policy == keeper.policies[-1]
    assert policy.backend == "main"
    assert policy.environment == "production"
    assert policy.max_stale.total_seconds() == 7200
    assert policy.fail_closed
    assert policy.backends["main"] == (
        "vault",
        VaultSettings(url="https://eu.vault", token="tok-1234"),
    )
    assert set(policy.backends) == {"main", "fernet", "environ"}
    # The backend that gives the token is all that was open when it was asked for.
    assert set(keeper.policies[0].backends) == {"environ"}
    assert keeper.asked[0] == ("secret://environ/TOKEN",)
    assert "tok-1234" not in repr(policy)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('A = "secret://gone"', "secret://gone: there is no such secret; set it"),
        ('A = "${secret:down}"', "secret://down: it does not answer"),
        ('A = "${secret:bug}"', "secret://bug cannot be resolved: RuntimeError"),
        ('A = "secret://vault/x"', "secret://vault/x: the backend vault has settings that must be"),
        ('A = "secret://bytes"', "expected text, got ${secret:bytes}, not UTF-8 text; a filter"),
        ('A = "${env:NOT_SET}"', "${env:NOT_SET}: the environment has no NOT_SET; write ${?env:"),
        ('A = "${file:/none}"', "${file:/none}: there is no file /none; write ${?file:/none}"),
        ('A = "${file:/locked}"', "/locked: Permission denied"),
        ('A = "${cfg:api.lisen}"', "[api] has no 'lisen'; did you mean 'listen'?"),
        ('A = "${cfg:nothing.at.all}"', "the configuration has no 'nothing'"),
        (
            'A = "${cfg:services.web}"',
            "expected the key of a single value, got ${cfg:services.web}",
        ),
        ('A = "${secrt:x}"', "expected secret, env, file or cfg, got ${secrt:x}; did you mean"),
        ('A = "secret://a//b"', "expected secret://[backend/]name[@version][#field]"),
    ],
)
def test_what_cannot_be_resolved_is_named_with_its_place(
    desk: Desk, keeper: Keeper, line: str, says: str
) -> None:
    keeper.values = {
        "secret://down": AtlasError("secret.unavailable", "it does not answer"),
        "secret://bug": RuntimeError(f"so it was {PASSWORD}"),
        "secret://bytes": b"\xff\xfe",
    }
    desk.host.unreadable = ("/locked",)
    said = desk.says(
        '[api]\nlisten = "127.0.0.1:8000"\n[services.web]\ncommand = "true"\n'
        f'env.X = "x"\nenv.{line}'
    )
    (problem,) = (text for text in said if ": warning: " not in text)
    assert problem.startswith("atlasd.toml:6:9: services.web.env.A: ")
    assert says in problem
    assert PASSWORD not in problem


def test_settings_that_refer_to_each_other_are_refused(desk: Desk, keeper: Keeper) -> None:
    said = desk.says(
        """
        [services.web]
        command = "true"
        [services.web.env]
        A = "${cfg:services.web.env.B}"
        B = "x${cfg:services.web.env.C}"
        C = "${cfg:services.web.env.A}"
        D = "${cfg:services.web.env.D}"
        """
    )
    circles = [text for text in said if "circle" in text]
    assert len(circles) == 2
    assert "services.web.env.A -> services.web.env.B -> services.web.env.C" in circles[0]
    assert "services.web.env.D -> services.web.env.D" in circles[1]
    assert said == circles


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('backend = "vualt"', ":2:11: secrets.backend: expected the name of a secret backend"),
        ('backends.x.type = "fernt"', "secrets.backends.x.type: expected the type of a secret"),
        ("backends.aws.region = 'x'", "got 'aws', and no `type` beside it; known:"),
        ("backends.aws.region = 'x'", "plugin secrets_aws was refused: no module boto3"),
        ("backends.vault.tokn = 'x'", "secrets.backends.vault.tokn: unknown key; did you mean"),
        ("backends.vault.url = 1", "secrets.backends.vault.url: expected a string, got 1"),
        ("backends.V.type = 'fernet'", "expected a name of small letters"),
        ("backends.vault.url = 'secret://db'", "expected in [secrets] only ${env:…} and ${file:…}"),
        ("backends.vault.url = '${cfg:api.listen}'", "expected in [secrets] only"),
        ("backends.vault.url = 'enc:v1:k:abc'", "expected in [secrets] only"),
        ("rotate.db.create = ['x', 'secret://environ/A']", "expected in [secrets] only"),
        ("rotate.db.rotator = 'postgrs'", 'the name of a rotator, got "postgrs"; did you mean'),
        ("rotate.db = {rotator = 'postgres', set = 'x'}", "a command, where a rotator is named"),
        ("rotate.'db#x'.length = 20", "expected a secret's name alone, got 'db#x'"),
        ("rotate.'d b'.length = 20", "expected secret://[backend/]name"),
        ("fresh_for = '0s'", "secrets.fresh_for: expected more than"),
    ],
)
def test_mistakes_in_secrets_are_named(desk: Desk, keeper: Keeper, text: str, says: str) -> None:
    said = "\n".join(desk.says(f"[secrets]\n{text}\n"))
    assert says in said
    assert keeper.asked in ([], [()])


def test_no_message_shows_what_a_reference_stands_for(desk: Desk, keeper: Keeper) -> None:
    keeper.values = {"secret://pw": PASSWORD.encode()}
    said = "\n".join(
        desk.says(
            """
            [host]
            log_budget = "secret://pw"
            [api]
            listen = "secret://pw"
            [services.web]
            command = ["${secret:pw}", "x"]
            cwd = "/${secret:pw}"
            user = "${secret:pw}"
            instances = "secret://pw"
            ready = { http = "http://${secret:pw}", interval = "${secret:pw}" }
            env_file = "/etc/${secret:pw}"
            requires = ["${secret:pw}"]
            secrets = { "x y" = "secret://pw" }
            [checks.a]
            type = "secret://pw"
            [plugins.shop]
            limit = "secret://pw"
            """
        )
    )
    assert PASSWORD not in said
    for key in (
        "host.log_budget", "api.listen", "services.web.cwd", "services.web.user",
        "services.web.instances", "services.web.ready.interval", "services.web.env_file",
        "checks.a.type", "plugins.shop.limit",
    ):  # fmt: skip
        assert key in said


def test_a_configuration_keeps_references_in_place_of_values(desk: Desk, keeper: Keeper) -> None:
    keeper.values = {
        "secret://db#password": PASSWORD.encode(),
        "enc:v1:k1:token for services.web.env.B": b"sealed-value",
    }
    desk.environ["TOKEN"] = "from-the-environment"
    desk.environ["PLAIN"] = "plain-text"
    config = desk.load(
        """
        [services.web]
        command = "sleep 9"
        [services.web.env]
        A = "x-${secret:db#password}"
        B = "enc:v1:k1:token"
        C = "${cfg:services.web.env.A}"
        D = "${env:TOKEN}"
        E = "${env:PLAIN}"
        [services.other]
        command = "sleep 9"
        """
    )
    below = ("services", "web", "env")
    shown = {path[-1]: one.text for path, one in config.references.items()}
    assert shown == {
        "A": "x-${secret:db#password}",
        "B": "enc:v1:k1:…",
        "C": "${cfg:services.web.env.A}",
        "D": "${env:TOKEN}",
        "E": "${env:PLAIN}",
    }
    (source,) = config.references[*below, "C"].sources
    assert str(source) == "secret://db#password"
    assert (source.backend, source.version, source.fetched, source.stale) == (
        "fernet", "7", NOW, True,
    )  # fmt: skip
    assert config.references[*below, "E"].sources == ()
    known = {(one.name, one.value) for one in config.known}
    assert known == {
        ("db", PASSWORD),
        ("enc:v1:k1:…", "sealed-value"),
        ("TOKEN", "from-the-environment"),
    }
    other, web = config.specs()
    assert other.secrets == ()
    assert {(one.name, one.value) for one in web.secrets} == known
    for value in (PASSWORD, "sealed-value", "from-the-environment", "plain-text"):
        assert value not in repr(config)


def test_a_digest_changes_with_a_value_and_gives_none_away(desk: Desk, keeper: Keeper) -> None:
    text = '[services.web]\ncommand = "sleep 9"\nenv.A = "secret://pw"'
    keeper.values = {"secret://pw": b"one"}
    first = desk.load(text).digest
    assert desk.load(text).digest == first
    keeper.values = {"secret://pw": b"two"}
    assert desk.load(text).digest != first


def test_secrets_in_sight_of_others_are_warned_about(desk: Desk, keeper: Keeper) -> None:
    keeper.values = {"secret://pw": b"x-x-x-x"}
    said = desk.says(
        """
        [services.web]
        command = ["sleep", "${secret:pw}"]
        pre_start = ["echo ${secret:pw}", "echo ${HOME}"]
        env = { A = "secret://pw", B = "${HOME}", C = "${env:HOME}" }
        secrets.D = "secret://pw"
        """
    )
    assert [(text.split(": ")[2], text.split(": ")[3][:27]) for text in said] == [
        ("services.web.command[1]", "a secret among the words of"),
        ("services.web.pre_start[0]", "a secret among the words of"),
        ("services.web.env.A", "a secret in an environment "),
        ("services.web.env.B", "${HOME} is not expanded; wr"),
    ]


def test_without_a_resolver_only_what_is_written_is_checked(desk: Desk) -> None:
    desk.offers = OFFERS
    text = """
        [host]
        log_budget = "secret://size"
        [services.web]
        command = "secret://command"
        instances = "secret://n"
        ready = { http = "http://${secret:host}:80/", timeout = "secret://t" }
        env = { A = "secret://pw", B = "enc:v1:k:abc", C = "${cfg:services.web.instances}" }
        """
    said = desk.says(text)
    assert [line for line in said if ": warning: " not in line] == []
    (spec,) = desk.load(text).specs()
    assert spec.secrets == ()
    assert desk.says('[services.web]\ncommand = "true"\ncwd = "secret://vault/x"')[0].startswith(
        "atlasd.toml:3:7: services.web.cwd: secret://vault/x: the backend vault has settings"
    )
    desk.offers = None
    assert desk.says('[services.web]\ncommand = "true"\ncwd = "secret://vault/x"') == []


TOKENS = st.sampled_from(
    ["${", "$${", "${?", "}", "secret:", "env:", "file:", "cfg:", "db", "HOME", "NOT_SET", "/x",
     "services.web.env.A", "services.web.env.B", "|url", "|json", "#a", "@v1", "secret://", " ",
     "enc:v1:k:abc", "vault/x", "\n"]
)  # fmt: skip
WRITTEN = st.lists(TOKENS, max_size=6).map("".join)


class Outcomes:
    """Answers to whatever is asked: values, and errors of every kind."""

    def __call__(
        self, policy: SecretsPolicy, wanted: Sequence[Reference | Sealed], /
    ) -> Mapping[Reference | Sealed, Resolved | Exception]:
        answers = (
            Resolved(value=SecretValue(PASSWORD)),
            AtlasError("secret.not_found", "it is gone"),
            RuntimeError(PASSWORD),
            Resolved(value=SecretValue(b"\xff" + PASSWORD.encode())),
        )
        return {one: answers[len(str(one)) % len(answers)] for one in wanted}


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from("ABC"), WRITTEN, max_size=3), WRITTEN, st.booleans())
def test_whatever_is_written_it_is_resolved_or_explained(
    env: dict[str, str], url: str, resolves: bool
) -> None:
    data: dict[str, Any] = {
        "secrets": {"backends": {"vault": {"url": url}}},
        "services": {"web": {"command": ["sleep", url], "env": env, "instances": url}},
    }
    before = json.dumps(data)
    findings = Findings(Layer(origin="x.toml", data=data))
    resolution = resolving.resolve(
        data,
        findings,
        Around(
            environment="production",
            environ={"HOME": "/root"},
            host=FakeHost(),
            folder_of=lambda _path: "/",
            offers=OFFERS,
            resolve=Outcomes() if resolves else None,
        ),
    )
    assert json.dumps(data) == before
    said = report(findings.problems)
    assert PASSWORD not in said
    for problem in findings.problems:
        assert problem.got or problem.expected
        assert "\n" not in str(problem)
    shown = [one.text for one in resolution.references.values()]
    assert PASSWORD not in "".join(shown)
