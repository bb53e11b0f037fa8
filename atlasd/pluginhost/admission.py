"""Admission: what a candidate must be to become a plugin, and a sentence for each failing."""

import importlib.util
import inspect
import re
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import Any

import pluggy
from pydantic import BaseModel

from atlasd import hookspecs
from atlasd.contracts.checks import CheckType
from atlasd.contracts.components import Component
from atlasd.contracts.config import ConfigSource
from atlasd.contracts.operations import Operation
from atlasd.contracts.subscribers import Subscriber
from atlasd.errors import nearest
from atlasd.events import KINDS as EVENT_KINDS
from atlasd.pluginhost.candidates import Candidate, Refusal
from atlasd.pluginhost.drop_ins import check_api
from atlasd.pluginhost.kinds import BY_HOOK, KINDS, Descriptor, Kind

PROJECT = "atlasd"
MOST_DESCRIPTORS = 100
"""As many as one implementation may return."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DOTTED = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_PATH = re.compile(r"[a-z0-9_{}-]+(/[a-z0-9_{}-]+)*")


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A plugin that keeps every rule, and what it supplies."""

    candidate: Candidate
    plugin: object
    offers: tuple[tuple[Kind, Descriptor], ...]


def new_manager() -> pluggy.PluginManager:
    """A plugin manager that knows atlasd's hooks."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def admit(
    manager: pluggy.PluginManager,
    candidate: Candidate,
    taken: Mapping[tuple[type[Descriptor], str], str],
) -> Admitted:
    """Load a candidate, look at it from all sides, ask it what it supplies, and register it.

    `taken` says which plugin has which name of which kind. Raises `Refusal`; the manager is then
    as it was before.
    """
    plugin = _loaded(candidate)
    check_api(getattr(plugin, "ATLASD_API", None), must_say=False)
    marked = _marked_hooks(manager, plugin)
    _check_hooks(manager, plugin, marked)
    try:
        manager.register(plugin, candidate.name)
    except pluggy.PluginValidationError as error:
        raise Refusal(_last_line(error)) from error
    except ValueError as error:
        raise Refusal("the same module is already there under another name") from error
    try:
        offers = _ask(manager, plugin)
        _check_offers(offers, candidate, taken)
    except Refusal:
        manager.unregister(plugin)
        raise
    return Admitted(candidate=candidate, plugin=plugin, offers=offers)


# --- loading


def _loaded(candidate: Candidate) -> object:
    try:
        plugin = candidate.load()
    except Refusal:
        raise
    except ImportError as error:
        raise Refusal(_missing_import(error, candidate)) from error
    except (SystemExit, KeyboardInterrupt) as error:
        raise Refusal(
            f"it tried to end the daemon while it was loaded ({type(error).__name__}"
            f"{f': {error}' if str(error) else ''})"
        ) from error
    except BaseException as error:
        raise Refusal(f"loading it failed: {described(error)}") from error
    if plugin is None:
        raise Refusal("there is nothing where its entry point leads")
    return plugin


def described(error: BaseException) -> str:
    """An exception in one line: its type, and what it says."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:500]}" if words else type(error).__name__


def _missing_import(error: ImportError, candidate: Candidate) -> str:
    module = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not module:
        return f"loading it failed: {described(error)}"
    if candidate.extras:
        return missing_module(module, candidate, candidate.extras[0])
    return (
        f"it needs the module {module!r}, which is not installed: "
        f"install what provides it beside atlasd (perhaps pip install {module})"
    )


def missing_module(module: str, candidate: Candidate, extra: str) -> str:
    """The sentence for a module that is not installed, with the line that installs it."""
    what = f"'{candidate.distribution}[{extra}]'" if extra else module.split(".", maxsplit=1)[0]
    return f"it needs the module {module!r}, which is not installed: pip install {what}"


# --- hooks


def _marked_hooks(manager: pluggy.PluginManager, plugin: object) -> dict[str, str]:
    """Each function marked `hookimpl`, with the hook that it means to implement."""
    marked = {}
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is not None:
            marked[name] = options.get("specname") or name
    return marked


def _known_hooks() -> list[str]:
    return [*BY_HOOK, "authorize", "review_config"]


