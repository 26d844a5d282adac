"""Compression of students: weights in fewer bits, INT8 arithmetic, and their loss of accuracy.

Before a file is written, it is compared with the same student in float32: size, speed, errors,
agreement of forces with differences of the energy, energy drift, and dependence on other structures
in the same call. `docs/compression.md` has the results.
"""

#: INT8 arithmetic. Dynamic quantization takes the scale of the activations from each call, static
#: quantization takes it once, from calibration structures.
KINDS = ("int8-dynamic", "int8-static")
#: Weights that are stored in fewer bits; computations are in float32.
ROUNDINGS = ("float16", "bfloat16", "int8-weights")
#: 'int8' makes both of `KINDS` and keeps the file with the smaller error of the forces.
SCHEMES = ("int8", *KINDS, *ROUNDINGS)
