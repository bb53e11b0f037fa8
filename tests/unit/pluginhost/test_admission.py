"""Admission: each way of not being a plugin has its sentence, and hurts nobody else."""

import sys
import textwrap
from typing import Any

import pytest

from atlasd.contracts.checks import CheckType
from atlasd.contracts.operations import Operation
from atlasd.errors import AtlasError
from atlasd.pluginhost import PluginState

HEAD = """
from contextlib import asynccontextmanager
from atlasd import hookimpl
from atlasd.contracts.checks import CheckResult, CheckType, Health
from atlasd.contracts.collectors import CollectorType
from atlasd.contracts.components import Component
from atlasd.contracts.config import ConfigSource
from atlasd.contracts.operations import Operation
from atlasd.contracts.settings import NoSettings, Settings
from atlasd.contracts.subscribers import Subscriber
from pydantic import BaseModel

ATLASD_API = 1

class Own(Settings):
    word: str = ""

@asynccontextmanager
async def open_check(settings, context):
    yield None

def check(**changes):
    plain = dict(name="disk", summary="disks", settings=Settings, open=open_check)
    return CheckType(**(plain | changes))

def operation(**changes):
    plain = dict(name="shop.do", summary="does", path="do", request=NoSettings,
                 answer=NoSettings, handle=open_check)
    return Operation(**(plain | changes))
"""


def plugin(body: str) -> str:
    return HEAD + textwrap.dedent(body)


def checks(expression: str) -> str:
    return plugin(f"""
        @hookimpl
        def register_health_checks():
            return {expression}
    """)


