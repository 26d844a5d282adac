"""Stability of dynamics, of molecules and of boxes of water."""
