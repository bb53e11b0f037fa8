"""What plugin authors test with: fixtures, a hand-wound clock, conformance suites."""
