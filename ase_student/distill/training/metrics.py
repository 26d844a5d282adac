"""Errors of a network on labeled samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from ase import units
from numpy.typing import NDArray

from ase_student.data.sources import UNLIKE_USE
from ase_student.distill.training.batches import Sample, collate
from ase_student.distill.training.energy_differences import interaction_coefficients, units_of
from ase_student.distill.training.pair_batches import PairCollator
from ase_student.networks.kernels import CompiledNetwork
from ase_student.networks.painn import PaiNN, PaiNNPotential

EV_PER_KCAL_MOL = units.kcal / units.mol
#: Approximate number of atoms in a batch.
BATCH_ATOMS = 1500


def evaluate(
    network: PaiNN | CompiledNetwork,
    samples: Sequence[Sample],
    cutoff: float,
    *,
    device: torch.device,
) -> dict[str, dict[str, float]]:
    """Return the errors on samples, by source and for all of them.

    Sources that are unlike what is simulated, such as diatomics, are reported by themselves and do
    not count in "all", unless there is no other source.

    Returns
    -------
    dict of str to dict
        ``force_rmse`` (eV/Å, over components), ``force_rmse_mean`` (mean over structures of the
        RMSE of each), ``force_r2``, ``force_sigma`` (standard deviation of the teacher's force
        components, eV/Å), ``energy_mae`` (eV per atom), ``structures`` (their number), and
        ``stress_rmse`` (eV/Å³, over components) where there is stress. If there are complexes
        whose fragments are among the samples too: ``interaction_mae_kcal_mol``, the error of the
        energy of a complex minus those of its fragments, and ``complexes``, their number.
    """
    rows: dict[str, list[list[float]]] = defaultdict(list)
    evaluated: list[Sample] = []
    energy_errors: list[float] = []
    for batch in _batches(samples):
        energies, forces, virials = _predict(network, batch, cutoff, device)
        signed = _deviations(energies, batch)
        evaluated += batch
        energy_errors += [
            deviation * len(sample.numbers)
            for deviation, sample in zip(signed.tolist(), batch, strict=True)
        ]
        deviations = np.abs(signed).tolist()
        atom_splits = np.cumsum([len(sample.numbers) for sample in batch])[:-1]
        splits = np.split(forces, atom_splits), np.split(virials, atom_splits)
        for sample, deviation, predicted, virial in zip(batch, deviations, *splits, strict=True):
            truth = sample.forces.astype(np.float64)
            squares = float(((predicted - truth) ** 2).sum())
            moments = [float(truth.size), float(truth.sum()), float((truth**2).sum())]
            rows[sample.source].append(
                [deviation, squares, *moments, *_stress_squares(sample, virial)]
            )
    counted = [source for source in rows if source not in UNLIKE_USE] or list(rows)
    rows["all"] = [row for source in counted for row in rows[source]]
    errors = {source: _errors(np.array(rows[source])) for source in sorted(rows) if source}
    interaction_errors_by_source = _interaction_errors(evaluated, np.array(energy_errors))
    for source, interaction_errors in interaction_errors_by_source.items():
        errors[source] |= interaction_errors
    return errors


def _interaction_errors(
    samples: Sequence[Sample], energy_errors: NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    """Return the errors of interaction energies, by source of the complexes and for all of them.

    Parameters
    ----------
    samples : sequence of Sample
    energy_errors : (n,) float64, eV
        Errors of the samples' total energies.
    """
    by_source: dict[str, list[float]] = defaultdict(list)
    for unit in units_of(samples):
        members = [samples[i] for i in unit]
        coefficients = interaction_coefficients(members)
        if coefficients is None:
            continue
        errors = np.abs(coefficients @ energy_errors[unit]) / EV_PER_KCAL_MOL
        complexes = [members[row.argmax()] for row in coefficients]
        for sample, error in zip(complexes, errors.tolist(), strict=True):
            for source in {sample.source, "all"} - {""}:
                by_source[source].append(error)
    return {
        source: {"interaction_mae_kcal_mol": float(np.mean(errors)), "complexes": len(errors)}
        for source, errors in by_source.items()
    }


def energy_deviations(
    network: PaiNN | CompiledNetwork,
    samples: Sequence[Sample],
    cutoff: float,
    *,
    device: torch.device,
) -> NDArray[np.float64]:
    """Return the signed errors of the energies of samples, (n,) eV per atom."""
    deviations_by_batch = []
    for batch in _batches(samples):
        energies, _, _ = _predict(network, batch, cutoff, device)
        deviations_by_batch.append(_deviations(energies, batch))
    deviations = np.empty(len(samples))
    deviations[_order(samples)] = np.concatenate(deviations_by_batch)
    return deviations


def _predict(
    network: PaiNN | CompiledNetwork, part: Sequence[Sample], cutoff: float, device: torch.device
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the energies of structures, and the forces and virials of all their atoms."""
    if isinstance(network, CompiledNetwork):
        pair_batch = PairCollator(cutoff)(part)
        results = network.evaluate(pair_batch.structures, with_virials=True)
        assert results.forces is not None
        assert results.virials is not None
        return pair_batch.totals(results.energies), results.forces, results.virials
    batch = collate(part, cutoff, device)
    with torch.no_grad():
        energies, forces, virials = PaiNNPotential(network).eval()(*batch.inputs)
    arrays = batch.totals(energies), forces, virials
    totals, forces, virials = (array.cpu().numpy().astype(np.float64) for array in arrays)
    return totals, forces, virials


def _deviations(energies: NDArray[np.float64], part: Sequence[Sample]) -> NDArray[np.float64]:
    """Return the errors of the energies of structures, eV per atom."""
    truth = np.array([sample.energy for sample in part])
    return (energies - truth) / [len(sample.numbers) for sample in part]


def _batches(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Return batches of samples that have similar numbers of neighbors."""
    batches: list[list[Sample]] = []
    n_atoms = 0
    for sample in (samples[index] for index in _order(samples)):
        if not batches or n_atoms + len(sample.numbers) > BATCH_ATOMS:
            batches.append([])
            n_atoms = 0
        batches[-1].append(sample)
        n_atoms += len(sample.numbers)
    return batches


def _order(samples: Sequence[Sample]) -> list[int]:
    """Return the indices of the samples, sorted by the number of neighbors."""
    return sorted(range(len(samples)), key=lambda index: samples[index].neighbors.shape[1])


def _stress_squares(sample: Sample, virials: NDArray[np.float64]) -> tuple[float, float]:
    """Return the squared error of the stress, summed over components, and their number."""
    if sample.stress is None:
        return 0.0, 0.0
    stress = virials.sum(0) / sample.volume
    return float(((stress - sample.stress) ** 2).sum()), 9.0


def _errors(rows: NDArray[np.float64]) -> dict[str, float]:
    """Return the errors from each structure's deviation, squared errors and force moments."""
    _, squares, components, total, total_squares, stress_squares, n_stress = rows.sum(axis=0)
    variance = total_squares / components - (total / components) ** 2
    mean_square = squares / components
    errors = {
        "force_rmse": float(np.sqrt(mean_square)),
        "force_rmse_mean": float(np.sqrt(rows[:, 1] / rows[:, 2]).mean()),
        "force_r2": float(1.0 - mean_square / variance) if variance > 0 else float("nan"),
        "force_sigma": float(np.sqrt(variance)),
        "energy_mae": float(rows[:, 0].mean()),
        "structures": len(rows),
    }
    if n_stress:
        errors["stress_rmse"] = float(np.sqrt(stress_squares / n_stress))
    return errors
