"""Langevin dynamics, many trajectories at once, and what becomes of bonds."""
