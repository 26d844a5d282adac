"""Training of a student on labeled structures."""
