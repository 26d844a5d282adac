"""The teacher GFN2-xTB, a semiempirical method for all elements up to radon."""

from __future__ import annotations

from importlib.metadata import version

from ase_student.potentials.calculator import CalculatorTeacher


def gfn2_xtb() -> CalculatorTeacher:
    """Return GFN2-xTB (Bannwarth et al., JCTC 2019, doi 10.1021/acs.jctc.8b01176) as a teacher.

    Raises
    ------
    ImportError
        If tblite is not installed.
    """
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise ImportError(
            'the teacher gfn2-xtb needs tblite: pip install "ase-student[xtb]"'
        ) from error
    return CalculatorTeacher(
        "gfn2-xtb",
        # Without the cache, it starts from the same guess after a reset for any earlier structures.
        lambda: TBLite(method="GFN2-xTB", verbosity=0, cache_api=False),
        {"package": f"tblite {version('tblite')}", "method": "GFN2-xTB", "total_charge": 0.0},
        elements=range(1, 87),
    )
