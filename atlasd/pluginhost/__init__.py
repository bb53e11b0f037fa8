"""Plugins: found, admitted or refused with a sentence, asked, put to work, and reported on."""

from atlasd.pluginhost.host import PluginHost
from atlasd.pluginhost.ledger import Cost
from atlasd.pluginhost.report import OfferReport, PluginReport, PluginState
from atlasd.pluginhost.roll import Offer
from atlasd.pluginhost.work import RunningCheck

__all__ = [
    "Cost",
    "Offer",
    "OfferReport",
    "PluginHost",
    "PluginReport",
    "PluginState",
    "RunningCheck",
]
