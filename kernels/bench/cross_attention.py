"""`python kernels/bench/cross_attention.py --out DIR`; what is compared is in rrg_kernels/cross_attention/contenders.py."""

import sys

from rrg_kernels.timing.command import main

sys.exit(main(["cross_attention", *sys.argv[1:]]))
