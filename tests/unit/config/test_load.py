"""From files to specifications: every setting arrives, and nothing secret is shown."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from atlasd.config.load import Config, Offers
from atlasd.contracts.checks import CheckType
from atlasd.services import delivery, spec
from tests.unit.config.desk import ENVIRON, Desk
from tests.unit.config.test_broken import OFFERS, HttpSettings, ShopSettings, never

ISSUE = """
[host]
environment = "production"

[services.db]
command = "sleep 9"

[services.web]
command = ["gunicorn", "shop:app"]            # a list, or one string
instances = 2
requires = ["db:ready"]
sockets.http = "tcp://127.0.0.1:8080"
ready = { http = "http://127.0.0.1:8080/healthz", timeout = "30s" }
live = { http = "http://127.0.0.1:8080/healthz", interval = "5s", fail_after = 3 }
stop = { signal = "TERM", timeout = "15s" }
reload = { signal = "HUP" }
limits = { memory = "512MiB", cpu = 1.5, tasks = 100, nofile = 65536 }
env = { LOG_LEVEL = "info" }
env_file = ["/etc/shop.env"]
critical = true
"""
BASE = {name: ENVIRON[name] for name in ("PATH", "LANG", "HOME")}


def one(config: Config, name: str = "web") -> spec.ServiceSpec:
    return next(s for s in config.specs() if s.name == name)


def test_a_whole_service_becomes_its_specification(desk: Desk) -> None:
    desk.host.files = {"/etc/shop.env": b"DSN=postgres://db\nLOG_LEVEL=debug\n"}
    config = desk.load(ISSUE)
    assert [s.name for s in config.specs()] == ["db", "web"]
    url = "http://127.0.0.1:8080/healthz"
    assert one(config) == spec.ServiceSpec(
        name="web",
        command=("gunicorn", "shop:app"),
        instances=2,
        edges=(spec.Edge(service="db", kind="requires", condition="ready"),),
        sockets=(spec.Socket(name="http", address="tcp://127.0.0.1:8080"),),
        ready=spec.Probe(kind="http", target=url),
        start_timeout=30.0,
        live=spec.Probe(kind="http", target=url, interval=5.0, fail_after=3),
        stop=spec.Stop(signal="TERM", timeout=15.0),
        reload=spec.Reload(kind="signal", signal="HUP"),
        limits=spec.Limits(memory=512 * 1024**2, cpu=1.5, tasks=100, nofile=65536),
        env={**BASE, "DSN": "postgres://db", "LOG_LEVEL": "info"},
        inherited=tuple(BASE),
        critical=True,
    )


def test_what_is_not_said_is_as_the_services_role_has_it(desk: Desk) -> None:
    config = desk.load('[services.web]\ncommand = "sleep 9"')
    assert one(config) == spec.ServiceSpec(
        name="web", command=("sleep", "9"), env=BASE, inherited=tuple(BASE)
    )
    assert config.host_policy() == spec.HostPolicy()


def test_every_other_setting_arrives_too(desk: Desk) -> None:
    config = desk.load(
        r"""
        [host]
        restart_budget = { rate = 2.5, burst = 7 }
        log_budget = "2GiB"
        cgroup = "/sys/fs/cgroup/shop"

        [services.db]
        command = "sleep 9"
        ready = { notify = true }
        reload = { notify = true, signal = "USR1", timeout = "9s" }

        [services.cache]
        command = "sleep 9"
        ready = { fd = 5 }
        reload = { exec = "true --now" }
        stop = { kill_mode = "none" }

        [services.init]
        type = "oneshot"
        command = "true"
        enabled = false

        [services.web]
        command = "sleep '9 and' more"
        requires = "init:completed"
        wants = ["cache:healthy"]
        after = ["db:ready", "cache"]
        restart_with = ["db"]
        cwd = "/srv/shop"
        inherit_env = ["EDITOR"]
        user = "www-data"
        group = 1000
        umask = "027"
        nice = -5
        no_new_privs = true
        start_timeout = "2m"
        min_uptime = "3s"
        watchdog = "10s"
        backoff = { base = "2s", factor = 3, cap = "30s", jitter = 0.0, stable_for = "1m" }
        limit = { count = 5, window = "5m", on_limit = "fail" }
        log = { max_size = "1MiB", max_age = "1d", max_files = 3, compress = false }
        pre_start = ["mkdir -p /run/shop", { command = ["echo", "a b"], timeout = "5s" }]
        post_start = "true"
        pre_stop = { command = "true", timeout = "1s" }
        post_stop = [{ command = ["true"] }]

        [services.web.sockets]
        http = { address = "tcp://[::]:80", backlog = 5 }
        log = { address = "unixgram:///run/shop/log.sock", mode = "0600" }

        [services.web.restart]
        policy = "always"
        success_codes = [0, 3]
        success_signals = ["SIGHUP"]
        no_restart_codes = [125]
        config_error_codes = []

        [services.web.stop]
        signal = "INT"
        timeout = "1s"
        escalation = [{ signal = "QUIT", timeout = "2s" }]
        kill_mode = "control-group"
        drain = ["sh", "drain"]
        drain_timeout = "3s"

        [services.web.limits]
        core = "unlimited"
        fsize = "1GB"
        stack = 8192
        nproc = "unlimited"
        address_space = "1TiB"
        memlock = 0

        [services.web.ready]
        log = 'listening on \d+'

        [services.web.live]
        exec = ["sh", "-c", "check"]
        interval = "1s"
        deadline = "500ms"
        fail_after = 5
        pass_after = 1
        start_period = "1m"
        """
    )
    assert config.host_policy() == spec.HostPolicy(
        restart_rate=2.5, restart_burst=7, log_budget=2 * 1024**3, cgroup="/sys/fs/cgroup/shop"
    )
    assert one(config, "db").ready == spec.Probe(kind="notify")
    assert one(config, "db").reload == spec.Reload(kind="notify", signal="USR1", timeout=9.0)
    assert one(config, "cache").ready == spec.Probe(kind="fd", fd=5)
    assert one(config, "cache").reload == spec.Reload(kind="exec", command=("true", "--now"))
    assert one(config, "cache").stop == spec.Stop(kill_mode="none")
    assert (one(config, "init").type, one(config, "init").enabled) == ("oneshot", False)
    assert one(config) == spec.ServiceSpec(
        name="web",
        command=("sleep", "9 and", "more"),
        edges=(
            spec.Edge(service="init", kind="requires", condition="completed"),
            spec.Edge(service="cache", kind="wants", condition="healthy"),
            spec.Edge(service="db", kind="after", condition="ready"),
            spec.Edge(service="cache", kind="after", condition="started"),
        ),
        restart_with=("db",),
        sockets=(
            spec.Socket(name="http", address="tcp://[::]:80", backlog=5),
            spec.Socket(name="log", address="unixgram:///run/shop/log.sock", mode=0o600),
        ),
        ready=spec.Probe(kind="log", target=r"listening on \d+"),
        start_timeout=120.0,
        min_uptime=3.0,
        live=spec.Probe(
            kind="exec",
            command=("sh", "-c", "check"),
            interval=1.0,
            deadline=0.5,
            fail_after=5,
            pass_after=1,
            start_period=60.0,
        ),
        watchdog=10.0,
        restart=spec.Restart(
            policy="always",
            backoff=spec.Backoff(base=2.0, factor=3.0, cap=30.0, jitter=0.0, stable_for=60.0),
            limit_count=5,
            limit_window=300.0,
            on_limit="fail",
            success_codes=(0, 3),
            no_restart_codes=(125,),
            config_error_codes=(),
            success_signals=("HUP",),
        ),
        stop=spec.Stop(
            signal="INT",
            timeout=1.0,
            escalation=(("QUIT", 2.0),),
            kill_mode="control-group",
            drain=("sh", "drain"),
            drain_timeout=3.0,
        ),
        limits=spec.Limits(
            core=-1, fsize=10**9, stack=8192, nproc=-1, address_space=1024**4, memlock=0
        ),
        log=spec.Log(max_size=1024**2, max_age=86400.0, max_files=3, compress=False),
        env={"EDITOR": "ed"},
        inherited=("EDITOR",),
        cwd="/srv/shop",
        user="www-data",
        group="1000",
        umask=0o027,
        nice=-5,
        no_new_privs=True,
        pre_start=(
            spec.Hook(command=("mkdir", "-p", "/run/shop")),
            spec.Hook(command=("echo", "a b"), timeout=5.0),
        ),
        post_start=(spec.Hook(command=("true",)),),
        pre_stop=(spec.Hook(command=("true",), timeout=1.0),),
        post_stop=(spec.Hook(command=("true",)),),
    )


@pytest.mark.parametrize(
    ("ready", "probe"),
    [
        ('uptime = "5s"', spec.Probe(kind="uptime", seconds=5.0)),
        ('file = "/run/ready"', spec.Probe(kind="file", target="/run/ready")),
        ('tcp = "unix:/run/x"', spec.Probe(kind="tcp", target="unix:/run/x")),
        ('exec = "true"', spec.Probe(kind="exec", command=("true",))),
        (
            'http = "http://[::1]/", statuses = [200, "300-399"]',
            spec.Probe(kind="http", target="http://[::1]/", statuses=((200, 200), (300, 399))),
        ),
    ],
)
def test_each_kind_of_readiness(desk: Desk, ready: str, probe: spec.Probe) -> None:
    config = desk.load(f'[services.web]\ncommand = "sleep 9"\nready = {{ {ready} }}')
    assert one(config).ready == probe


def test_the_last_word_on_a_variable_is_the_services_own(desk: Desk) -> None:
    desk.host.files = {"/a.env": b"A=a\nB=a\nC=a\nPATH=a\n", "/b.env": b"B=b\nC=b\n"}
    config = desk.load(
        """
        [services.web]
        command = "sleep 9"
        inherit_env = ["PATH", "HOME", "LANG", "NOT_SET"]
        env_file = ["/a.env", "/b.env", "-/none.env"]
        env = { C = "own", N = 3 }
        """
    )
    expected = {"PATH": "a", "HOME": "/root", "LANG": "C.UTF-8"}
    assert one(config).env == {**expected, "A": "a", "B": "b", "C": "own", "N": "3"}


def test_a_service_with_a_user_does_not_inherit_the_daemons_home(desk: Desk) -> None:
    config = desk.load('[services.web]\ncommand = "sleep 9"\nuser = "www-data"')
    assert one(config).env == {"PATH": ENVIRON["PATH"], "LANG": ENVIRON["LANG"]}


def test_relative_paths_start_at_the_file_that_says_them(desk: Desk) -> None:
    etc = str(desk.etc)
    desk.host.files = {f"{etc}/conf.d/shop.env": b"A=1"}
    desk.host.folders = (f"{etc}/app",)
    desk.write('[services.web]\nenv_file = "shop.env"', "conf.d/web.toml")
    config = desk.load('[services.web]\ncommand = "sleep 9"\ncwd = "app"')
    assert one(config).env["A"] == "1"
    assert one(config).cwd == f"{etc}/app"
    assert config.warnings == ()


def test_faults_of_an_environment_file_name_its_line_and_not_its_text(desk: Desk) -> None:
    desk.host.files = {"/a.env": b"A=1\nhunter2\nB='hunter2\n", "/b.env": b"\xff\xfe"}
    desk.host.unreadable = ("/c.env",)
    said = desk.says(
        '[services.web]\ncommand = "sleep 9"\nenv_file = ["/a.env", "/b.env", "/c.env", "/d.env"]'
    )
    assert said == [
        "/a.env:2:1: services.web.env_file: expected NAME=VALUE, got a line without =",
        (
            "/a.env:3:3: services.web.env_file: expected a closing ', got the end of the line; "
            "a value ends on the line on which it begins; \\n in double quotes is a line break"
        ),
        "atlasd.toml:3:23: services.web.env_file[1]: expected a file of UTF-8 text, got /b.env",
        (
            "atlasd.toml:3:33: services.web.env_file[2]: expected a file that can be read, "
            "got /c.env: Permission denied"
        ),
        (
            "atlasd.toml:3:43: services.web.env_file[3]: expected a file that exists, got /d.env; "
            'write "-/d.env" if it need not exist'
        ),
    ]


def test_an_environment_file_cannot_set_what_atlasd_sets(desk: Desk) -> None:
    desk.host.files = {"/a.env": b"LISTEN_FDS=3\n"}
    assert desk.says('[services.web]\ncommand = "sleep 9"\nenv_file = "/a.env"') == [
        (
            "atlasd.toml:3:12: services.web.env_file: /a.env sets LISTEN_FDS, which atlasd sets "
            "itself; remove it"
        )
    ]


def test_what_may_still_come_is_only_a_warning(desk: Desk) -> None:
    desk.host.root = False
    said = desk.says(
        """
