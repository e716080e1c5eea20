"""Published recipes, as YAML package data."""
