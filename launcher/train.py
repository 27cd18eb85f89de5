"""What the launchers run: `accelerate launch launcher/train.py RECIPE [key=value …]`, `torchrun … launcher/train.py RECIPE …`.

The same as `rrg train`; kept as a file because launchers want one.
"""

from __future__ import annotations

import sys

from rrg.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
