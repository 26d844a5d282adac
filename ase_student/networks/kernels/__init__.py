"""Network of a student, compiled for this processor, with gradients by its weights."""

from ase_student.networks.kernels.network import (
    CompiledNetwork,
    PairList,
    PairResults,
    PairStructures,
    pair_list,
)

__all__ = ["CompiledNetwork", "PairList", "PairResults", "PairStructures", "pair_list"]
