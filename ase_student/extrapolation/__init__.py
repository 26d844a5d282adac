"""The guard: whether a structure is like those that a student was trained on."""
