"""The job engine: states and rules, apart from the store that keeps the jobs."""
