"""Molecules by SMILES: lists, conformers, variants, and what kinds of atoms they cover."""
