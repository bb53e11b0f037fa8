"""Settings of applications: read, typed, validated, and given to the services that want them."""
