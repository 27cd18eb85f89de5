"""The command behind `kernels/bench`, and behind a front door of another program."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch

from rrg_kernels.dispatch import FALLBACKS
from rrg_kernels.timing.arguments import add_arguments
from rrg_kernels.timing.match import Score, find_matches, play
from rrg_kernels.timing.results import HEADER, table, write_csv

Tell = Callable[[str], object]


def run(options: argparse.Namespace, tell: Tell) -> list[Score]:
    """Play every match of the chosen kernels, tell the table line by line, write the CSV.

    Raises:
        ValueError: an unknown kernel, no round, or cuda without a GPU.
    """
    unknown = sorted(set(options.kernels) - set(FALLBACKS))
    if unknown:
        raise ValueError(f"no kernel {', '.join(unknown)}; write any of {', '.join(FALLBACKS)}")
    if options.rounds < 1:
        raise ValueError(f"--rounds {options.rounds}: write 1 or more")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: there is no GPU here")
    scores: list[Score] = []
    for kernel in options.kernels or FALLBACKS:
        for match in find_matches(kernel, device):
            tell(f"{kernel}: {match.size}")
            scores += play(match, device, options.rounds)
    for line in aligned([HEADER, *table(scores)]):
        tell(line)
    tell(f"written: {write_csv(scores, device, options.out)}")
    return scores


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns under one another."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def main(arguments: Sequence[str] | None = None, tell: Tell = print) -> int:
    """Exit status 2 for what cannot be done here, said in one line."""
    parser = argparse.ArgumentParser(description="Time the kernels beside what they replace, on the device present.")
    add_arguments(parser)
    try:
        run(parser.parse_args(arguments), tell)
    except ValueError as error:
        parser.error(str(error))
    return 0
