"""`python kernels/bench/mine.py --out DIR`; what is compared is in rrg_kernels/mine/contenders.py."""

import sys

from rrg_kernels.timing.command import main

sys.exit(main(["mine", *sys.argv[1:]]))
