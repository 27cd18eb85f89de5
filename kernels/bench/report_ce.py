"""`python kernels/bench/report_ce.py --out DIR`; what is compared is in rrg_kernels/report_ce/contenders.py."""

import sys

from rrg_kernels.timing.command import main

sys.exit(main(["report_ce", *sys.argv[1:]]))
