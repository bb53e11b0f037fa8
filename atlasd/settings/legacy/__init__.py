"""Configuration that applications have already, taken over as TOML; no loss is silent."""
