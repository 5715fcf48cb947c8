"""Suites: data, models, pairs and recipes of a benchmark, as TOML files with a typed schema."""