REFUSALS = [
    # --- loading
    ("import boto3_is_not_here\nATLASD_API = 1", "needs the module 'boto3_is_not_here', which is"),
    (
        "ATLASD_API = 1\nfrom os import nothing_such",
        "loading it failed: ImportError: cannot",
    ),
    ("ATLASD_API = 1\n1 / 0", "loading it failed: ZeroDivisionError: division by zero"),
    ("ATLASD_API = 1\nraise SystemExit(3)", "tried to end the daemon while it was loaded (SystemE"),
    ("ATLASD_API = 1\nraise KeyboardInterrupt", "was loaded (KeyboardInterrupt)"),
    (
        "ATLASD_API = 1\nimport asyncio\nraise asyncio.CancelledError",
        "loading it failed: CancelledError",
    ),
    ("ATLASD_API = 1\ndef f(:\n", ", line 2: invalid syntax"),
    ("ATLASD_API = 1\nx = '\x00'", "null byte"),
    # --- version
    ("x = 1", "does not say ATLASD_API = 1, as a drop-in must"),
    ("ATLASD_API = 2", "written for hooks of version 2, and this atlasd has version 1"),
    ("import from_the_future\nATLASD_API: int = 7", "written for hooks of version 7"),
    ("ATLASD_API = '1'", "ATLASD_API must be the number 1, not '1'"),
    ("ATLASD_API = True", "ATLASD_API must be the number 1, not True"),
    ("ATLASD_API = 0", "ATLASD_API must be the number 1, not 0"),
    ("ATLASD_API = max(1, 2)", "ATLASD_API must be the number 1, not 'max(1, 2)'"),
    # --- hooks
    ("ATLASD_API = 1", "implements no hook: mark its functions with @hookimpl"),
    (
        plugin("@hookimpl\ndef register_health_check(): return []"),
        "there is no hook 'register_health_check': did you mean 'register_health_checks'?",
    ),
    (
        plugin("@hookimpl\nasync def register_health_checks(): return []"),
        "register_health_checks is a coroutine: hooks are for joining",
    ),
    (
        plugin("@hookimpl\nasync def register_health_checks(): yield 1"),
        "register_health_checks is a coroutine",
    ),
    (
        plugin("@hookimpl\nasync def authorize(actor): return None"),
        "authorize is a coroutine",
    ),
    (
        plugin("@hookimpl(wrapper=True)\ndef register_health_checks(): return (yield)"),
        "register_health_checks wraps a hook",
    ),
    (
        plugin("def register_health_checks(): return [check()]"),
        "register_health_checks lacks its mark: write @hookimpl above it",
    ),
    (
        plugin("@hookimpl\ndef register_health_checks(daemon): return []"),
        "register_health_checks asks for 'daemon', which that hook does not give",
    ),
    # --- answers
    (checks("1 / 0"), "register_health_checks raised ZeroDivisionError: division by zero"),
    (checks("exit(4)"), "register_health_checks raised SystemExit: 4"),
    (
        checks("None"),
        "register_health_checks gave nothing (None): it must give a list of",
    ),
    (
        checks("check()"),
        "register_health_checks gave a CheckType: it must give a list of",
    ),
    (checks("(check() for _ in 'a')"), "gave a generator: it must give a list of CheckType"),
    (checks("['disk']"), "gave a list with a str in it: it must give CheckTypes"),
    (checks("[operation()]"), "gave a list with a Operation in it: it must give CheckTypes"),
    (checks("[check()] * 101"), "register_health_checks gave 101 things: 100 is the most"),
    (
        plugin("""
            async def later(): return []
            @hookimpl
            def register_health_checks(): return later()
        """),
        "register_health_checks gave a coroutine: it must give a list of CheckType",
    ),
    # --- descriptors
    (checks("[check(), check()]"), "it supplies the check type 'disk' twice"),
    (checks("[check(name='Disk Space')]"), "'Disk Space' has no proper name: it must be small"),
    (checks("[check(name=7)]"), "its check type 7 has no proper name"),
    (checks("[check(summary='')]"), "'disk' needs a summary of one line"),
    (checks("[check(summary='a\\nb')]"), "'disk' needs a summary of one line"),
    (checks("[check(open='x')]"), "'disk': open must be a function"),
    (checks("[check(settings=dict)]"), "settings must be a pydantic model, and is a type"),
    (checks("[check(settings=None)]"), "settings must be a pydantic model, and is nothing (None)"),
    (checks("[check(settings=BaseModel)]"), "settings would let misspelt names pass"),
    (checks("[check(component_type='disk')]"), "must be component, datastore or system"),
    (checks("[check(requires='boto3')]"), "requires must be a tuple of module names"),
    (
        checks("[check(requires=('absent.client',), extra='aws')]"),
        "it needs the module 'absent.client', which is not installed: pip install 'atlasd[aws]'",
    ),
    (checks("[check(requires=('absent.client',))]"), "is not installed: pip install absent"),
    (checks("[check(requires=('email.absent',))]"), "it needs the module 'email.absent'"),
    (
        plugin("@hookimpl\ndef register_operations(): return [operation(name='do')]"),
        "its operation 'do' has no proper name: it must be dotted",
    ),
    (
        plugin("@hookimpl\ndef register_operations(): return [operation(name='service.start')]"),
        "its operation 'service.start' is already supplied by atlasd itself",
    ),
    (
        plugin("@hookimpl\ndef register_operations(): return [operation(path='/do')]"),
        "its path must be like reindex",
    ),
    (
        plugin("@hookimpl\ndef register_operations(): return [operation(method='PUT')]"),
        "its method must be GET or POST",
    ),
    (
        plugin("@hookimpl\ndef register_operations(): return [operation(right='all')]"),
        "its right must be read, operate or administer",
    ),
    (
        plugin("@hookimpl\ndef register_operations(): return [operation(request=BaseModel)]"),
        "request would let misspelt names pass",
    ),
    (
        plugin("""
            @hookimpl
            def register_config_sources():
                return [ConfigSource(name="ini", summary="x", suffixes=("ini",), parse=print)]
        """),
        "suffixes must be a tuple of endings with their dot",
    ),
    (
        plugin("""
            @hookimpl
            def register_config_sources():
                return [ConfigSource(name="ini", summary="x", suffixes=(".ini",))]
        """),
        "it must have one of parse, dialects and name_settings",
    ),
    (
        plugin("""
            @hookimpl
            def register_config_sources():
                return [ConfigSource(name="ini", summary="x", suffixes=(".ini",), dialects=[print])]
        """),
        "dialects must be a mapping of names to functions",
    ),
    (
        plugin("""
            @hookimpl
            def register_config_sources():
                return [ConfigSource(name="ini", summary="x", suffixes=(".ini",), parse="x")]
        """),
        "parse, name_settings and each of the dialects must be a function",
    ),
    (
        plugin("""
            @hookimpl
            def register_config_sources():
                return [ConfigSource(name="x", summary="x", suffixes=(".x",), name_settings=print)]
        """),
        "without a file it can have no suffixes",
    ),
    (
        plugin("""
            @hookimpl
            def register_subscribers():
                return [Subscriber(name="s", summary="x", open=print, kinds=("transitoin",))]
        """),
        "there is no event 'transitoin': did you mean 'transition'?",
    ),
    (
        plugin("""
            @hookimpl
            def register_subscribers():
                return [Subscriber(name="s", summary="x", open=print, kinds="crash")]
        """),
        "kinds must be None or a tuple of words",
    ),
    (
        plugin("""
            @hookimpl
            def register_components():
                return [Component(name="c", summary="x", open=print, role="services")]
        """),
        "its role must be core, monitoring or api",
    ),
    (
        plugin("""
            @hookimpl
            def register_components():
                return [Component(name="c", summary="x", open=print, settings=Own)]
            @hookimpl
            def register_collectors():
                return [CollectorType(name="c", summary="x", open=print, settings=Settings)]
        """),
        "reads the settings [plugins.c], which are already read in another form",
    ),
]


