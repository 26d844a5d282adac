"""``python -m ase_student`` does the same as ``ase-student``."""

import sys

from ase_student.cli import main

if __name__ == "__main__":
    sys.exit(main())
