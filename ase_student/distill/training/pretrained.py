"""An earlier student whose weights a training begins with."""

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
    """Return the network of a student; second moments that it lacks begin without influence."""
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


def for_the_teacher_of(start: Student, parts: TrainingData, device: torch.device) -> Student:
    """Return a student with reference energies for the teacher that labelled the data.

    Those of the same teacher stay as they are. Another one's energies have another zero: what the
    student is wrong by is fitted per element.

    Raises
    ------
    ValueError
        If the data have an element that the student lacks.
    """
    before = start.metadata.get("teacher")
    if parts.teacher is None or before in (None, parts.teacher):
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
    """Raise ValueError if what a student was trained on may be in another part now.

    So it may if the same is split by another seed, or the same structures by something else.
    """
    own = settings.split, settings.split_seed
    data = set(_structures(parts.provenance))
    for metadata in _ancestry(start.metadata):
        before = split_settings(metadata)
        if before is None or before == own:
            continue
        if before[0] == own[0] or data.intersection(_structures(metadata.get("data") or ())):
            raise ValueError(
                f"the student to start from was trained where split = '{before[0]}' and "
                f"split_seed = {before[1]}; with '{own[0]}' and {own[1]} it may be tested on what "
                "it was trained on: split in the same way."
            )


def _structures(provenance: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what tells files of structures apart, whoever labelled them."""
    for entry in provenance:
        yield entry.get("structures_sha256") or entry["sha256"]


def _ancestry(metadata: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what is known of a student and of all that its weights come from."""
    while metadata:
        yield metadata
        metadata = (metadata.get("training") or {}).get("start") or {}
