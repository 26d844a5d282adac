"""Training that starts from the weights of an earlier student."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ase_student.data.splits import split_settings
from ase_student.distill.training.batches import fit_reference_energies
from ase_student.distill.training.data import TrainingData
from ase_student.distill.training.metrics import energy_deviations
from ase_student.distill.training.settings import TrainingSettings
from ase_student.networks import build_network
from ase_student.networks.painn import PaiNN
from ase_student.student import Architecture, Student


def network_of(start: Student, shape: Architecture) -> PaiNN:
    """Return the network of a student, with the tensor channels of a shape.

    If the student has no tensor channels, the output weights of the new channels are zero, so that
    predictions stay the same.
    """
    network = build_network(start)
    assert isinstance(network, PaiNN)
    if start.architecture == shape:
        return network
    wider = PaiNN(shape, dict(start.reference_energies))
    wider.load_state_dict(network.state_dict(), strict=False)
    assert wider.first.moments is not None
    nn.init.zeros_(wider.first.moments.scalars.weight)
    nn.init.zeros_(wider.first.moments.vectors.weight)
    return wider


def fit_to_teacher_of(start: Student, parts: TrainingData, device: torch.device) -> Student:
    """Return a student whose reference energies fit the teacher that labeled the data.

    A student of the same teacher is returned unchanged. The energies of another teacher have
    another zero: the errors of the student's energies are fitted per element, and its reference
    energies are shifted by the result.

    Raises
    ------
    ValueError
        If the data have an element that the student lacks.
    """
    previous_teacher = start.metadata.get("teacher")
    if parts.teacher is None or previous_teacher in (None, parts.teacher):
        return start
    network = build_network(start).to(device)
    assert isinstance(network, PaiNN)
    samples = parts["train"]
    deviations = energy_deviations(network, samples, start.cutoff, device=device)
    shifts = fit_reference_energies(
        [
            dataclasses.replace(sample, energy=-deviation * len(sample.numbers))
            for sample, deviation in zip(samples, deviations.tolist(), strict=True)
        ]
    )
    shifted = {z: energy + shifts.get(z, 0.0) for z, energy in start.reference_energies.items()}
    return dataclasses.replace(start, reference_energies=shifted)


def check_split(start: Student, parts: TrainingData, settings: TrainingSettings) -> None:
    """Raise ValueError if training data of the student may now be in the validation or test part.

    This can happen if the data are split by the same rule with another seed, or if the same
    structures are split by another rule.
    """
    current_split = settings.split, settings.split_seed
    current_hashes = set(_structure_hashes(parts.provenance))
    for metadata in _ancestry(start.metadata):
        earlier_split = split_settings(metadata)
        if earlier_split is None or earlier_split == current_split:
            continue
        earlier_hashes = _structure_hashes(metadata.get("data") or ())
        if earlier_split[0] == current_split[0] or current_hashes.intersection(earlier_hashes):
            raise ValueError(
                f"the student to start from was trained with split = '{earlier_split[0]}' and "
                f"split_seed = {earlier_split[1]}; with '{current_split[0]}' and "
                f"{current_split[1]} it may be tested on its own training data: "
                "use the same split and split_seed."
            )


def _structure_hashes(provenance: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a hash of the structures of each file, which does not depend on their labels."""
    for entry in provenance:
        yield entry.get("structures_sha256") or entry["sha256"]


def _ancestry(metadata: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the metadata of a student, and then of each earlier student that it started from."""
    while metadata:
        yield metadata
        metadata = (metadata.get("training") or {}).get("start") or {}
