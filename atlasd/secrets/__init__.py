"""The engine of secrets: fetched once, kept for a bounded time, rotated, and every use written."""
