"""Measure how fast students are, compare with earlier measurements and draw them."""
