"""The training loop: from labelled structures to the weights of a student."""

import copy
import dataclasses
import hashlib
import json
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor
from tqdm import tqdm

from ase_student.dataset import Dataset
from ase_student.distill.batches import (
    Batch,
    Sample,
    collate,
    fit_reference_energies,
    read_samples,
    shuffled,
)
from ase_student.distill.split import split_of
from ase_student.distill.train import SHAPES, Settings
from ase_student.files import replaced_when_complete
from ase_student.networks.painn import PaiNN, PaiNNPotential
from ase_student.student import Architecture, Student, load_student, save_student

# What a student's metadata keep of each data set's.
_KEPT = ("teacher_settings", "structures_sha256", "max_force", "statistics")


class Training:
    """One training run in a folder.

    The folder holds ``checkpoint.pt``, from which a run that was stopped goes on,
    ``weights.safetensors``, the best student so far, and ``history.jsonl``, the validation errors.

    Parameters
    ----------
    datasets : list of path
        Labelled files with molecules, by which they are split.
    name : str
        Of the shape.
    folder : path
    settings : Settings
    device : torch.device

    Raises
    ------
    ValueError
        If a part of the split is empty or has elements that the part for training lacks.
    """

    def __init__(
        self,
        datasets: list[Path],
        name: str,
        folder: Path,
        settings: Settings,
        device: torch.device,
    ):
        self.folder, self.settings, self.device = folder, settings, device
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cutoff = Architecture((1,)).cutoff
        self.samples: dict[str, list[Sample]] = {"train": [], "validation": [], "test": []}
        self.provenance = [self._read(path) for path in datasets]
        self._check_parts()
        references = fit_reference_energies(self.samples["train"])
        shape = Architecture(elements=tuple(sorted(references)), **SHAPES[name])
        torch.manual_seed(settings.seed)
        self.network = PaiNN(shape, references).to(device)
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self.name, self.references = name, references
        self.step, self.epoch, self.seconds = 0, 0, 0.0
        self.best = float("inf")
        self.steps_per_epoch = -(-len(self.samples["train"]) // settings.batch_size)

    def _check_parts(self) -> None:
        """Raise ValueError if a part is empty or has elements that are not trained on."""
        known: set[int] = set()
        for part, samples in self.samples.items():
            if not samples:
                raise ValueError(f"the data hold no molecules of the {part} part.")
            elements = {int(z) for sample in samples for z in np.unique(sample.numbers)}
            known = known or elements
            if elements - known:
                symbol = chemical_symbols[min(elements - known)]
                raise ValueError(
                    f"the {part} part has {symbol}, which no molecule of the train part has; "
                    "label more molecules with it, or split by another --seed."
                )

    def _read(self, path: Path) -> dict[str, Any]:
        """Add a file's samples to the splits and return what is to be known of the file."""
        with Dataset(path) as dataset:
            molecules = dataset.read_structures().molecules
            if molecules is None:
                raise ValueError(f"{path}: no structures/molecules, by which data are split.")
            indices = dataset.read_labels().structure_indices
            samples = read_samples(dataset, range(len(indices)), self.cutoff)
            metadata = dataset.metadata
        counts: Counter[str] = Counter()
        for index, sample in zip(indices, samples, strict=True):
            part = split_of(molecules[index], seed=self.settings.seed)
            self.samples[part].append(sample)
            counts[part] += 1
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        kept = {key: metadata[key] for key in _KEPT if key in metadata}
        sampling = metadata.get("structures_metadata", {}).get("sampling")
        return {
            "sha256": digest,
            "teacher": metadata.get("teacher"),
            "structures": dict(counts),
            "sampling": sampling,
            **kept,
        }

    def run(self) -> dict[str, Any]:
        """Train to the end and return the metrics of the best student."""
        self._resume()
        n_steps = self.settings.epochs * self.steps_per_epoch
        with tqdm(total=n_steps, initial=self.step, unit="step", disable=None) as progress:
            while self.epoch < self.settings.epochs:
                started = time.monotonic()
                generator = np.random.default_rng([self.settings.seed, self.epoch])
                for samples in shuffled(self.samples["train"], self.settings.batch_size, generator):
                    self._train_on(collate(samples, self.cutoff, self.device), n_steps)
                    progress.update()
                self.epoch += 1
                self.seconds += time.monotonic() - started
                row = self._validate()
                progress.set_postfix(force_rmse=f"{row['force_rmse']:.4f}")
        return self._finish()

    def _train_on(self, batch: Batch, n_steps: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, n_steps, self.settings)
        self.optimizer.zero_grad(set_to_none=True)
        energies, forces = energies_and_forces(self.network, batch, create_graph=True)
        loss(energies, forces, batch, self.settings).backward()
        torch.nn.utils.clip_grad_norm_(
            self.network.parameters(), self.settings.max_gradient_norm, error_if_nonfinite=True
        )
        self.optimizer.step()
        self.step += 1
        decay = min(self.settings.ema_decay, self.step / (self.step + 10.0))
        with torch.no_grad():
            for mean, value in zip(
                self.average.parameters(), self.network.parameters(), strict=True
            ):
                mean.lerp_(value, 1.0 - decay)

    def _validate(self) -> dict[str, float]:
        """Evaluate the averaged weights, keep them if they are the best, and write the state."""
        errors = evaluate(self.average, self.samples["validation"], self.cutoff, self.device)
        row = errors["all"]
        if row["force_rmse"] < self.best:
            self.best = row["force_rmse"]
            save_student(self._student({"validation": errors}), self._weights)
        record = {"epoch": self.epoch, "seconds": round(self.seconds), "validation": errors}
        with open(self.folder / "history.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        state = {
            "step": self.step,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "best": self.best,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "setup": self._setup(),
        }
        with replaced_when_complete(self.folder / "checkpoint.pt") as temporary:
            torch.save(state, temporary)
        return row

    @property
    def _weights(self) -> Path:
        return self.folder / "weights.safetensors"

    def _setup(self) -> str:
        """Return what a checkpoint must agree on with the run that continues it."""
        data = [entry["sha256"] for entry in self.provenance]
        return json.dumps([self.name, dataclasses.asdict(self.settings), data])

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True, map_location=self.device)
        if state["setup"] != self._setup():
            raise ValueError(
                f"{path}: was made with another student, other settings or other data; "
                "continue it with the same ones or give another folder."
            )
        self.step, self.epoch = state["step"], state["epoch"]
        self.seconds, self.best = state["seconds"], state["best"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _student(self, metrics: dict[str, Any]) -> Student:
        tensors = {name: value.cpu().numpy() for name, value in self.average.state_dict().items()}
        metadata = {
            "teacher": self.provenance[0]["teacher"],
            "data": self.provenance,
            "training": {
                **dataclasses.asdict(self.settings),
                "steps": self.step,
                "seconds": round(self.seconds),
                "torch": torch.__version__,
            },
            "metrics": metrics,
        }
        return Student(self.network.shape, tensors, self.references, metadata)

    def _finish(self) -> dict[str, Any]:
        """Measure the best student on the molecules that training never saw."""
        student = load_student(self._weights)
        network = copy.deepcopy(self.average)
        network.load_state_dict(
            {name: torch.from_numpy(np.array(value)) for name, value in student.tensors.items()}
        )
        errors = evaluate(network, self.samples["test"], self.cutoff, self.device)
        metrics = {**student.metadata["metrics"], "test": errors}
        metadata = {**student.metadata, "metrics": metrics}
        save_student(dataclasses.replace(student, metadata=metadata), self._weights)
        return metrics


def learning_rate(step: int, n_steps: int, settings: Settings) -> float:
    """Return the rate of a step: a linear rise, then half a cosine down."""
    rise = min(1.0, (step + 1) / max(settings.warmup, 1))
    fall = 0.5 * (1.0 + np.cos(np.pi * min(1.0, step / max(n_steps, 1))))
    low, high = settings.final_learning_rate, settings.learning_rate
    return float(rise * (low + (high - low) * fall))


def energies_and_forces(
    network: PaiNN, batch: Batch, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Return structures' energies (float64, eV) and atoms' forces by autograd."""
    numbers, positions, neighbors, offsets = batch.inputs
    positions = positions.detach().requires_grad_()
    energies = network(numbers, positions, neighbors, offsets)
    (gradient,) = torch.autograd.grad(energies.sum(), positions, create_graph=create_graph)
    return batch.totals(energies), -gradient.to(torch.float32)


def loss(energies: Tensor, forces: Tensor, batch: Batch, settings: Settings) -> Tensor:
    """Return the training loss: quadratic for small errors, linear for large ones."""
    squares = ((forces - batch.forces) ** 2).sum(1) / settings.force_scale**2
    force_term = (torch.sqrt(1.0 + squares) - 1.0).mean()
    deviations = (energies - batch.energies) / (settings.energy_scale * torch.sqrt(batch.sizes))
    energy_term = (torch.sqrt(1.0 + deviations**2) - 1.0).mean()
    return force_term + settings.energy_weight * energy_term.to(force_term.dtype)


def evaluate(
    network: PaiNN, samples: list[Sample], cutoff: float, device: torch.device
) -> dict[str, dict[str, float]]:
    """Return the errors on samples, for all of them and by source.

    Returns
    -------
    dict of str to dict
        ``force_rmse`` (eV/Å, over components), ``force_r2``, ``force_sigma`` (standard deviation
        of the teacher's components, eV/Å), ``energy_mae`` (eV per atom), ``structures``.
    """
    potential = PaiNNPotential(network).eval()
    rows: dict[str, list[list[float]]] = defaultdict(list)
    ordered = sorted(samples, key=lambda sample: sample.neighbors.shape[1])
    for start in range(0, len(ordered), 64):
        part = ordered[start : start + 64]
        batch = collate(part, cutoff, device)
        with torch.no_grad():
            energies, forces, _ = potential(*batch.inputs)
        deviations = ((batch.totals(energies) - batch.energies) / batch.sizes).abs().tolist()
        ends = np.cumsum([len(sample.numbers) for sample in part])
        predictions = np.split(forces.cpu().numpy().astype(np.float64), ends[:-1])
        for sample, deviation, predicted in zip(part, deviations, predictions, strict=True):
            truth = sample.forces.astype(np.float64)
            squares = float(((predicted - truth) ** 2).sum())
            moments = [float(truth.size), float(truth.sum()), float((truth**2).sum())]
            rows[sample.source].append([deviation, squares, *moments])
    rows["all"] = [row for source in list(rows) for row in rows[source]]
    return {source: _errors(np.array(rows[source])) for source in sorted(rows) if source}


def _errors(rows: np.ndarray) -> dict[str, float]:
    """Return the errors from each structure's deviation, squared errors and force moments."""
    _, squares, components, total, total_squares = rows.sum(axis=0)
    variance = total_squares / components - (total / components) ** 2
    mean_square = squares / components
    return {
        "force_rmse": float(np.sqrt(mean_square)),
        "force_r2": float(1.0 - mean_square / variance) if variance > 0 else float("nan"),
        "force_sigma": float(np.sqrt(variance)),
        "energy_mae": float(rows[:, 0].mean()),
        "structures": len(rows),
    }
