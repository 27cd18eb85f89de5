"""A stand-in for `launcher/rank.py` in a test: rank 1 finds no memory in its third step."""

import os
import sys

from launcher.rank import run
from tests.multiprocess.test_failures import starve_in_step_3

if os.environ["RANK"] == "1":
    starve_in_step_3()
sys.exit(run(sys.argv[1:]))
