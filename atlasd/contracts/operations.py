"""What a control operation promises: a path below the plugin's own, a shape, a right, an answer."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from atlasd.contracts.context import PluginContext


@dataclass(frozen=True, kw_only=True)
class Operation:
    """Something that core can be asked over its control socket, from `register_operations`.

    It stands in the OpenAPI document beside atlasd's own, and `authorize` hooks see its name.
    """

    name: str
    """Dotted, `shop.reindex`; no operation of atlasd's own may have it."""
    summary: str
    """One sentence for the reference."""
    path: str
    """Below `/v1/plugins/<plugin>/`, without a leading slash: `reindex`."""
    request: type[BaseModel]
    """Strict model of the request: of the query string (GET) or of the JSON body (POST)."""
    answer: type[BaseModel]
    handle: Callable[[Any, PluginContext], Awaitable[BaseModel]]
    """Called with the validated request; gives an `answer`. An `AtlasError`
    reaches the caller as it is (codes of a plugin's own start with `plugin.`); anything else that
    it raises is counted as a failure of the plugin, and so is taking longer than 30 s."""
    method: Literal["GET", "POST"] = "GET"
    """POST for whatever changes something."""
    right: Literal["read", "operate", "administer"] = "administer"
    """What the caller must be allowed to do."""
    requires: tuple[str, ...] = ()
    extra: str = ""