[services.web]
command = ["gunicorn", "shop:app", "|", "tee", "log"]
cwd = "/srv/nothing"
user = "www-data"
after = ["db:completed", "db:healthy"]
live = { exec = "{instance}/probe" }
pre_start = ["./setup"]

[services.db]
command = "sleep 9"
"""
    )
    assert said == [
        (
            "atlasd.toml:3:11: warning: services.web.command: no shell runs, so '|' is an argument "
            'like any other; write ["sh", "-c", "…"] if a shell is meant'
        ),
        "atlasd.toml:4:7: warning: services.web.cwd: there is no folder /srv/nothing",
        "atlasd.toml:5:8: warning: services.web.user: only root can run a program as another user",
        (
            "atlasd.toml:6:10: warning: services.web.after[0]: db is not a oneshot: it is "
            'completed only if it ends by itself; give it type = "oneshot", or wait for ready'
        ),
        (
            "atlasd.toml:6:26: warning: services.web.after[1]: db has neither ready nor live, so "
            "nothing says that it is healthy; give it one, or wait for ready"
        ),
        "atlasd.toml:8:14: warning: services.web.pre_start[0]: there is no program './setup'",
    ]
    config = desk.load()
    assert len(config.warnings) == len(said)
    assert all(problem.warning for problem in config.warnings)


def test_one_mistake_hides_no_other(desk: Desk) -> None:
    said = desk.says(
        '[services.web]\ncommand = 5\nstop = { signal = "X" }\nrequires = ["nobody"]\n'
        'user = "nobody-here"\n[services.api]\ntype = 1\n'
    )
    assert [line.split(": ")[1] for line in said] == [
        "services.web.command",
        "services.web.stop.signal",
        "services.web.requires[0]",
        "services.web.user",
        "services.api.command",
        "services.api.type",
    ]


def test_checks_come_with_their_type_and_validated_settings(desk: Desk) -> None:
    desk.offers = OFFERS
    config = desk.load(
        """
        [checks.shop]
        type = "http"
        url = "http://127.0.0.1/"
        interval = "5s"
        service = "web"
        optional = true

        [plugins.shop]
        depth = 3

        [services.web]
        command = "sleep 9"
        """
    )
    (check,) = config.checks
    assert (check.name, check.type) == ("shop", OFFERS.check_types["http"])
    assert check.settings == HttpSettings(url="http://127.0.0.1/")
    assert (check.check.interval, check.check.deadline) == (5.0, 10.0)
    assert (check.check.service, check.check.optional) == ("web", True)
    assert config.plugins == {"shop": ShopSettings(depth=3)}


def test_without_offers_plugins_are_not_looked_into(desk: Desk) -> None:
    config = desk.load('[checks.a]\ntype = "unheard-of"\nx = 1\n[plugins.b]\ny = 2\n')
    assert config.checks == ()
    assert config.settings.checks["a"].model_extra == {"x": 1}


def test_a_plugins_own_words_are_passed_on_unless_they_may_hold_a_secret(desk: Desk) -> None:
    from pydantic import field_validator

    from atlasd.contracts.settings import Settings

    class Wordy(Settings):
        level: str = "a"
        password: str = ""

        @field_validator("level", "password")
        @classmethod
        def known(cls, value: str) -> str:
            raise ValueError(f"{value!r} will not do")

    kind = CheckType(name="wordy", summary="", settings=Wordy, open=never)
    desk.offers = Offers(check_types={"wordy": kind}, plugin_settings={})
    assert desk.says('[checks.a]\ntype = "wordy"\nlevel = "b"\npassword = "hunter2"\n') == [
        "atlasd.toml:3:9: checks.a.level: 'b' will not do",
        (
            "atlasd.toml:4:12: checks.a.password: expected another value, got a string that is not "
            "shown"
        ),
    ]


def test_the_digest_changes_with_the_meaning_and_with_nothing_else(desk: Desk) -> None:
    one_way = desk.load('[services.web]\ncommand = "sleep 9"\nwatchdog = "1m"').digest
    same = desk.load('# a comment\nservices.web = { watchdog = "60s", command = ["sleep", "9"] }')
    other = desk.load('[services.web]\ncommand = "sleep 9"\nwatchdog = "61s"')
    assert one_way == same.digest != other.digest


def test_a_configuration_knows_when_it_was_loaded_and_where_each_setting_stands(
    desk: Desk,
) -> None:
    config = desk.load('[services.web]\ncommand = ["sleep", "9"]\n')
    assert config.loaded_at == datetime.fromtimestamp(1_800_000_000, tz=UTC)
    assert config.generation == 1
    places = {
        key: (config.origin(key).line, config.origin(key).column)
        for key in ("services.web.command[1]", "services.web.command", "services.web.nice")
    }
    assert places == {
        "services.web.command[1]": (2, 21),
        "services.web.command": (2, 11),
        "services.web.nice": (1, 11),
    }
    assert Path(config.origin("host.cgroup").origin).name == "atlasd.toml"


def test_neither_variables_nor_settings_show_in_a_representation(desk: Desk) -> None:
    config = desk.load('[services.web]\ncommand = "sleep 9"\nenv = { TOKEN = "hunter2" }')
    assert "hunter2" not in repr(config)
    assert "hunter2" not in repr(config.settings)


def test_a_oneshot_is_not_restarted_for_what_it_is_handed_unless_it_says_so(desk: Desk) -> None:
    table = 'command = "true"\ntype = "oneshot"\nsecrets = { A = "x" }'
    config = desk.load(
        f'[services.a]\n{table}\n[services.b]\n{table}\non_change = "restart"\n'
        '[services.c]\ncommand = "true"\nsecrets = { A = "x" }\n'
    )
    assert [one.on_change.kind for one in config.specs()] == ["none", "restart", "restart"]


def test_what_a_service_is_handed_stands_in_its_specification(desk: Desk) -> None:
    config = desk.load(
        '[services.web]\ncommand = "true"\n[services.web.secrets]\nB = "b"\n'
        'A = { value = "ä", deliver = "fd" }\nC = { value = "c", path = "c.pem" }\n'
    )
    (web,) = config.specs()
    assert [(d.name, d.kind, d.path, delivery.content(d)) for d in web.deliveries] == [
        ("A", "fd", "", "ä".encode()),
        ("B", "file", "", b"b"),
        ("C", "file", "c.pem", b"c"),
    ]
    assert {(known.name, known.value) for known in web.secrets} == {
        ("A", "ä"),
        ("B", "b"),
        ("C", "c"),
    }
