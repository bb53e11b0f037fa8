"""Every hook of atlasd, in one file: when it runs, and what an implementation returns.

A plugin is a module (or a folder, or an installed distribution) with functions marked `hookimpl`:

    from atlasd import hookimpl
    from atlasd.contracts.checks import CheckType

    ATLASD_API = 1

    @hookimpl
    def register_health_checks() -> list[CheckType]:
        return [CheckType(name="queue_depth", summary="...", settings=Settings, open=open_check)]

Registration hooks are for joining, not for running. Each is called once in every role, at start,
before the configuration is read, with nothing but the plugin in memory; it returns a list of
descriptors, made of plain values and functions, and touches nothing outside. What runs later is
an object that a descriptor's `open` gives. None of them may be a coroutine.

One implementation that raises, returns something else, or claims a name that is taken costs its
own plugin the admission, and no other.
"""

import pluggy

from atlasd.contracts.authorization import Actor, Decision
from atlasd.contracts.checks import CheckType
from atlasd.contracts.collectors import CollectorType
from atlasd.contracts.components import Component
from atlasd.contracts.config import ConfigSource
from atlasd.contracts.operations import Operation
from atlasd.contracts.queue import QueueStoreType
from atlasd.contracts.review import ConfigDiff, Objection
from atlasd.contracts.secrets import RotatorType, SecretBackend
from atlasd.contracts.subscribers import Subscriber

HOOK_API = 1
"""The version of the hooks and contracts below. A plugin says `ATLASD_API = 1`; one that says a
higher number was written for a later atlasd and is refused."""

hookspec = pluggy.HookspecMarker("atlasd")


@hookspec
def register_config_sources() -> list[ConfigSource]:  # type: ignore[empty-body]
    """Kinds of configuration files that this plugin can read, each with positions.

    Called before any configuration is known.
    """


@hookspec
def register_secret_backends() -> list[SecretBackend]:  # type: ignore[empty-body]
    """Places where secrets are kept, for `secret://NAME/...` and `[secrets.backends.*]`.

    They are opened in every role that resolves a configuration, when the first secret is needed.
    """


@hookspec
def register_secret_rotators() -> list[RotatorType]:  # type: ignore[empty-body]
    """Ways to rotate secrets, for `rotator = "..."` in `[secrets.rotate.*]`.

    They are opened in core, for one rotation each.
    """


@hookspec
def register_queue_stores() -> list[QueueStoreType]:  # type: ignore[empty-body]
    """Places where jobs are kept, for `store = "..."` in `[jobs]`.

    The one that is configured is opened in core, in the loop of the job engine.
    """


@hookspec
def register_health_checks() -> list[CheckType]:  # type: ignore[empty-body]
    """Types of health checks, for `type = "..."` in the configuration's checks.

    They are opened in the monitoring role, once for each check that is configured.
    """


@hookspec
def register_subscribers() -> list[Subscriber]:  # type: ignore[empty-body]
    """Readers of facts. They are opened in core, and handed facts from then on."""


@hookspec
def register_operations() -> list[Operation]:  # type: ignore[empty-body]
    """Operations below `/v1/plugins/<plugin>/` of the control socket, served by core."""


@hookspec
def register_collectors() -> list[CollectorType]:  # type: ignore[empty-body]
    """Sources of metrics. They are opened in core, and asked at every scrape."""


@hookspec
def register_components() -> list[Component]:  # type: ignore[empty-body]
    """Long-running parts. They are opened and run in the role that they name."""


@hookspec(firstresult=True)
def authorize(actor: Actor, operation: str) -> Decision | None:
    """Whether `actor` may perform `operation` (its dotted name), or None for no opinion.

    Asked in core before every operation that atlasd's own rights already allow, so an
    implementation can refuse what would be allowed and never the reverse. The first decision
    stands. It must be quick and pure: it runs in core's loop. One that raises, or returns
    something else, refuses: a broken lock is a locked one.
    """


@hookspec
def review_config(diff: ConfigDiff) -> Objection | None:
    """An objection to a change of the configuration, or None.

    Asked in core of every plugin before a new generation takes the place of the one in force; any
    objection stops it, and nothing has changed. It must be quick and pure, as `authorize`. One
    that raises, or returns something else, objects.
    """
