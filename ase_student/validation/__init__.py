"""Validation of students: errors, where they occur, and checks of physics."""
