"""Recipes: all steps of a distillation in one TOML file."""
