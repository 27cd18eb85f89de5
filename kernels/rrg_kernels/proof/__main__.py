"""`python -m rrg_kernels.proof [--kernel NAME] [--csv]`: compile the published cases for sm_80 and sm_90.

`TRITON_INTERPRET=1 python -m rrg_kernels.proof --traffic`: count bytes and FLOPs instead.
"""

from __future__ import annotations

import argparse
import sys

from rrg_kernels.dispatch import FALLBACKS, KernelError
from rrg_kernels.proof.cases import counted_cases, published_cases
from rrg_kernels.proof.tables import comma_separated, compile_cases, count_cases, markdown


def main() -> int:
    """Exit status 1 where a kernel spills or does not fit on an SM, 2 where this process cannot do what is asked."""
    parser = argparse.ArgumentParser(prog="python -m rrg_kernels.proof", description="what can be shown without a GPU")
    parser.add_argument("--kernel", choices=list(FALLBACKS), help="only this kernel")
    parser.add_argument("--traffic", action="store_true", help="count bytes and FLOPs; needs TRITON_INTERPRET=1")
    parser.add_argument("--csv", action="store_true", help="CSV instead of markdown")
    options = parser.parse_args()
    try:
        rows = count_cases(counted_cases(options.kernel)) if options.traffic else compile_cases(published_cases(options.kernel))
    except KernelError as error:
        parser.error(str(error))
    sys.stdout.write(comma_separated(rows) if options.csv else markdown(rows))
    return int(any(row.get("spills", "0") != "0" or row.get("blocks/SM") == "0" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
