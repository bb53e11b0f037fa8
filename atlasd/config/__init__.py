"""Configuration: layers of sources, merged, validated strictly, diffed into a plan."""
