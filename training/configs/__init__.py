"""Configurations of the training runs, as TOML."""