@pytest.mark.parametrize(("source", "sentence"), REFUSALS, ids=[s[:60] for _, s in REFUSALS])
def test_each_refusal_has_its_sentence_and_hurts_nobody_else(
    desk: Any, source: str, sentence: str
) -> None:
    before = set(sys.modules)
    desk.good("before_it")
    desk.write("bad.py", source)
    desk.good("past_it")
    report = desk.report()
    assert sentence in report["bad"].reason
    assert report["bad"].state is PluginState.REFUSED
    assert report["bad"].offers == ()
    assert report["before_it"].state is report["past_it"].state is PluginState.ADMITTED
    if "loading it failed" in sentence:
        assert "atlasd_dropin_bad" not in set(sys.modules) - before


@pytest.mark.parametrize(("source", "sentence"), REFUSALS, ids=[s[:60] for _, s in REFUSALS])
def test_a_refusal_is_one_plain_sentence(desk: Any, source: str, sentence: str) -> None:
    assert "\n" not in sentence
    desk.write("bad.py", source)
    reason = desk.report()["bad"].reason
    assert "\n" not in reason
    assert "Traceback" not in reason
    assert len(reason) > 20


def test_a_refused_plugin_leaves_nothing_behind(desk: Any) -> None:
    desk.write(
        "bad.py",
        plugin("""
            @hookimpl
            def register_health_checks(): return [check()]
            @hookimpl
            def register_operations(): return 1 / 0
            @hookimpl
            def authorize(): return 1 / 0
        """),
    )
    host = desk.host()
    assert host.offers(CheckType) == ()
    actor: Any = None
    assert host.authorize(actor, "service.start") is None


def test_a_name_is_taken_once(desk: Any) -> None:
    desk.good("disk")
    desk.write("eager.py", checks("[check()]"))
    host = desk.host()
    report = {r.name: r for r in host.report()}
    assert report["disk"].state is PluginState.ADMITTED
    assert report["eager"].reason == (
        "its check type 'disk' is already supplied by plugin disk: a name is taken once"
    )
    assert host.find(CheckType, "disk").plugin == "disk"


def test_the_same_name_in_another_kind_is_no_duplicate(desk: Any) -> None:
    desk.write(
        "both.py",
        plugin("""
            @hookimpl
            def register_health_checks(): return [check(name="shop")]
            @hookimpl
            def register_operations(): return [operation()]
            @hookimpl
            def register_components():
                return [Component(name="shop", summary="x", open=print, settings=Own)]
            @hookimpl
            def register_collectors():
                return [CollectorType(name="shop", summary="x", open=print, settings=Own)]
        """),
    )
    host = desk.host()
    (report,) = host.report()
    assert [(o.kind, o.name) for o in report.offers] == [
        ("check type", "shop"),
        ("operation", "shop.do"),
        ("collector", "shop"),
        ("component", "shop"),
    ]
    assert list(host.plugin_settings()) == ["shop"]
    assert host.offers(Operation)[0].plugin == "both"


# --- entry points


