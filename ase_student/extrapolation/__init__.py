"""The guard: compares structures with those that a student was trained on."""
