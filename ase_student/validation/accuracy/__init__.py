"""Errors of students on labeled structures: passes over files, metrics, intervals."""
