"""How good a potential is at chemistry: interactions, torsions, conformers, crystals, liquids."""
