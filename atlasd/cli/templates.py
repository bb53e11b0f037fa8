"""What `atlasctl plugins new` writes: for each kind, a small drop-in that works as it stands."""

from collections.abc import Mapping

_CHECK = '''"""The check type `{name}`: says whether a file is smaller than it may be."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from pydantic import Field

from atlasd import hookimpl
from atlasd.contracts.checks import Check, CheckResult, CheckType, Health
from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import Settings

ATLASD_API = 1


class {title}Settings(Settings):
    """What can be set in `[checks.ANY]` beside `type = "{name}"`."""

    path: str = Field(default="/etc/hostname", description="The file to look at.")
    limit: int = Field(default=1_000_000, ge=0, description="Bytes that it may have.")


class {title}Check:
    """One configured check."""

    def __init__(self, settings: {title}Settings, context: PluginContext) -> None:
        self._settings = settings
        self._context = context

    async def run(self, limit: timedelta, /) -> CheckResult:
        """The verdict, within `limit`. A target that is down is a verdict, not an exception."""
        try:
            # What may block belongs in a thread of the plugin's own.
            found = await self._context.in_thread(Path(self._settings.path).stat)
        except OSError as error:
            return CheckResult(status=Health.FAIL, output=f"{{self._settings.path}}: {{error}}")
        size = found.st_size
        if size > self._settings.limit:
            return CheckResult(
                status=Health.WARN,
                output=f"{{self._settings.path}} has {{size}} bytes",
                observed_value=size,
                observed_unit="By",
            )
        return CheckResult(status=Health.PASS, observed_value=size, observed_unit="By")


@asynccontextmanager
async def open_check(settings: {title}Settings, context: PluginContext) -> AsyncIterator[Check]:
    """Open connections here, and close them after the `yield`."""
    yield {title}Check(settings, context)


@hookimpl
def register_health_checks() -> list[CheckType]:
    """Called once at start; only describes, touches nothing."""
    return [
        CheckType(
            name="{name}",
            summary="A file is not larger than it may be",
            settings={title}Settings,
            open=open_check,
            measurement="size",
        )
    ]
'''

_SUBSCRIBER = '''"""The subscriber `{name}`: writes a line to atlasd's log for every crash."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import Field

from atlasd import hookimpl
from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import Settings
from atlasd.contracts.subscribers import Handler, Subscriber
from atlasd.events import Event, InstanceCrashed

ATLASD_API = 1


class {title}Settings(Settings):
    """What can be set in `[plugins.{name}]`."""

    prefix: str = Field(default="crash", description="The first word of each line.")


class {title}Handler:
    """Takes facts one after the other; what it raises is counted, and the next one comes."""

    def __init__(self, settings: {title}Settings, context: PluginContext) -> None:
        self._settings = settings
        self._context = context

    async def handle(self, event: Event) -> None:
        """Take one fact."""
        if isinstance(event, InstanceCrashed):
            self._context.log.warning(
                "%s: %s/%s: %s", self._settings.prefix, event.service, event.instance, event.detail
            )


@asynccontextmanager
async def open_handler(
    settings: {title}Settings, context: PluginContext
) -> AsyncIterator[Handler]:
    """Open connections here, and close them after the `yield`."""
    yield {title}Handler(settings, context)


@hookimpl
def register_subscribers() -> list[Subscriber]:
    """Called once at start; only describes, touches nothing."""
    return [
        Subscriber(
            name="{name}",
            summary="A line in the log for every crash",
            kinds=("crash",),
            settings={title}Settings,
            open=open_handler,
        )
    ]
'''

_OPERATION = '''"""The operation `{name}.greet`: answers a greeting over the control socket."""

from pydantic import Field

from atlasd import hookimpl
from atlasd.contracts.context import PluginContext
from atlasd.contracts.operations import Operation
from atlasd.contracts.settings import Settings

ATLASD_API = 1


class Request(Settings):
    """What is asked: a query string for GET, a JSON body for POST."""

    whom: str = Field(default="world", max_length=100, description="Who is greeted.")


class Answer(Settings):
    """What is answered."""

    greeting: str = Field(description="The greeting.")


async def greet(request: Request, context: PluginContext) -> Answer:
    """Called with the validated request."""
    context.log.debug("greeting %s", request.whom)
    return Answer(greeting=f"hello, {{request.whom}}")


@hookimpl
def register_operations() -> list[Operation]:
    """Called once at start; only describes, touches nothing.

    Try it: `curl --unix-socket SOCKET http://localhost/v1/plugins/{name}/greet?whom=you`
    """
    return [
        Operation(
            name="{name}.greet",
            summary="Answers a greeting.",
            path="greet",
            request=Request,
            answer=Answer,
            handle=greet,
            method="GET",
            right="read",
        )
    ]
'''

