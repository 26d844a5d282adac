"""``python benchmarks``: the commands of :mod:`timing.commands`."""

import sys

from timing.commands import main

sys.exit(main())
