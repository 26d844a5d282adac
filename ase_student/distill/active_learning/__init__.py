"""Uncertainty of a student's forces, and selection of structures to label."""
