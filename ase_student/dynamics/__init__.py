"""Langevin dynamics, many trajectories at once, and changes of bonds."""
