"""The training loop: from labeled structures to the weights of a student."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from ase_student.archives import check_archive
from ase_student.checkpoint import load_student, save_student
from ase_student.distill.training.batches import (
    Sample,
    collate,
    fit_reference_energies,
    shuffled,
)
from ase_student.distill.training.data import TrainingData
from ase_student.distill.training.finite_difference import backward_by_displacement
from ase_student.distill.training.loss import loss, predict
from ase_student.distill.training.metrics import energy_deviations, evaluate
from ase_student.distill.training.pair_batches import PairCollator
from ase_student.distill.training.pretrained import (
    check_split,
    fit_to_teacher_of,
    network_of,
)
from ase_student.distill.training.settings import TrainingSettings, architecture_of
from ase_student.extrapolation.ranges import TrainingRanges
from ase_student.files import replaced_when_complete
from ase_student.networks import build_network
from ase_student.networks.kernels import CompiledNetwork
from ase_student.networks.painn import PaiNN
from ase_student.student import Student

#: Weight of the energy error (eV/atom) in the score that decides which student is kept: 10 meV/atom
#: count like 0.1 eV/Å of the force error of the mean structure. With the force error over all
#: components a single unusual molecule could decide, and an unfinished student could be kept.
ENERGY_IN_SCORE = 10.0
#: Training ends with an error after this many gradients in a row that are not finite.
MAX_NOT_FINITE = 20


class Trainer:
    """A training run that keeps its state in a folder.

    The folder holds ``checkpoint.pt``, from which an interrupted run continues,
    ``weights.safetensors``, the best student so far, and ``history.jsonl``, the validation errors.

    Parameters
    ----------
    parts : TrainingData
        The data.
    name : str
        Name of the student's shape, a key of `SHAPES`.
    folder : path
    settings : TrainingSettings
    fabric : Fabric, optional
        Devices and processes, already launched; by default one process on the CPU.
    changes : dict, optional
        Other values for attributes of the architecture.
    start : Student, optional
        Student whose weights the training starts from. If it was trained on another teacher, its
        reference energies are fitted to the data.

    Raises
    ------
    ValueError
        If `start` has another architecture (it may lack the tensor channels), if it lacks an
        element of the data, or if its data were split in another way.
    """

    def __init__(
        self,
        parts: TrainingData,
        name: str,
        folder: Path,
        *,
        settings: TrainingSettings,
        fabric: Fabric | None = None,
        changes: dict[str, Any] | None = None,
        start: Student | None = None,
    ):
        self.parts, self.name, self.folder, self.settings = parts, name, folder, settings
        self.fabric = fabric or Fabric(accelerator="cpu", devices=1)
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(settings.seed)
        self.start = start
        if start is not None:
            check_split(start, parts, settings)
            if "seen" in start.metadata:
                parts.seen.include(TrainingRanges.from_dict(start.metadata["seen"]))
        self.network = self._network(changes).to(self.fabric.device)
        self.cutoff = self.network.shape.cutoff
        self.average = copy.deepcopy(self.network)
        self.compiled = self._compiled() if settings.gradient == "compiled" else None
        self.collate_pairs = PairCollator(self.cutoff)
        self.optimizer = make_optimizer(self.network, settings, self.compiled)
        self.step, self.seconds, self.best = 0, 0.0, float("inf")
        self.not_finite = 0
        n_batches = -(-len(parts["train"]) // settings.batch_size)
        self.steps_per_epoch = -(-n_batches // self.fabric.world_size)
        self.n_steps = settings.epochs * self.steps_per_epoch

    def _network(self, changes: dict[str, Any] | None) -> PaiNN:
        elements = self.parts.elements
        if self.start is None:
            self.references = fit_reference_energies(self.parts["train"])
            shape = architecture_of(self.name, elements, changes)
            return PaiNN(shape, dict(self.references))
        shape = architecture_of(self.name, self.start.elements, changes)
        fits = self.start.architecture in (shape, dataclasses.replace(shape, tensor_channels=0))
        if not set(elements) <= set(shape.elements) or not fits:
            raise ValueError(
                f"the student to start from has the shape {self.start.architecture}; "
                f"this run needs {architecture_of(self.name, elements, changes)}."
            )
        start = fit_to_teacher_of(self.start, self.parts, self.fabric.device)
        self.references = dict(start.reference_energies)
        return network_of(start, shape)

    def _compiled(self) -> CompiledNetwork:
        if self.fabric.device.type != "cpu":
            raise ValueError(
                f"gradient 'compiled' is for CPUs; given a device of type "
                f"'{self.fabric.device.type}': train with gradient = 'autograd'."
            )
        return CompiledNetwork(self.network)

    def _runnable(self, network: nn.Module) -> PaiNN | CompiledNetwork:
        """Return the form of a network that is evaluated: compiled, if this training compiles."""
        assert isinstance(network, PaiNN)
        if self.compiled is None:
            return network
        return CompiledNetwork(network, self.compiled.library)

    def run(self) -> dict[str, Any]:
        """Train to the end and return the metrics of the best student."""
        self._resume()
        is_quiet = None if self.fabric.is_global_zero else True
        with tqdm(total=self.n_steps, initial=self.step, unit="step", disable=is_quiet) as progress:
            losses = []
            started = time.monotonic()
            for samples in self._batches():
                losses.append(self._train_on(samples))
                progress.update()
                if self._is_due():
                    self.seconds += time.monotonic() - started
                    row = self._validate(float(np.mean(losses)))
                    progress.set_postfix(force_rmse=f"{row['force_rmse']:.4f}")
                    losses = []
                    started = time.monotonic()
        self.fabric.barrier()
        return self._finish()

    def _batches(self) -> Iterator[list[Sample]]:
        """Yield this process's batches from the current step on."""
        while self.step < self.n_steps:
            epoch, n_done = divmod(self.step, self.steps_per_epoch)
            generator = np.random.default_rng([self.settings.seed, epoch])
            batches = list(shuffled(self.parts["train"], self.settings.batch_size, generator))
            for batch_number in range(n_done, self.steps_per_epoch):
                index = batch_number * self.fabric.world_size + self.fabric.global_rank
                yield batches[index % len(batches)]

    def _train_on(self, samples: list[Sample]) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.n_steps, self.settings)
        self.optimizer.zero_grad(set_to_none=True)
        value = self._differentiate(samples)
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.max_gradient_norm)
        if torch.isfinite(norm):
            self.not_finite = 0
            self.optimizer.step()
        else:
            # A single such structure is skipped; many in a row end the training.
            self.not_finite += 1
            if self.not_finite == MAX_NOT_FINITE:
                raise ValueError(
                    f"the gradient was not finite in {MAX_NOT_FINITE} steps up to {self.step}; "
                    "begin again in another folder with a learning_rate below "
                    f"{self.settings.learning_rate:g}."
                )
        self.step += 1
        self._update_average()
        return value

    def _differentiate(self, samples: list[Sample]) -> float:
        """Return the loss, and add its gradient to the gradients of the weights."""
        weight = energy_weight(self.step, self.n_steps, self.settings)
        if self.compiled is not None:
            return backward_by_displacement(
                self.compiled,
                self.collate_pairs(samples),
                self.settings,
                energy_weight=weight,
                sign=1.0 if self.step % 2 else -1.0,
            )
        batch = collate(samples, self.cutoff, self.fabric.device)
        predictions = predict(self.network, batch, create_graph=True)
        value = loss(predictions, batch, self.settings, energy_weight=weight)
        self.fabric.backward(value)
        return float(value.detach())

    def _average_gradients(self) -> None:
        """Replace the gradients in all processes by their mean, in one message.

        A student is so small that overlapping this with the backward pass gains nothing. Done
        here, it works with gradients of gradients, and with any strategy.
        """
        if self.fabric.world_size == 1:
            return
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        joined = torch.cat([gradient.flatten() for gradient in gradients])
        mean = self.fabric.all_reduce(joined, reduce_op="mean")
        assert isinstance(mean, Tensor)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean_gradient in zip(gradients, mean.split(sizes), strict=True):
            gradient.copy_(mean_gradient.view_as(gradient))

    def _update_average(self) -> None:
        decay = min(self.settings.ema_decay, self.step / (self.step + 10.0))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.network.parameters()), 1.0 - decay
            )

    def _is_due(self) -> bool:
        """Return whether to validate now: once early, to notice a failed run, then regularly."""
        early = min(self.settings.validate_every, 200)
        return self.step in (early, self.n_steps) or self.step % self.settings.validate_every == 0

    def _validate(self, mean_loss: float) -> dict[str, float]:
        """Evaluate the averaged weights, keep them if they are the best, and write the state."""
        samples = self.parts.chosen("validation", self.settings.validation_structures)
        errors = evaluate(
            self._runnable(self.average), samples, self.cutoff, device=self.fabric.device
        )
        row = errors["all"]
        if self.fabric.is_global_zero:
            score = row["force_rmse_mean"] + ENERGY_IN_SCORE * row["energy_mae"]
            record = {
                "step": self.step,
                "epoch": round(self.step / self.steps_per_epoch, 2),
                "seconds": round(self.seconds),
                "loss": mean_loss,
                "validation": errors,
            }
            with self._history.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            if score < self.best:
                self.best = score
                save_student(self._student({"validation": errors}), self._weights)
            self._write_checkpoint()
        self.fabric.barrier()
        return row

    def _write_checkpoint(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "not_finite": self.not_finite,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "setup": self._setup(),
        }
        with replaced_when_complete(self.folder / "checkpoint.pt") as temporary:
            torch.save(state, temporary)

    @property
    def _weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def _history(self) -> Path:
        return self.folder / "history.jsonl"

    def _setup(self) -> str:
        """Return as JSON what must be the same in a checkpoint and in the run that continues it."""
        data = [[entry["sha256"], entry["times_in_training"]] for entry in self.parts.provenance]
        start = None if self.start is None else self.start.sha256
        architecture = dataclasses.asdict(self.network.shape)
        settings = dataclasses.asdict(self.settings)
        return json.dumps([architecture, settings, data, start, self.fabric.world_size])

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if path.is_file():
            self._read_checkpoint(path)
        elif self._weights.is_file() and self._n_validations() != 1:
            # A run that was stopped before its first checkpoint has validated once.
            raise ValueError(
                f"'{self.folder}' holds a student but no checkpoint to continue from; it would be "
                "replaced: give another folder."
            )
        # No process writes to the folder before all processes have looked at it.
        self.fabric.barrier()
        if self.fabric.is_global_zero and self._history.is_file():
            self._remove_later_rows()

    def _n_validations(self) -> int:
        if not self._history.is_file():
            return 0
        return len(self._history.read_text(encoding="utf-8").splitlines())

    def _remove_later_rows(self) -> None:
        """Remove validations later than the checkpoint from the history; they are done again."""
        kept_lines = []
        for line in self._history.read_text(encoding="utf-8").splitlines(keepends=True):
            # The last line may be incomplete.
            with suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= self.step:
                    kept_lines.append(line)
        with replaced_when_complete(self._history) as temporary:
            temporary.write_text("".join(kept_lines), encoding="utf-8")

    def _read_checkpoint(self, path: Path) -> None:
        check_archive(path, str(path))
        state = torch.load(path, weights_only=True, map_location=self.fabric.device)
        if state["setup"] != self._setup():
            raise ValueError(
                f"{path}: was made with another student, other settings or other data; "
                "continue it with the same ones or give another folder."
            )
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.not_finite = state["not_finite"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _student(self, metrics: dict[str, Any]) -> Student:
        tensors = {name: value.cpu().numpy() for name, value in self.average.state_dict().items()}
        metadata = {
            "teacher": self.parts.teacher,
            "data": self.parts.provenance,
            "seen": self.parts.seen.as_dict(),
            "training": {
                **dataclasses.asdict(self.settings),
                "processes": self.fabric.world_size,
                "steps": self.step,
                "seconds": round(self.seconds),
                "torch": torch.__version__,
                **self._origin(),
            },
            "metrics": metrics,
        }
        return Student(self.network.shape, tensors, self.references, metadata)

    def _origin(self) -> dict[str, Any]:
        """Return metadata of the student that this training started from; empty without one."""
        if self.start is None:
            return {}
        return {
            "start": {
                "weights_sha256": self.start.sha256,
                "teacher": self.start.metadata.get("teacher"),
                "training": self.start.metadata.get("training"),
                "data": self.start.metadata.get("data"),
            }
        }

    def _finish(self) -> dict[str, Any]:
        """Measure the best student on the molecules that training never saw."""
        student = self._calibrated(load_student(self._weights))
        network = self._runnable(build_network(student).to(self.fabric.device))
        tests = {"test": self.parts["test"], **self.parts.tests}
        errors = {
            name: evaluate(network, samples, self.cutoff, device=self.fabric.device)
            for name, samples in tests.items()
        }
        metrics = {**student.metadata["metrics"], **errors}
        if self.fabric.is_global_zero:
            metadata = {**student.metadata, "metrics": metrics}
            save_student(dataclasses.replace(student, metadata=metadata), self._weights)
        self.fabric.barrier()
        return metrics

    def _calibrated(self, student: Student) -> Student:
        """Return a student whose energies have no median error on the calibration data.

        All reference energies are shifted by the same energy: neither forces nor differences of
        energies at equal numbers of atoms change.
        """
        samples = self.parts.calibration
        if not samples:
            return student
        network = self._runnable(build_network(student).to(self.fabric.device))
        deviations = energy_deviations(network, samples, self.cutoff, device=self.fabric.device)
        shifted = {
            number: energy - float(np.median(deviations))
            for number, energy in student.reference_energies.items()
        }
        number = next(iter(shifted))
        calibration = {
            "sha256": self.parts.calibration_sha256,
            "structures": len(samples),
            "shift": shifted[number] - self.references[number],
        }
        training = {**student.metadata["training"], "calibration": calibration}
        metadata = {**student.metadata, "training": training}
        return dataclasses.replace(student, reference_energies=shifted, metadata=metadata)


def make_optimizer(
    network: nn.Module, settings: TrainingSettings, compiled: CompiledNetwork | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name, over all parameters of a network.

    SOAP of a compiled network is compiled as well.
    """
    if settings.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    if compiled is not None:
        from ase_student.distill.training.soap import CompiledSoap

        return CompiledSoap(
            network.parameters(),
            compiled.library,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
    from pytorch_optimizer import SOAP

    return SOAP(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def learning_rate(step: int, n_steps: int, settings: TrainingSettings) -> float:
    """Return the learning rate of a step: a linear rise, then a fall along half a cosine."""
    rise = min(1.0, (step + 1) / max(settings.warmup, 1))
    fall = 0.5 * (1.0 + np.cos(np.pi * min(1.0, step / max(n_steps, 1))))
    low, high = settings.final_learning_rate, settings.learning_rate
    return float(rise * (low + (high - low) * fall))


def energy_weight(step: int, n_steps: int, settings: TrainingSettings) -> float:
    """Return the weight of the energy term of a step: its logarithm grows with the step squared."""
    growth = settings.final_energy_weight / settings.energy_weight
    return float(settings.energy_weight * growth ** ((step / max(n_steps, 1)) ** 2))