def _check_hooks(manager: pluggy.PluginManager, plugin: object, marked: Mapping[str, str]) -> None:
    known = _known_hooks()
    for name, hook in marked.items():
        if hook not in known:
            raise Refusal(f"there is no hook {hook!r}: {nearest(hook, known)}")
        function = inspect.getattr_static(plugin, name)
        function = getattr(function, "__func__", function)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise Refusal(
                f"{name} is a coroutine: hooks are for joining, not for running; "
                "write it without async, and await in what a descriptor opens"
            )
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is not None and (options.get("wrapper") or options.get("hookwrapper")):
            raise Refusal(f"{name} wraps a hook: atlasd calls implementations one by one")
    if isinstance(plugin, types.ModuleType):
        for name, value in vars(plugin).items():
            own = getattr(value, "__module__", None) == plugin.__name__
            if name in known and name not in marked and callable(value) and own:
                raise Refusal(f"{name} lacks its mark: write @hookimpl above it")
    if not marked:
        raise Refusal("it implements no hook: mark its functions with @hookimpl")


def _last_line(error: pluggy.PluginValidationError) -> str:
    """What pluggy has to say against an implementation, in one line of ours."""
    unknown = re.search(r"Argument\(s\) \{(.*)\} are declared", str(error))
    hook = re.search(r"hook '(\w+)'", str(error))
    where = hook[1] if hook else "a hook"
    if unknown:
        return f"{where} asks for {unknown[1]}, which that hook does not give"
    return f"{where}: {' '.join(str(error).split())[-300:]}"


# --- what it supplies


def _ask(manager: pluggy.PluginManager, plugin: object) -> tuple[tuple[Kind, Descriptor], ...]:
    offers: list[tuple[Kind, Descriptor]] = []
    for kind in KINDS:
        caller = getattr(manager.hook, kind.hook)
        for implementation in caller.get_hookimpls():
            if implementation.plugin is not plugin:
                continue
            try:
                answer = implementation.function()
            except BaseException as error:
                raise Refusal(f"{kind.hook} raised {described(error)}") from error
            offers += ((kind, descriptor) for descriptor in _checked_answer(kind, answer))
    return tuple(offers)


def _checked_answer(kind: Kind, answer: object) -> list[Descriptor]:
    wanted = kind.descriptor.__name__
    if inspect.iscoroutine(answer):
        answer.close()
        raise Refusal(f"{kind.hook} gave a coroutine: it must give a list of {wanted}")
    if not isinstance(answer, list | tuple):
        raise Refusal(f"{kind.hook} gave {_shown_type(answer)}: it must give a list of {wanted}")
    if len(answer) > MOST_DESCRIPTORS:
        raise Refusal(f"{kind.hook} gave {len(answer)} things: {MOST_DESCRIPTORS} is the most")
    for item in answer:
        if not isinstance(item, kind.descriptor):
            raise Refusal(
                f"{kind.hook} gave a list with {_shown_type(item)} in it: it must give {wanted}s"
            )
    return list(answer)


def _shown_type(value: object) -> str:
    if value is None:
        return "nothing (None)"
    return f"a {type(value).__name__}"


def _check_offers(
    offers: Collection[tuple[Kind, Descriptor]],
    candidate: Candidate,
    taken: Mapping[tuple[type[Descriptor], str], str],
) -> None:
    mine: set[tuple[type[Descriptor], str]] = set()
    for kind, offer in offers:
        _check_descriptor(kind, offer)
        key = (kind.descriptor, offer.name)
        if key in taken:
            raise Refusal(
                f"its {kind.words} {offer.name!r} is already supplied by {taken[key]}: "
                "a name is taken once"
            )
        if key in mine:
            raise Refusal(f"it supplies the {kind.words} {offer.name!r} twice")
        mine.add(key)
        for module in offer.requires:
            if not _installed(module):
                raise Refusal(
                    f"its {kind.words} {offer.name!r} cannot work: "
                    + missing_module(module, candidate, offer.extra)
                )


