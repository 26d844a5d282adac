"""Errors of students on labelled structures: passes over files, metrics, intervals."""
