"""Checks of what no data set can show: that a student is a potential at all."""