_COLLECTOR = '''"""The collector `{name}`: the sizes of a few folders, as metrics."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import Field

from atlasd import hookimpl
from atlasd.contracts.collectors import Collector, CollectorType, Metric, Sample
from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import Settings

ATLASD_API = 1


class {title}Settings(Settings):
    """What can be set in `[plugins.{name}]`."""

    folders: list[str] = Field(default=["/tmp"], description="Folders whose entries are counted.")


def _count(folder: str) -> int:
    try:
        return sum(1 for _ in Path(folder).iterdir())
    except OSError:
        return 0


class {title}Collector:
    """Asked at every scrape, so it must be quick."""

    def __init__(self, settings: {title}Settings, context: PluginContext) -> None:
        self._settings = settings
        self._context = context

    async def collect(self) -> Sequence[Metric]:
        """The metrics now."""
        samples = [
            Sample(value=await self._context.in_thread(_count, folder), labels={{"folder": folder}})
            for folder in self._settings.folders
        ]
        return [
            Metric(
                name="{name}_entries",
                help="Entries of a folder.",
                kind="gauge",
                samples=tuple(samples),
            )
        ]


@asynccontextmanager
async def open_collector(
    settings: {title}Settings, context: PluginContext
) -> AsyncIterator[Collector]:
    """Open connections here, and close them after the `yield`."""
    yield {title}Collector(settings, context)


@hookimpl
def register_collectors() -> list[CollectorType]:
    """Called once at start; only describes, touches nothing."""
    return [
        CollectorType(
            name="{name}",
            summary="How many entries folders have",
            settings={title}Settings,
            open=open_collector,
        )
    ]
'''

_COMPONENT = '''"""The component `{name}`: does something every now and then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from pydantic import Field

from atlasd import hookimpl
from atlasd.contracts.components import Component, Part
from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import Duration, Settings

ATLASD_API = 1


class {title}Settings(Settings):
    """What can be set in `[plugins.{name}]`."""

    every: Duration = Field(default=timedelta(minutes=1), description="Time between two turns.")


class {title}Part:
    """Runs until it is cancelled."""

    def __init__(self, settings: {title}Settings, context: PluginContext) -> None:
        self._settings = settings
        self._context = context

    async def run(self) -> None:
        """Work; what is raised has it opened and run again after a while."""
        while True:
            self._context.log.debug("still here")
            await asyncio.sleep(self._settings.every.total_seconds())


@asynccontextmanager
async def open_part(settings: {title}Settings, context: PluginContext) -> AsyncIterator[Part]:
    """Open connections here, and close them after the `yield`."""
    yield {title}Part(settings, context)


@hookimpl
def register_components() -> list[Component]:
    """Called once at start; only describes, touches nothing."""
    return [
        Component(
            name="{name}",
            summary="Does something every now and then",
            settings={title}Settings,
            open=open_part,
        )
    ]
'''

_CONFIG_SOURCE = '''"""The config source `{name}`: lines of `section.key = JSON value`."""

import json
from typing import Any

from atlasd import hookimpl
from atlasd.contracts.config import ConfigSource, KeyPath, Layer, Position
from atlasd.errors import AtlasError

ATLASD_API = 1


def parse(text: str, origin: str, /) -> Layer:
    """The text's settings, and where each of them stands."""
    data: dict[str, Any] = {{}}
    values: dict[KeyPath, Position] = {{}}
    keys: dict[KeyPath, Position] = {{}}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        path = tuple(name.strip().split("."))
        if not equals or "" in path:
            raise _invalid(origin, number, "expected section.key = value")
        try:
            decoded = json.loads(value)
        except ValueError as error:
            raise _invalid(origin, number, f"the value is not JSON: {{error}}") from None
        key_position = Position(origin=origin, line=number, column=1)
        table = data
        for depth, part in enumerate(path[:-1], start=1):
            table = table.setdefault(part, {{}})
            keys.setdefault(path[:depth], key_position)
            values.setdefault(path[:depth], key_position)
            if not isinstance(table, dict):
                raise _invalid(origin, number, f"{{part}} has a value of its own already")
        if path[-1] in table:
            raise _invalid(origin, number, f"{{name.strip()}} is there already")
        table[path[-1]] = decoded
        keys[path] = key_position
        place = Position(origin=origin, line=number, column=len(name) + 2)
        _note(values, keys, path, decoded, place)
    return Layer(origin=origin, data=data, values=values, keys=keys)


def _note(
    values: dict[KeyPath, Position],
    keys: dict[KeyPath, Position],
    path: KeyPath,
    value: object,
    place: Position,
) -> None:
    """The positions of a value and of all that is in it: those of its line."""
    values[path] = place
    if isinstance(value, dict):
        for key, below in value.items():
            keys[(*path, key)] = place
            _note(values, keys, (*path, key), below, place)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            _note(values, keys, (*path, index), below, place)


def _invalid(origin: str, line: int, what: str) -> AtlasError:
    return AtlasError(
        "config.invalid",
        f"{{origin}}:{{line}}:1: {{what}}",
        details={{"origin": origin, "line": line, "column": 1}},
    )


@hookimpl
def register_config_sources() -> list[ConfigSource]:
    """Called once at start; only describes, touches nothing."""
    return [
        ConfigSource(
            name="{name}",
            summary="Lines of section.key = JSON value",
            suffixes=(".{name}",),
            parse=parse,
        )
    ]
'''