def test_an_entry_point_need_not_state_its_version(desk: Any) -> None:
    source = checks("[check()]").replace("ATLASD_API = 1", "")
    report = desk.report(desk.entry_point(source))
    assert report["pointed"].state is PluginState.ADMITTED


def test_an_entry_point_for_newer_hooks_is_refused(desk: Any) -> None:
    source = checks("[check()]").replace("ATLASD_API = 1", "ATLASD_API = 2")
    report = desk.report(desk.entry_point(source))
    assert "written for hooks of version 2" in report["pointed"].reason


def test_an_entry_point_may_lead_to_an_object(desk: Any) -> None:
    source = plugin("""
        class Plugin:
            @hookimpl
            def register_health_checks(self): return [check()]
        here = Plugin()
        nothing = None
    """)
    host = desk.host(desk.entry_point(source, suffix=":here"))
    assert host.find(CheckType, "disk").plugin == "pointed"
    report = desk.report(desk.entry_point(source, suffix=":nothing"))
    assert report["pointed"].reason == "there is nothing where its entry point leads"
    report = desk.report(desk.entry_point(source, suffix=":missing"))
    assert "has no attribute 'missing'" in report["pointed"].reason


def test_the_extra_of_an_entry_point_is_what_is_to_be_installed(desk: Any) -> None:
    distribution = desk.root / "shop_plugins-1.4.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: shop-plugins\nVersion: 1.4\n"
    )
    (distribution / "entry_points.txt").write_text(
        "[atlasd.plugins]\nshop = shop_plugins_not_here [redis]\n"
    )
    desk._monkeypatch.syspath_prepend(desk.root)
    host = desk.host(load=False)
    host.load()
    report = {r.name: r for r in host.report()}["shop"]
    assert (report.origin, report.version) == ("shop-plugins", "1.4")
    assert report.reason == (
        "it needs the module 'shop_plugins_not_here', which is not installed: "
        "pip install 'shop-plugins[redis]'"
    )


def test_one_module_under_two_names_is_admitted_once(desk: Any) -> None:
    first = desk.entry_point(checks("[check()]"), name="one")
    second = type(first)(name="two", value=first.value, group=first.group)
    report = desk.report(first, second)
    assert report["one"].state is PluginState.ADMITTED
    assert report["two"].reason == "the same module is already there under another name"


def test_a_plugin_name_is_taken_once_too(desk: Any) -> None:
    desk.good("pointed")
    reports = desk.host(desk.entry_point(checks("[check()]"))).report()
    assert [r.state for r in reports].count(PluginState.ADMITTED) == 1
    (refused,) = [r for r in reports if r.state is PluginState.REFUSED]
    assert refused.origin == str(desk.drop_ins / "pointed.py")
    assert refused.reason.startswith("there is already a plugin 'pointed', from plugin_")


# --- what a refused plugin would have supplied


def test_what_configuration_names_and_a_refused_plugin_has_are_said_in_one_message(
    desk: Any,
) -> None:
    desk.write("storage.py", "import not_there_at_all\n" + checks("[CheckType(name='disk')]"))
    host = desk.host()
    with pytest.raises(AtlasError) as caught:
        host.find(CheckType, "disk", wanted_by="checks.root.type")
    assert caught.value.code == "plugin.refused"
    message = caught.value.message
    assert message.startswith("checks.root.type: there is no check type 'disk', because plugin st")
    assert f"({desk.drop_ins / 'storage.py'}) was refused" in message
    assert "needs the module 'not_there_at_all'" in message


def test_a_refused_plugin_of_that_very_name_is_named_too(desk: Any) -> None:
    desk.write("disk.py", "1 / 0\nATLASD_API = 1")
    with pytest.raises(AtlasError, match="division by zero") as caught:
        desk.host().find(CheckType, "disk")
    assert caught.value.code == "plugin.refused"


def test_what_nobody_has_gets_the_nearest_name(desk: Any) -> None:
    desk.good("disk")
    desk.write("bad.py", "1 / 0\nATLASD_API = 1")
    with pytest.raises(AtlasError) as caught:
        desk.host().find(CheckType, "dsik")
    assert caught.value.code == "plugin.unknown"
    assert "division by zero" not in caught.value.message
    assert caught.value.hint == "did you mean 'disk'?"