def _installed(module: str) -> bool:
    """Whether a module can be found; neither it nor a package that it is in is imported."""
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                break
            # Under its last name alone: in full, its package would have to be imported.
            spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
    except (ImportError, ValueError):
        return False
    return spec is not None


def _check_descriptor(kind: Kind, descriptor: Descriptor) -> None:
    # Dataclasses take what they are given: here nothing is yet known to be of the stated type.
    offer: Any = descriptor
    where = f"its {kind.words} {offer.name!r}"
    dotted = isinstance(descriptor, Operation)
    form = "dotted, like shop.reindex" if dotted else "small letters, digits and underscores"
    if not _matches(_DOTTED if dotted else _NAME, offer.name):
        raise Refusal(f"{where} has no proper name: it must be {form}")
    if not isinstance(offer.summary, str) or not offer.summary.strip() or "\n" in offer.summary:
        raise Refusal(f"{where} needs a summary of one line")
    for field in ("open", "handle"):
        if hasattr(offer, field) and not callable(getattr(offer, field)):
            raise Refusal(f"{where}: {field} must be a function")
    for field in ("settings", "request", "answer"):
        if hasattr(offer, field):
            _check_model(f"{where}: {field}", getattr(offer, field), strict=field != "answer")
    if not _is_texts(offer.requires) or not isinstance(offer.extra, str):
        raise Refusal(f"{where}: requires must be a tuple of module names, and extra a text")
    fault = _KIND_RULES.get(kind.descriptor, _no_rule)(offer)
    if fault:
        raise Refusal(f"{where}: {fault}")


def _no_rule(offer: Any) -> str:  # noqa: ARG001  the shape of all rules
    return ""


def _fault_of_operation(offer: Any) -> str:
    if not _matches(_PATH, offer.path):
        return "its path must be like reindex or orders/{number}, without a leading slash"
    if offer.method not in {"GET", "POST"}:
        return "its method must be GET or POST"
    if offer.right not in {"read", "operate", "administer"}:
        return "its right must be read, operate or administer"
    return ""


def _fault_of_config_source(offer: Any) -> str:
    if not isinstance(offer.dialects, Mapping):
        return "dialects must be a mapping of names to functions"
    ways = [offer.parse, *offer.dialects.values(), offer.name_settings]
    if not all(way is None or callable(way) for way in ways):
        return "parse, name_settings and each of the dialects must be a function"
    if [offer.parse is None, not offer.dialects, offer.name_settings is None].count(False) != 1:
        return "it must have one of parse, dialects and name_settings"
    if offer.name_settings is not None:
        return "" if not offer.suffixes else "without a file it can have no suffixes"
    if offer.suffixes and _is_texts(offer.suffixes) and all(s[:1] == "." for s in offer.suffixes):
        return ""
    return "suffixes must be a tuple of endings with their dot, as ('.toml',)"


def _fault_of_check(offer: Any) -> str:
    if offer.component_type not in {"component", "datastore", "system"}:
        return "component_type must be component, datastore or system"
    return ""


def _fault_of_subscriber(offer: Any) -> str:
    if offer.kinds is None:
        return ""
    if not _is_texts(offer.kinds):
        return "kinds must be None or a tuple of words"
    for kind in offer.kinds:
        if kind not in EVENT_KINDS:
            return f"there is no event {kind!r}: {nearest(kind, list(EVENT_KINDS))}"
    return ""


def _fault_of_component(offer: Any) -> str:
    if offer.role not in {"core", "monitoring", "api"}:
        return "its role must be core, monitoring or api"
    return ""


_KIND_RULES: Mapping[type[Descriptor], Callable[[Any], str]] = {
    Operation: _fault_of_operation,
    ConfigSource: _fault_of_config_source,
    CheckType: _fault_of_check,
    Subscriber: _fault_of_subscriber,
    Component: _fault_of_component,
}


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


def _check_model(where: str, model: object, *, strict: bool) -> None:
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise Refusal(f"{where} must be a pydantic model, and is {_shown_type(model)}")
    if strict and model.model_config.get("extra") != "forbid":
        raise Refusal(
            f"{where} would let misspelt names pass: derive the model from "
            "atlasd.contracts.settings.Settings"
        )
