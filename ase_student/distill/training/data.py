"""Labeled data in memory, split into parts for training, validation and test."""

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

# Metadata of each data set that the metadata of a student repeat.
_REPEATED_METADATA = ("teacher_settings", "structures_sha256", "max_force", "statistics")


class TrainingData:
    """The samples of each part of the split.

    Parameters
    ----------
    datasets : sequence of path
        Labeled files, which are split. If a file is given several times, its training part counts
        that many times, the other parts once.
    settings : TrainingSettings
        Says how to split.
    cutoff : float, Å
        Cutoff of the neighbors.
    tests : sequence of path
        Labeled files that are used only for testing, without a split; each is a test of its own.
    calibration : path, optional
        Labeled file; the energies are calibrated on its validation part.

    Attributes
    ----------
    tests : dict of str to list of Sample
        The samples of each of `tests`, by the file's name without its suffix.
    calibration : list of Sample
        The samples to calibrate energies on; empty if there is no such file.
    calibration_sha256 : str or None
        Hash of the calibration file.
    teacher : str or None
        Teacher of all files that name one; None if no file does.
    provenance : list of dict
        Origin of each file: hash, teacher, sampling, and the number of structures in each part.
    seen : TrainingRanges
        Ranges of the training part, which the guard of a calculator compares with.

    Raises
    ------
    ValueError
        If a file has no labels, or labels of another teacher or of other settings; if a part is
        empty, or the validation part of the calibration file; if a part or a test has elements that
        the training part lacks; if the molecules of a test are trained on (the structures, if the
        split is by structure); or if two tests have the same name, or a test that of a part.
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
        """Atomic numbers in the training part, ascending."""
        numbers = {int(z) for sample in self["train"] for z in np.unique(sample.numbers)}
        return tuple(sorted(numbers))

    def chosen(self, part: str, limit: int) -> list[Sample]:
        """Return at most `limit` samples of a part, the same in every call."""
        samples = self[part]
        if len(samples) <= limit:
            return samples
        generator = np.random.default_rng(self._settings.seed)
        units = units_of(samples)
        if len(units) == len(samples):
            return [samples[i] for i in generator.choice(len(samples), limit, replace=False)]
        # The interaction energy of a complex needs its fragments: groups are chosen as a whole.
        chosen: list[int] = []
        for index in generator.permutation(len(units)):
            if len(chosen) + len(units[index]) <= limit:
                chosen += units[index]
        return [samples[i] for i in chosen]

    def check(self) -> None:
        """Raise ValueError if a part is empty or has elements that the training part lacks."""
        trained_elements = set(self.elements)
        for part in PARTS:
            if not self[part]:
                raise ValueError(f"the data hold no {self._settings.split}s of the {part} part.")
        samples_by_name = {f"the {part} part": self[part] for part in PARTS}
        samples_by_name |= {f"the test '{name}'": samples for name, samples in self.tests.items()}
        samples_by_name["the file for the calibration"] = self.calibration
        for name, samples in samples_by_name.items():
            elements = {int(z) for sample in samples for z in np.unique(sample.numbers)}
            if elements - trained_elements:
                symbol = chemical_symbols[min(elements - trained_elements)]
                raise ValueError(
                    f"{name} has {symbol}, which no molecule of the train part has; "
                    "label more molecules with it, or split by another split_seed."
                )

    def _read(self, path: Path, times: int) -> dict[str, Any]:
        """Add the samples of a file to the parts and return the provenance of the file."""
        with self._labeled(path) as dataset:
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
            self._trained |= self._split_keys(structures, index)
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
            **{key: metadata[key] for key in _REPEATED_METADATA if key in metadata},
        }

    @contextmanager
    def _labeled(self, path: Path) -> Iterator[Dataset]:
        """Open a file, whose labels must be of the same teacher as those of all other files."""
        with Dataset(path) as dataset:
            if not dataset.n_labels:
                raise ValueError(f"{path}: has no labels; give what the step 'label' writes.")
            teacher = dataset.metadata.get("teacher")
            if None not in (teacher, self.teacher) and teacher != self.teacher:
                raise ValueError(
                    f"{path}: has labels of '{teacher}', but an earlier file has labels of "
                    f"'{self.teacher}'; a student has one teacher."
                )
            settings = dataset.metadata.get("teacher_settings")
            if settings and self._teacher_settings:
                difference = settings_difference(settings, self._teacher_settings)
                if difference is not None:
                    raise ValueError(
                        f"{path}: has labels of '{teacher}' with other settings than an earlier "
                        f"file: {difference}; label one of them again."
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
        with self._labeled(path) as dataset:
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
        """Return the samples of a test file; none may have been trained on."""
        with self._labeled(path) as dataset:
            structures, labels = dataset.read_structures(), dataset.read_labels()
        samples = self._samples_of(structures, labels, range(len(labels)), path)
        for index in labels.structure_indices:
            keys = self._split_keys(structures, index)
            if keys and keys <= self._trained:
                names = sorted(key for key in keys if isinstance(key, str))
                subject = f"its molecules {', '.join(names)} are" if names else "it is"
                raise ValueError(
                    f"{path}: structure {index} is for the test only, but {subject} trained on."
                )
        return samples

    def _split_keys(self, structures: Structures, index: int) -> set[str | bytes]:
        """Return what must not be in two parts: the molecules except water, or the structure."""
        if self._settings.split == "structure":
            return {fingerprint(structures, index)}
        if structures.molecules is None:
            return set()
        return {smiles for smiles in structures.molecules[index].split(".") if smiles != WATER}


def _check_names(tests: Sequence[Path]) -> None:
    """Raise ValueError if two tests, or a test and a part of the data, have the same name."""
    for stem, times in Counter(path.stem for path in tests).items():
        if times > 1:
            raise ValueError(f"{times} tests are called '{stem}'; a test has its file's name.")
        if stem in PARTS:
            raise ValueError(
                f"a test cannot be called '{stem}', the name of a data part; rename its file."
            )
