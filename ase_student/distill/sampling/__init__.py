"""Sampling of structures: dynamics, displacements, clusters, crystals, dimers."""
