"""Import of labeled structures from files of other programs into one data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ase_student import provenance
from ase_student.data.hdf5 import write_dataset
from ase_student.data.readers.ase_db import DatabaseFrames
from ase_student.data.readers.base import UNKNOWN_SOURCE, Frame, LeftOut, StructureReader
from ase_student.data.readers.grouped_hdf5 import GroupedHdf5Frames
from ase_student.data.readers.label_keys import LabelKeys
from ase_student.data.readers.npz import NpzFrames
from ase_student.data.readers.opening import open_frames
from ase_student.data.readers.units import LabelUnits
from ase_student.data.structures import Labels, Structures
from ase_student.distill.labelling.checks import checked
from ase_student.distill.labelling.label import MAX_FORCE, by_reason, statistics
from ase_student.files import file_sha256
from ase_student.potentials.base import Evaluation, Refusal

#: Energies of rMD17, unless another unit is given.
NPZ_ENERGY = "kcal/mol"


@dataclass(frozen=True)
class ImportSettings:
    """Settings of an import.

    Attributes
    ----------
    keys : LabelKeys, optional
        Names of the labels; labels without a name are then not read.
    energy, length, forces, stress : str, optional
        Units of the files. By default eV and Å, for npz kcal/mol and Å; those of forces and stress
        follow from them.
    teacher : str, optional
        Method with which the labels were computed.
    source : str, optional
        How structures were sampled, if the file does not say so; by default the file's name.
    max_force : float, eV/Å
        A structure with a larger force is left out.
    skip_invalid : bool
        Whether invalid structures are left out; otherwise the first one is an error.
    """

    keys: LabelKeys | None = None
    energy: str | None = None
    length: str | None = None
    forces: str | None = None
    stress: str | None = None
    teacher: str | None = None
    source: str | None = None
    max_force: float = MAX_FORCE
    skip_invalid: bool = False

    def units_of(self, reader: StructureReader) -> LabelUnits:
        """Return the units of a file.

        Raises
        ------
        ValueError
            If units are given for a database that states its own.
        """
        units = (self.energy, self.length, self.forces, self.stress)
        if _states_units(reader) and any(units):
            raise ValueError(
                f"{reader.path.name}: its units are known, from the metadata or the layout of the "
                "file; leave out the options for units."
            )
        default = NPZ_ENERGY if isinstance(reader, NpzFrames) else "eV"
        return LabelUnits(self.energy or default, self.length or "Ang", self.forces, self.stress)


@dataclass
class Imported:
    """Frames of all files, and counts of those that were left out."""

    frames: list[Frame] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    @property
    def dropped(self) -> dict[str, int]:
        """Number of structures that were left out, by reason."""
        return by_reason(self.reasons)


def import_structures(
    paths: Sequence[Path], output: Path, settings: ImportSettings, *, command: str = ""
) -> Imported:
    """Write the labeled structures of files to one HDF5 data set.

    Parameters
    ----------
    paths : sequence of path
        Extended XYZ, ASE databases and trajectories, npz in the layout of rMD17, HDF5 in that of
        SPICE, ANI-1x or QM7-X.
    output : path
        Written under a temporary name and renamed when it is complete.
    settings : ImportSettings
    command : str
        Command that is recorded in the metadata.

    Raises
    ------
    FileNotFoundError
    ValueError
        If a file cannot be read, a structure is invalid, or no structure has energy and forces.
    """
    result = Imported()
    for path in paths:
        _read(path, settings, result)
    if not result.frames:
        raise ValueError(
            "no structure has energy and forces that can be used: "
            + " ".join(result.sentences)
            + (f" Left out: {_counted(result.dropped)}." if result.dropped else "")
            + " Name the labels by --energy-key and --forces-key."
        )
    structures = Structures.from_atoms([frame.atoms for frame in result.frames], result.sources)
    labels = _labels(result.frames, structures)
    metadata = {
        **provenance.metadata(command, "h5py"),
        "teacher": settings.teacher,
        "max_force": settings.max_force,
        "imported": result.files,
        "dropped": result.dropped,
        "sources": dict(Counter(result.sources)),
        "statistics": statistics(structures, labels),
    }
    write_dataset(output, structures, labels, metadata=metadata)
    return result


def _open(path: Path, keys: LabelKeys | None) -> StructureReader:
    if path.suffix.lower() == ".npz" and path.is_file():
        return NpzFrames(path, keys)
    if path.suffix.lower() in (".h5", ".hdf5") and path.is_file():
        return GroupedHdf5Frames(path, keys)
    return open_frames(path, keys)


def _read(path: Path, settings: ImportSettings, result: Imported) -> None:
    """Add the structures of a file."""
    reader = _open(path, settings.keys)
    try:
        units = settings.units_of(reader)
        # All readers have keys except that of the package's own HDF5, which is not opened here.
        keys: LabelKeys = reader.keys  # type: ignore[attr-defined]
        n_before = len(result.frames)
        for index in tqdm(range(len(reader.sizes)), unit="structure", disable=None, leave=False):
            (frame,) = reader.read([index])
            usable = _usable(frame, units, keys, settings)
            if isinstance(usable, str):
                result.reasons.append(usable)
                continue
            result.frames.append(usable)
            stated = None if usable.source == UNKNOWN_SOURCE else usable.source
            result.sources.append(stated or settings.source or path.stem)
    finally:
        reader.close()
    stated_units = _states_units(reader)
    result.sentences.append(
        f"{keys.sentence(path.name)[:-1]}; energies in "
        + ("the units that it states." if stated_units else f"{units.energy}, forces in "
           f"{units.forces_or_default}.")
    )  # fmt: skip
    result.files.append(
        {
            "file": path.name,
            "sha256": file_sha256(path),
            "keys": {**asdict(keys), "unused": list(keys.unused)},
            "units": "of the metadata" if stated_units else asdict(units),
            "structures": len(result.frames) - n_before,
        }
    )


def _usable(
    frame: Frame | LeftOut, units: LabelUnits, keys: LabelKeys, settings: ImportSettings
) -> Frame | str:
    """Return a frame in ASE's units that can be trained on, or the reason why it is left out."""
    if isinstance(frame, LeftOut):
        if frame.invalid and not settings.skip_invalid:
            raise ValueError(f"{frame.reason} --skip-invalid leaves out such structures.")
        return "invalid" if frame.invalid else "without energy and forces"
    converted = units.convert(frame, keys)
    if converted.energy is None:
        return "without energy"
    if converted.forces is None:
        return "without forces"
    label = Evaluation(converted.energy, converted.forces, converted.stress)
    answer = checked(label, converted.atoms, settings.max_force)
    return answer.reason if isinstance(answer, Refusal) else converted


def _labels(frames: Sequence[Frame], structures: Structures) -> Labels:
    """Return the labels of frames as columns, with a stress only for crystals."""
    stress = np.zeros((len(frames), 6))
    mask = np.zeros(len(frames), dtype=bool)
    for row, is_crystal in enumerate(structures.are_crystals):
        values = frames[row].stress
        if is_crystal and values is not None:
            stress[row], mask[row] = values, True
    return Labels(
        structure_indices=np.arange(len(frames)),
        energies=np.array([frame.energy for frame in frames], dtype=np.float64),
        splits=structures.splits,
        forces=np.concatenate([frame.forces for frame in frames]).astype(np.float32),
        stress=stress if mask.any() else None,
        stress_mask=mask if mask.any() else None,
    )


def _states_units(reader: StructureReader) -> bool:
    """Return whether the units of a file are known, so that its reader converts the labels."""
    return isinstance(reader, (DatabaseFrames, GroupedHdf5Frames)) and reader.states_units


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items())
