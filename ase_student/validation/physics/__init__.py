"""Checks of physics that need no reference data: symmetries, derivatives, dynamics."""
