"""The kinds of things that plugins supply, each by its hook, its descriptor and its words."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atlasd.contracts.checks import CheckType
from atlasd.contracts.collectors import CollectorType
from atlasd.contracts.components import Component
from atlasd.contracts.config import ConfigSource
from atlasd.contracts.operations import Operation
from atlasd.contracts.queue import QueueStoreType
from atlasd.contracts.secrets import RotatorType, SecretBackend
from atlasd.contracts.subscribers import Subscriber


class Descriptor(Protocol):
    """What every descriptor has."""

    @property
    def name(self) -> str:
        """The name by which it is chosen."""

    @property
    def summary(self) -> str:
        """One line of help."""

    @property
    def requires(self) -> tuple[str, ...]:
        """Modules that its work imports."""

    @property
    def extra(self) -> str:
        """The extra of its distribution that brings them."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of thing."""

    label: str
    """In metrics, and on the command line: `check`."""
    words: str
    """For people: `check type`."""
    hook: str
    descriptor: type[Descriptor]


KINDS = (
    Kind(
        label="config_source",
        words="config source",
        hook="register_config_sources",
        descriptor=ConfigSource,
    ),
    Kind(
        label="secret_backend",
        words="secret backend",
        hook="register_secret_backends",
        descriptor=SecretBackend,
    ),
    Kind(
        label="secret_rotator",
        words="secret rotator",
        hook="register_secret_rotators",
        descriptor=RotatorType,
    ),
    Kind(
        label="queue_store",
        words="queue store",
        hook="register_queue_stores",
        descriptor=QueueStoreType,
    ),
    Kind(
        label="check",
        words="check type",
        hook="register_health_checks",
        descriptor=CheckType,
    ),
    Kind(
        label="subscriber",
        words="subscriber",
        hook="register_subscribers",
        descriptor=Subscriber,
    ),
    Kind(
        label="operation",
        words="operation",
        hook="register_operations",
        descriptor=Operation,
    ),
    Kind(
        label="collector",
        words="collector",
        hook="register_collectors",
        descriptor=CollectorType,
    ),
    Kind(
        label="component",
        words="component",
        hook="register_components",
        descriptor=Component,
    ),
)
"""Every kind, in the order in which its hook is called."""

BY_HOOK = {kind.hook: kind for kind in KINDS}
BY_DESCRIPTOR: dict[type[Descriptor], Kind] = {kind.descriptor: kind for kind in KINDS}


def kind_of(descriptor: Descriptor) -> Kind:
    """The kind of a descriptor, or of one derived from it."""
    return next(kind for kind in KINDS if isinstance(descriptor, kind.descriptor))


def claims_in(sources: Iterable[Path]) -> frozenset[tuple[type[Descriptor], str]]:
    """What source texts would supply, read without running them: `CheckType(name="disk", ...)`.

    A guess for plugins that could not be loaded; names that are computed stay unseen.
    """
    by_name = {descriptor.__name__: descriptor for descriptor in BY_DESCRIPTOR}
    found = set()
    for source in sources:
        try:
            tree = ast.parse(source.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            word = called.id if isinstance(called, ast.Name) else called
            descriptor = by_name.get(word) if isinstance(word, str) else None
            for argument in node.keywords:
                value = argument.value
                if (
                    descriptor is not None
                    and argument.arg == "name"
                    and isinstance(value, ast.Constant)
                    and isinstance(value.value, str)
                ):
                    found.add((descriptor, value.value))
    return frozenset(found)
