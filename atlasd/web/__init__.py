"""The api role: health and metrics over HTTP, and nothing that needs a secret."""
