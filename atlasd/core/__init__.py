"""The engine of the core role: what is wanted, what was done about it, and how it all stands."""
