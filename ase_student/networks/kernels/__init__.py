"""A student's network with its sums over pairs compiled for this processor."""

from ase_student.networks.kernels.network import CompiledNetwork

__all__ = ["CompiledNetwork"]
