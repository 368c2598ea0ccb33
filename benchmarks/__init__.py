"""Measurements by hand; see docs/performance.md for what they gave."""
