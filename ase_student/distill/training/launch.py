"""Start training on the devices given on the command line."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from functools import partial
from typing import Any

from lightning_fabric import Fabric

from ase_student.backends.devices import set_threads
from ase_student.checkpoint import load_student
from ase_student.distill.training.data import TrainingData
from ase_student.distill.training.settings import TrainingSettings
from ase_student.distill.training.trainer import Trainer
from ase_student.jobs.processes import end_with_parent
from ase_student.jobs.store import only_writer
from ase_student.student import Architecture


def launch(
    arguments: argparse.Namespace, settings: TrainingSettings, changes: dict[str, Any]
) -> dict[str, Any]:
    """Train with one process per device and return the metrics of the best student.

    Raises
    ------
    ValueError
        If a device does not exist, or another training is writing to the folder.
    """
    checkpoint = arguments.folder / "checkpoint.pt"
    strategy = arguments.strategy
    if strategy == "auto" and arguments.devices > 1 and arguments.num_nodes == 1:
        # Processes that are started with a function work wherever training is called from.
        strategy = "ddp_spawn"
    try:
        fabric = Fabric(
            accelerator=arguments.accelerator,
            devices=arguments.devices,
            num_nodes=arguments.num_nodes,
            strategy=strategy,
        )
    except (ValueError, RuntimeError) as error:
        # Which error Lightning raises for a missing device depends on the accelerator.
        raise ValueError(
            f"cannot train on {arguments.devices} device(s) '{arguments.accelerator}': {error}"
        ) from error
    if strategy == "ddp_spawn":
        # Lightning inspects the arguments and refuses frozen dataclasses, but not in a partial.
        work = partial(_train, arguments=arguments, settings=settings, changes=changes)
        with only_writer(checkpoint):
            metrics: dict[str, Any] = fabric.launch(work)
        return metrics
    fabric.launch()
    with only_writer(checkpoint) if fabric.is_global_zero else nullcontext():
        return _train(fabric, arguments, settings, changes)


def _train(
    fabric: Fabric,
    arguments: argparse.Namespace,
    settings: TrainingSettings,
    changes: dict[str, Any],
) -> dict[str, Any]:
    end_with_parent()
    set_threads(arguments.threads)
    start = None if arguments.start is None else load_student(str(arguments.start))
    cutoff = changes.get("cutoff", Architecture((1,)).cutoff if start is None else start.cutoff)
    parts = TrainingData(
        arguments.dataset, settings, cutoff, tests=arguments.test, calibration=arguments.calibrate
    )
    trainer = Trainer(
        parts,
        arguments.student,
        arguments.folder,
        settings=settings,
        fabric=fabric,
        changes=changes,
        start=start,
    )
    return trainer.run()
