"""The api role: health, metrics and the pages that face the network."""
