"""The roll of plugins: everyone who was found, who was admitted, and what they supply."""

import importlib.metadata
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from atlasd.contracts.operations import Operation
from atlasd.contracts.settings import NoSettings
from atlasd.errors import AtlasError, nearest
from atlasd.pluginhost.admission import Admitted, admit, new_manager
from atlasd.pluginhost.candidates import Candidate, Refusal, find_entry_points
from atlasd.pluginhost.drop_ins import find_drop_ins
from atlasd.pluginhost.kinds import BY_DESCRIPTOR, Descriptor, claims_in, kind_of

D_co = TypeVar("D_co", bound=Descriptor, covariant=True)
D = TypeVar("D", bound=Descriptor)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Offer(Generic[D_co]):
    """Something that an admitted plugin supplies."""

    plugin: str
    descriptor: D_co


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A candidate that was not admitted, and the sentence that says why."""

    candidate: Candidate
    reason: str

    def would_supply(self, kind: type[Descriptor], name: str) -> bool:
        """Whether it would have supplied this, as far as its name and its source text tell."""
        return self.candidate.name == name or (kind, name) in claims_in(self.candidate.sources)


class Roll:
    """Admits plugins, one after the other, and knows what they supply."""

    def __init__(self, *, reserved_operations: Collection[str] = ()) -> None:
        self.manager = new_manager()
        self.admitted: dict[str, Admitted] = {}
        self.refused: list[Refused] = []
        self._offers: dict[tuple[type[Descriptor], str], Offer[Descriptor]] = {}
        self._reserved = frozenset(reserved_operations)

    def find_candidates(
        self,
        drop_ins: Path | None,
        entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    ) -> list[Candidate]:
        """Everything that might become a plugin, in the order in which it is to be admitted."""
        found = find_entry_points(entry_points)
        return found + (find_drop_ins(drop_ins) if drop_ins is not None else [])

    def take(self, candidate: Candidate) -> None:
        """Admit a candidate or refuse it; what it does never reaches the caller."""
        try:
            self._admit(candidate)
        except Refusal as refusal:
            self.refused.append(Refused(candidate=candidate, reason=refusal.reason))
            _log.warning(
                "plugin %s (%s) is refused: %s", candidate.name, candidate.origin, refusal.reason
            )
            _log.debug("plugin %s", candidate.name, exc_info=refusal)

    def _admit(self, candidate: Candidate) -> None:
        if candidate.name in self.admitted:
            other = self.admitted[candidate.name].candidate
            raise Refusal(f"there is already a plugin {candidate.name!r}, from {other.origin}")
        taken = {key: f"plugin {offer.plugin}" for key, offer in self._offers.items()}
        taken.update({(Operation, name): "atlasd itself" for name in self._reserved})
        admitted = admit(self.manager, candidate, taken)
        try:
            self._check_tables(admitted)
        except Refusal:
            self.manager.unregister(admitted.plugin)
            raise
        self.admitted[candidate.name] = admitted
        for kind, descriptor in admitted.offers:
            offer = Offer(plugin=candidate.name, descriptor=descriptor)
            self._offers[kind.descriptor, descriptor.name] = offer

    def _check_tables(self, admitted: Admitted) -> None:
        """A table `[plugins.NAME]` has one model, whoever reads it."""
        models = self.tables()
        for kind, descriptor in admitted.offers:
            model = table_model(descriptor)
            if model is not None and models.setdefault(descriptor.name, model) is not model:
                raise Refusal(
                    f"its {kind.words} {descriptor.name!r} reads the settings "
                    f"[plugins.{descriptor.name}], which are already read in another form"
                )

    def offers(self, kind: type[D]) -> tuple[Offer[D], ...]:
        """What is supplied of one kind, named by its descriptor, in the order of names."""
        found = [
            Offer(plugin=offer.plugin, descriptor=offer.descriptor)
            for offer in self._offers.values()
            if isinstance(offer.descriptor, kind)
        ]
        return tuple(sorted(found, key=lambda offer: offer.descriptor.name))

    def find(self, kind: type[D], name: str, *, wanted_by: str = "") -> Offer[D]:
        """What is supplied under a name.

        `wanted_by` says who asks, as `checks.web.type`, and opens the message. Raises `AtlasError`:
        "plugin.refused" when a plugin that was refused would have supplied it, with the reason;
        "plugin.unknown" otherwise.
        """
        for offer in self.offers(kind):
            if offer.descriptor.name == name:
                return offer
        words = BY_DESCRIPTOR[kind].words
        asks = f"{wanted_by}: " if wanted_by else ""
        suppliers = [r for r in self.refused if r.would_supply(kind, name)]
        if suppliers:
            because = "; ".join(
                f"plugin {r.candidate.name} ({r.candidate.origin}) was refused: {r.reason}"
                for r in suppliers
            )
            raise AtlasError(
                "plugin.refused",
                f"{asks}there is no {words} {name!r}, because {because}",
                hint="`atlasctl plugins` shows every plugin and why it was refused",
            )
        known = [offer.descriptor.name for offer in self.offers(kind)]
        raise AtlasError(
            "plugin.unknown",
            f"{asks}no plugin supplies a {words} {name!r}",
            hint=nearest(name, known) or f"no plugin supplies any {words}",
        )

    def tables(self) -> dict[str, type[BaseModel]]:
        """The model of each settings table `[plugins.NAME]`, by name."""
        models = {}
        for (_, name), offer in self._offers.items():
            model = table_model(offer.descriptor)
            if model is not None:
                models[name] = model
        return models

    def table_owners(self) -> dict[str, str]:
        """The plugin that reads each settings table `[plugins.NAME]`, by name."""
        return {
            name: offer.plugin
            for (_, name), offer in self._offers.items()
            if table_model(offer.descriptor) is not None
        }


def table_model(descriptor: Descriptor) -> type[BaseModel] | None:
    """The model of what a descriptor reads from `[plugins.NAME]`; None when it reads nothing.

    A check's settings stand in `[checks.NAME]` instead, those of a secret backend in
    `[secrets.backends.NAME]`.
    """
    model = getattr(descriptor, "settings", None)
    if kind_of(descriptor).label in ("check", "secret_backend") or model is NoSettings:
        return None
    return model
