"""Labelled data in memory, in the parts of the split: to train on, to validate on, to test on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ase_student.data.hdf5 import Dataset
from ase_student.data.label_settings import settings_difference
from ase_student.data.sources import UNLIKE_USE
from ase_student.data.splits import PARTS, WATER, fingerprint, parts_of
from ase_student.data.structures import Labels, Structures
from ase_student.distill.training.batches import Sample, samples_of
from ase_student.distill.training.energy_differences import units_of
from ase_student.distill.training.settings import TrainingSettings
from ase_student.extrapolation.ranges import TrainingRanges
from ase_student.files import file_sha256

# What a student's metadata keep of each data set's.
_KEPT = ("teacher_settings", "structures_sha256", "max_force", "statistics")


class TrainingData:
    """The samples of each part of the split.

    Parameters
    ----------
    datasets : sequence of path
        Labelled files, which are split. Of one that is given several times, the part for training
        counts as often, the others once.
    settings : Settings
        Says how to split.
    cutoff : float, Å
        Of the neighbors.
    tests : sequence of path
        Labelled files that are for the test as a whole, each a test of its own.
    calibration : path, optional
        Labelled file, of which the validation part is for the calibration of energies.

    Attributes
    ----------
    tests : dict of str to list of Sample
        The samples of each of `tests`, by the file's name without its suffix.
    calibration : list of Sample
        The samples to calibrate energies on; empty if there is no such file.
    calibration_sha256 : str or None
        Of the file that they are from.
    teacher : str or None
        Of all files that say which; None if none does.
    provenance : list of dict
        What is to be known of each file.
    seen : TrainingRanges
        Extremes of the part for training, which the guard of a calculator compares with.

    Raises
    ------
    ValueError
        If a file has no labels, or those of another teacher or of other settings, a part is empty,
        also that of the file for the calibration, a part or a test has elements that are not
        trained on, the molecules of a test are trained on (the structures, if these are what is
        split), or the name of a test is taken.
    """

    def __init__(
        self,
        datasets: Sequence[Path],
        settings: TrainingSettings,
        cutoff: float,
        *,
        tests: Sequence[Path] = (),
        calibration: Path | None = None,
    ):
        _check_names(tests)
        self._settings, self._cutoff = settings, cutoff
        self._samples: dict[str, list[Sample]] = {part: [] for part in PARTS}
        self._trained: set[str | bytes] = set()
        self.teacher: str | None = None
        self._teacher_settings: dict[str, Any] | None = None
        self.seen = TrainingRanges(cutoff)
        self.provenance = [self._read(path, times) for path, times in Counter(datasets).items()]
        self.tests = {path.stem: self._read_test(path) for path in tests}
        self.calibration = [] if calibration is None else self._read_calibration(calibration)
        self.calibration_sha256 = None if calibration is None else file_sha256(calibration)
        self.check()

    def __getitem__(self, part: str) -> list[Sample]:
        return self._samples[part]

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers of what is trained on, ascending."""
        found = {int(z) for sample in self["train"] for z in np.unique(sample.numbers)}
        return tuple(sorted(found))

    def chosen(self, part: str, limit: int) -> list[Sample]:
        """Return at most `limit` samples of a part, the same in every call."""
        samples = self[part]
        if len(samples) <= limit:
            return samples
        generator = np.random.default_rng(self._settings.seed)
        units = units_of(samples)
        if len(units) == len(samples):
            return [samples[i] for i in generator.choice(len(samples), limit, replace=False)]
        # A complex says nothing about interactions without its fragments.
        chosen: list[int] = []
        for index in generator.permutation(len(units)):
            if len(chosen) + len(units[index]) <= limit:
                chosen += units[index]
        return [samples[i] for i in chosen]

    def check(self) -> None:
        """Raise ValueError if a part is empty or has elements that are not trained on."""
        known = set(self.elements)
        for part in PARTS:
            if not self[part]:
                raise ValueError(f"the data hold no {self._settings.split}s of the {part} part.")
        named = {f"the {part} part": self[part] for part in PARTS}
        named |= {f"the test '{name}'": samples for name, samples in self.tests.items()}
        named["the file for the calibration"] = self.calibration
        for name, samples in named.items():
            elements = {int(z) for sample in samples for z in np.unique(sample.numbers)}
            if elements - known:
                symbol = chemical_symbols[min(elements - known)]
                raise ValueError(
                    f"{name} has {symbol}, which no molecule of the train part has; "
                    "label more molecules with it, or split by another split_seed."
                )

    def _read(self, path: Path, times: int) -> dict[str, Any]:
        """Add a file's samples to the parts and return what is to be known of the file."""
        with self._labelled(path) as dataset:
            structures, labels = dataset.read_structures(), dataset.read_labels()
            metadata = dataset.metadata
        indices = labels.structure_indices
        parts = self._split(structures, path)
        samples = self._samples_of(structures, labels, range(len(labels)), path)
        counts: Counter[str] = Counter()
        for index, sample in zip(indices, samples, strict=True):
            part = parts[index]
            self._samples[part] += [sample] * (times if part == "train" else 1)
            counts[part] += 1
            if part != "train":
                continue
            self._trained |= self._keys(structures, index)
            if sample.source not in UNLIKE_USE:
                self.seen.add(
                    sample.numbers,
                    sample.positions,
                    sample.neighbors,
                    sample.offsets,
                    sample.forces,
                )
        return {
            "sha256": file_sha256(path),
            "teacher": metadata.get("teacher"),
            "structures": dict(counts),
            "times_in_training": times,
            "sampling": metadata.get("structures_metadata", {}).get("sampling"),
            **{key: metadata[key] for key in _KEPT if key in metadata},
        }

    @contextmanager
    def _labelled(self, path: Path) -> Iterator[Dataset]:
        """Open a file that must have labels of the same teacher as all others."""
        with Dataset(path) as dataset:
            if not dataset.n_labels:
                raise ValueError(f"{path}: has no labels; give what the step 'label' writes.")
            teacher = dataset.metadata.get("teacher")
            if None not in (teacher, self.teacher) and teacher != self.teacher:
                raise ValueError(
                    f"{path}: has labels of '{teacher}', but a file before it those of "
                    f"'{self.teacher}'; a student has one teacher."
                )
            settings = dataset.metadata.get("teacher_settings")
            if settings and self._teacher_settings:
                difference = settings_difference(settings, self._teacher_settings)
                if difference is not None:
                    raise ValueError(
                        f"{path}: has labels of '{teacher}' with other settings than a file before "
                        f"it: {difference}; label one of them again."
                    )
            self.teacher = self.teacher or teacher
            self._teacher_settings = self._teacher_settings or settings
            yield dataset

    def _samples_of(
        self, structures: Structures, labels: Labels, rows: Sequence[int], path: Path
    ) -> list[Sample]:
        return samples_of(structures, labels, rows, cutoff=self._cutoff, path=path)

    def _split(self, structures: Structures, path: Path) -> Sequence[str]:
        """Return the part that each of a file's structures belongs to."""
        return parts_of(structures, self._settings.split, self._settings.split_seed, path=path)

    def _read_calibration(self, path: Path) -> list[Sample]:
        """Return the samples of a file's validation part."""
        with self._labelled(path) as dataset:
            structures, labels = dataset.read_structures(), dataset.read_labels()
        parts = self._split(structures, path)
        indices = labels.structure_indices
        rows = [row for row, index in enumerate(indices) if parts[index] == "validation"]
        if not rows:
            raise ValueError(
                f"{path}: is for the calibration, but holds nothing of the validation part."
            )
        return self._samples_of(structures, labels, rows, path)

    def _read_test(self, path: Path) -> list[Sample]:
        """Return a file's samples, none of which is of what is trained on."""
        with self._labelled(path) as dataset:
            structures, labels = dataset.read_structures(), dataset.read_labels()
        samples = self._samples_of(structures, labels, range(len(labels)), path)
        for index in labels.structure_indices:
            keys = self._keys(structures, index)
            if keys and keys <= self._trained:
                names = sorted(key for key in keys if isinstance(key, str))
                what = f"its molecules {', '.join(names)} are" if names else "it is"
                raise ValueError(
                    f"{path}: structure {index} is for the test as a whole, but {what} trained on."
                )
        return samples

    def _keys(self, structures: Structures, index: int) -> set[str | bytes]:
        """Return what must not be in two parts: molecules but water, or the structure itself."""
        if self._settings.split == "structure":
            return {fingerprint(structures, index)}
        if structures.molecules is None:
            return set()
        return {one for one in structures.molecules[index].split(".") if one != WATER}


def _check_names(tests: Sequence[Path]) -> None:
    """Raise ValueError if two tests, or a test and a part, would have the same name."""
    for stem, times in Counter(path.stem for path in tests).items():
        if times > 1:
            raise ValueError(f"{times} tests are called '{stem}'; a test has its file's name.")
        if stem in PARTS:
            raise ValueError(
                f"a test cannot be called '{stem}', as a part of the data is; rename its file."
            )
