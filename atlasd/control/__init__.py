"""The control socket: one table of operations, its server and its client."""
