"""The check engine: runs configured checks, each in its own time, and reports their verdicts."""
