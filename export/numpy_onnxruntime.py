"""Run an exported ONNX file with NumPy and ONNX Runtime, and compare with its own references.

    python numpy_onnxruntime.py tiny.onnx

Nothing else is imported, so this is also what an engine in another language has to do.
"""

import itertools
import json
import sys

import numpy as np
import onnxruntime

# float32 against the float64 results in the file.
LARGEST_DIFFERENCE = 1e-4  # eV/Å for forces, eV per atom for energies and virials
GPA = 160.21766  # in one eV/Å³


def neighbor_matrix(positions, cell, pbc, cutoff):
    """Return all neighbors closer than the cutoff, periodic images included, by trying all pairs.

    Parameters
    ----------
    positions : (n_atoms, 3) float, Å
        Anywhere: atoms need not be inside the cell.
    cell : (3, 3) float, Å
        Rows are lattice vectors. It may be smaller than the cutoff.
    pbc : (3,) bool
        Which axes are periodic.
    cutoff : float, Å

    Returns
    -------
    neighbors : (n_atoms, n_neighbors) int64
        Unused places repeat the atom's own index.
    offsets : (n_atoms, n_neighbors, 3) float64, Å
        Lattice translation of the neighbor's image. Unused places lie beyond the cutoff.
    """
    vectors = cell[pbc]
    to_fractions = np.linalg.pinv(vectors)  # (3, number of periodic axes)
    # How many cells away an image can be: lattice planes are 1 / |column| apart, and atoms may
    # themselves be cells apart.
    reach = cutoff * np.linalg.norm(to_fractions, axis=0) + np.ptp(positions @ to_fractions, axis=0)
    cells = itertools.product(*(range(-n, n + 1) for n in np.ceil(reach).astype(int)))
    translations = np.array(list(cells)) @ vectors  # (n_cells, 3)

    pairs = positions[None, :, None] - positions[:, None, None] + translations
    distances = np.linalg.norm(pairs, axis=3)  # from the first atom to the image of the second
    is_neighbor = (distances < cutoff) & (distances > 0.0)
    counts = is_neighbor.sum(axis=(1, 2))
    shape = (len(positions), max(counts.max(), 1))  # an isolated atom has one unused place
    neighbors = np.tile(np.arange(len(positions))[:, None], shape[1])
    offsets = np.tile([2.0 * cutoff, 0.0, 0.0], (*shape, 1))
    # In the order of their first atoms, they fill the rows one after the other.
    _, second, image = np.nonzero(is_neighbor)
    used = np.arange(shape[1]) < counts[:, None]
    neighbors[used] = second
    offsets[used] = translations[image]
    return neighbors, offsets


def evaluate(session, cutoff, numbers, positions, cell, pbc):
    """Return energy in eV, forces (n_atoms, 3) in eV/Å and virial (3, 3) in eV of a structure."""
    neighbors, offsets = neighbor_matrix(positions, cell, pbc, cutoff)
    inputs = {
        "numbers": numbers.astype(np.int64),
        "positions": positions,
        "neighbors": neighbors.astype(np.int64),
        "offsets": offsets,
    }
    energies, forces, virials = session.run(["energies", "forces", "virials"], inputs)
    return energies.sum(), forces, virials.sum(axis=0, dtype=np.float64)


def main(path):
    """Evaluate every structure that a file carries; return 1 if one of them comes out wrong."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["ase_student"])
    print(f"{metadata['name']}: {', '.join(metadata['elements'])}; cutoff {metadata['cutoff']} Å")
    print("atoms  periodic     energy (eV)  pressure (GPa)  largest difference")
    worst = 0.0
    for reference in metadata["references"]:
        numbers, positions, cell, pbc = (
            np.array(reference[key]) for key in ("numbers", "positions", "cell", "pbc")
        )
        energy, forces, virial = evaluate(
            session, metadata["cutoff"], numbers, positions, cell, pbc
        )
        difference = max(
            abs(energy - reference["energy"]) / len(numbers),
            np.abs(forces - reference["forces"]).max(),
            np.abs(virial - reference["virial"]).max() / len(numbers),
        )
        worst = max(worst, difference)
        pressure = "-"
        if pbc.all():
            # The stress is positive in tension, the pressure in compression.
            stress = virial / abs(np.linalg.det(cell))
            pressure = f"{-np.trace(stress) / 3 * GPA:.3f}"
        axes = "".join("T" if is_periodic else "F" for is_periodic in pbc)
        print(f"{len(numbers):5}  {axes:8} {energy:15.4f} {pressure:>15} {difference:19.1e}")
    return 0 if worst <= LARGEST_DIFFERENCE else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
