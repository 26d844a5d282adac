"""``python benchmarks``: run a command of :mod:`timing.commands`."""

import sys

from timing.commands import main

sys.exit(main())
