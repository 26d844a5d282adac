"""``python -m ase_student`` does what ``ase-student`` does."""

import sys

from ase_student.cli import main

if __name__ == "__main__":
    sys.exit(main())
