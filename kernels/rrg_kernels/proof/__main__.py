"""`python -m rrg_kernels.proof [--kernel NAME] [--csv]`: compile the published cases for sm_80 and sm_90."""

from __future__ import annotations

import argparse
import sys

from rrg_kernels.dispatch import FALLBACKS
from rrg_kernels.proof.cases import published_cases
from rrg_kernels.proof.tables import comma_separated, compile_cases, markdown


def main() -> int:
    """Exit status 1 where a kernel spills or does not fit on an SM."""
    parser = argparse.ArgumentParser(prog="python -m rrg_kernels.proof", description="registers, spills, occupancy")
    parser.add_argument("--kernel", choices=list(FALLBACKS), help="only this kernel")
    parser.add_argument("--csv", action="store_true", help="CSV instead of markdown")
    options = parser.parse_args()
    rows = compile_cases(published_cases(options.kernel))
    sys.stdout.write(comma_separated(rows) if options.csv else markdown(rows))
    return int(any(row["spills"] != "0" or row["blocks/SM"] == "0" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
