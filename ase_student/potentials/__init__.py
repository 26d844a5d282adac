"""Energies and forces of students, teachers and ASE calculators, by one protocol."""
