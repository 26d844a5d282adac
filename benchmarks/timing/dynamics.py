"""Molecular dynamics with the time of each part: ASE, calculator, neighbors, backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from ase_student import StudentCalculator
from ase_student.backends import Backend, Results
from ase_student.backends.native import NativeBackend
from ase_student.demo import give_velocities
from ase_student.engine.library import Step
from ase_student.neighbors import NeighborList

TIME_STEP_FS = 0.5
TEMPERATURE = 300.0


class ZeroCalculator(Calculator):
    """Calculator that returns zeros, to measure the time of ASE alone."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Iterable[str] = all_changes,
    ) -> None:
        """Set all results to zero."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        zeros = np.zeros((len(self.atoms), 3))
        self.results = {"energy": 0.0, "free_energy": 0.0, "forces": zeros}


class Stopwatch:
    """Seconds spent in parts of a calculation, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, name: str, start: float) -> None:
        """Add the time since ``start``."""
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


class _TimedBackend:
    """A backend that records its time; copying results from a GPU waits until they are ready."""

    def __init__(self, backend: Backend, watch: Stopwatch) -> None:
        self.backend, self.device, self.info = backend.backend, backend.device, backend.info
        self._inner, self._watch = backend, watch

    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        neighbors: NDArray[np.int64],
        offsets: NDArray[np.float64],
    ) -> Results:
        start = time.perf_counter()
        results = self._inner.evaluate(numbers, positions, neighbors, offsets)
        self._watch.add("backend", start)
        return results


class _TimedNeighborList(NeighborList):
    def __init__(self, cutoff: float, skin: float, watch: Stopwatch) -> None:
        super().__init__(cutoff, skin)
        self._watch = watch

    def update(self, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        neighbors_and_offsets = super().update(*arguments, **options)
        self._watch.add("neighbors", start)
        return neighbors_and_offsets


class TimedCalculator(StudentCalculator):
    """A calculator that records the time of its parts; it takes the arguments of its base class.

    Attributes
    ----------
    watch : Stopwatch
        'calculator' is the time of ``calculate``; 'neighbors' and 'backend' are parts of it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.watch = Stopwatch()
        if isinstance(self._backend, NativeBackend):
            # The engine's neighbor list is a part of its step.
            self.watch.seconds["neighbors"] = 0.0
            vars(self._backend)["step"] = self._timed(self._backend.step)
            return
        self._backend: Backend = _TimedBackend(self._backend, self.watch)
        skin = self.neighbor_list.skin
        self.neighbor_list = _TimedNeighborList(self.info.cutoff, skin, self.watch)

    def _timed(self, step: Callable[..., Step]) -> Callable[..., Step]:
        def timed(*arguments: Any) -> Step:
            start = time.perf_counter()
            result = step(*arguments)
            self.watch.add("backend", start)
            return result

        return timed

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Iterable[str] = all_changes,
    ) -> None:
        """Compute all properties; see :meth:`StudentCalculator.calculate`."""
        start = time.perf_counter()
        super().calculate(atoms, properties, system_changes)
        self.watch.add("calculator", start)


def dynamics(atoms: Atoms, calculator: Any) -> VelocityVerlet:
    """Return dynamics at constant energy, with velocities of 300 K, before its first step."""
    atoms = atoms.copy()
    give_velocities(atoms, TEMPERATURE, np.random.default_rng(0))
    atoms.calc = calculator
    return VelocityVerlet(atoms, timestep=TIME_STEP_FS * units.fs)


def split(watch: Stopwatch, seconds: float, steps: int) -> dict[str, float]:
    """Return the time of each part in milliseconds per step; the parts add up to the whole.

    Parameters
    ----------
    watch : Stopwatch
        Stopwatch of a :class:`TimedCalculator`, empty before the first step.
    seconds : float
        Wall time of all steps.
    steps : int
        Number of steps.

    Returns
    -------
    dict of str to float
        'ase', 'calculator' (without 'neighbors' and 'backend'), 'neighbors' and 'backend'.
    """
    spent = {name: watch.seconds.get(name, 0.0) for name in ("calculator", "neighbors", "backend")}
    parts = {
        "ase": seconds - spent["calculator"],
        "calculator": spent["calculator"] - spent["neighbors"] - spent["backend"],
        "neighbors": spent["neighbors"],
        "backend": spent["backend"],
    }
    return {name: 1000.0 * part_seconds / steps for name, part_seconds in parts.items()}


def nanoseconds_per_day(seconds_per_step: float) -> float:
    """Return the simulated nanoseconds per day of computing, with time steps of 0.5 fs."""
    return 86400.0 / seconds_per_step * TIME_STEP_FS * 1e-6
