"""Smaller students: weights in fewer bits, INT8 arithmetic, and what each of them costs.

Nothing here is written without being measured beside the same student in float32: size, speed,
errors, agreement of forces with differences of the energy, energy drift, dependence on what else is
in a call. `docs/compression.md` says what came out.
"""

#: INT8 arithmetic. Dynamic quantization takes the scale of the activations from each call, static
#: quantization from calibration structures, once and for all.
KINDS = ("int8-dynamic", "int8-static")
#: Weights in fewer bits, computed with in float32.
ROUNDINGS = ("float16", "bfloat16", "int8-weights")
#: 'int8' makes both of `KINDS` and keeps the one whose forces are closer.
SCHEMES = ("int8", *KINDS, *ROUNDINGS)
