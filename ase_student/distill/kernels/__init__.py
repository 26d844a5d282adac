"""A student's network with its sums over pairs compiled for this processor, to train fast."""

from ase_student.distill.kernels.network import CompiledNetwork

__all__ = ["CompiledNetwork"]
