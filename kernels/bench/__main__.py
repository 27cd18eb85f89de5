"""`python kernels/bench --out DIR [KERNEL ...]`: the whole timing table on the device present."""

import sys

from rrg_kernels.timing.command import main

sys.exit(main())
