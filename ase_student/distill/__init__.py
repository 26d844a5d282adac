"""Distillation: from structures and a teacher to a small student."""
