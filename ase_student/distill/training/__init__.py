"""Training of a student on labelled structures."""
