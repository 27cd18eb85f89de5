"""`rrg view`: one HTML page of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rrg.errors import UserError, nearest

EXAMPLE = """example:
  rrg view runs/iu-tiny                      writes runs/iu-tiny/report.html
  rrg view runs/iu-tiny --split val --all    every study of the validation split
"""


def register(commands: Any) -> None:
    """Add the command to the parser of `rrg`."""
    parser = commands.add_parser(
        "view",
        help="one HTML page of a run",
        description="Write one self-contained HTML page of a run: scores beside controls, curves, films with both reports. "
        "It loads nothing from anywhere; it contains report text and films.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="run directory that `rrg train` made")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the page (default: RUN/report.html)")
    parser.add_argument("--split", default="test", help="whose reports and scores to show: train, val or test (default: test)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--studies", type=int, metavar="N", help="studies in the gallery, balanced over findings (default: 60)")
    size.add_argument("--all", action="store_true", help="every study in the gallery; each adds about 20 kB to the page")
    parser.set_defaults(run=view)


def view(options: argparse.Namespace) -> int:
    """Render the page, write it and say where it is."""
    from rrg.data.study import SPLITS
    from rrg.view.gallery import DEFAULT_STUDIES
    from rrg.view.page import render

    if options.split not in SPLITS:
        raise UserError(f"--split {options.split}: no such split; {nearest(options.split, SPLITS)}")
    studies = DEFAULT_STUDIES if options.studies is None else options.studies
    page = render(options.directory, options.split, None if options.all else studies)
    out = options.out or options.directory / "report.html"
    _write(out, page.encode("utf-8"))
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB; contains report text and films)")
    return 0


def _write(path: Path, data: bytes) -> None:
    from rrg.shards.storage import replace_file

    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; name a file in it, for example {path / 'report.html'}")
    try:
        replace_file(path, data)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file with --out") from None
