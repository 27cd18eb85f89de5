"""`python -m rrg.cli` is `rrg`."""

import sys

from rrg.cli import main

sys.exit(main())