_BACKEND = '''"""The secret backend `{name}`: a folder with one secret a file, read only."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from pydantic import Field

from atlasd import hookimpl
from atlasd.contracts.context import PluginContext
from atlasd.contracts.secrets import (
    CURRENT,
    Capability,
    SecretBackend,
    SecretInfo,
    SecretStore,
    SecretValue,
    SecretVersion,
)
from atlasd.contracts.settings import Settings
from atlasd.errors import AtlasError

ATLASD_API = 1


class {title}Settings(Settings):
    """What can be set in `[secrets.backends.{name}]`."""

    folder: str = Field(default="/run/secrets", description="The folder with the secrets.")


class {title}Store:
    """The secrets of the environment `context.environment`; here they are the same in all."""

    def __init__(self, settings: {title}Settings, context: PluginContext) -> None:
        self._folder = Path(settings.folder)
        self._context = context
        # A configuration asks for many secrets at once; the plugin has only so many threads.
        self._turns = asyncio.Semaphore(8)

    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        """One version, with its value. Never put a value into an error or a log."""
        # What may block belongs in a thread of the plugin's own.
        async with self._turns:
            id_, raw = await self._context.in_thread(self._read, name)
        if version not in ("", id_) or (not version and stage != CURRENT):
            raise AtlasError(
                "secret.not_found", f"secret {{name!r}} has no other version than its current one"
            )
        return SecretVersion(name=name, version=id_, stages=(CURRENT,), value=SecretValue(raw))

    async def describe(self, name: str) -> SecretInfo:
        """What is known of it."""
        async with self._turns:
            id_, _ = await self._context.in_thread(self._read, name)
        return SecretInfo(name=name, current=id_)

    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        """All secrets whose name starts so, by name."""
        names = await self._context.in_thread(self._names)
        return [SecretInfo(name=name) for name in names if name.startswith(prefix)]

    # What `capabilities` below doesn't name is refused by its name.

    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        """Store a new version: it is durable when this returns."""
        _cannot("put")

    async def versions(self, name: str) -> Sequence[SecretVersion]:
        """All versions, the newest first, without their values."""
        _cannot("versions")

    async def stage(self, name: str, version: str, stage: str) -> None:
        """Move a stage to a version."""
        _cannot("stage")

    async def delete(self, name: str, *, recovery: timedelta | None = None) -> SecretInfo:
        """Delete it."""
        _cannot("delete")

    async def recover(self, name: str) -> SecretInfo:
        """Have a deleted one back."""
        _cannot("recover")

    def _read(self, name: str) -> tuple[str, bytes]:
        """The id of a secret's only version, and its bytes."""
        parts = name.split("/")
        if not name.isprintable() or len(name) > 200 or {{"", ".", ".."}} & {{*parts}}:
            raise AtlasError("secret.invalid", f"a secret cannot be called {{name[:80]!r}}")
        path = self._folder.joinpath(*parts)
        try:
            return f"{{path.stat().st_mtime_ns:x}}", path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise AtlasError(
                "secret.not_found",
                f"there is no secret {{name!r}}: there is no file {{path}}",
                hint="`atlasctl secret list` shows what there is",
            ) from None
        except OSError as error:
            raise _unavailable(path, error) from error

    def _names(self) -> Sequence[str]:
        try:
            next(self._folder.iterdir(), None)  # what follows takes no notice of an error
        except OSError as error:
            raise _unavailable(self._folder, error) from error
        files = (path for path in self._folder.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self._folder)) for path in files)


def _unavailable(path: Path, error: OSError) -> AtlasError:
    # Of all codes only this one, and secret.throttled, are worth another try.
    return AtlasError("secret.unavailable", f"{{path}} cannot be read: {{error.strerror}}")


def _cannot(operation: str) -> NoReturn:
    raise AtlasError("secret.unsupported", f"the backend {name} has no {{operation}}")


@asynccontextmanager
async def open_backend(
    settings: {title}Settings, context: PluginContext
) -> AsyncIterator[SecretStore]:
    """Open connections here. One that cannot be made must not fail here: the calls say so."""
    yield {title}Store(settings, context)


@hookimpl
def register_secret_backends() -> list[SecretBackend]:
    """Called once at start; only describes, touches nothing.

    Try it: `secret://{name}/NAME` in the configuration.
    """
    return [
        SecretBackend(
            name="{name}",
            summary="A folder with one secret a file, read only",
            settings={title}Settings,
            open=open_backend,
            capabilities=frozenset({{Capability.LIST}}),
        )
    ]
'''

TEMPLATES: Mapping[str, str] = {
    "check": _CHECK,
    "subscriber": _SUBSCRIBER,
    "operation": _OPERATION,
    "collector": _COLLECTOR,
    "component": _COMPONENT,
    "config_source": _CONFIG_SOURCE,
    "secret_backend": _BACKEND,
}
"""Texts by kind, as the plugin host labels them, with `{name}` and `{title}`."""


def drop_in(kind: str, name: str) -> str:
    """The source of a new plugin. Raises `KeyError` for an unknown kind."""
    title = "".join(part.title() for part in name.split("_"))
    return TEMPLATES[kind].format(name=name, title=title)
