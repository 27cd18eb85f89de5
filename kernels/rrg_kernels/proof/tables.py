"""Tables of what was compiled, as markdown for a README and CSV for a program."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from rrg_kernels.proof.aot import CompiledLaunch, compiling
from rrg_kernels.proof.cases import Case
from rrg_kernels.proof.resources import MULTIPROCESSORS

AOT_COLUMNS = ("case", "kernel", "arch", "blocks", "warps", "registers", "spills", "shared kB", "blocks/SM", "occupancy")


def compile_cases(cases: Iterable[Case], architectures: Sequence[str] = tuple(MULTIPROCESSORS)) -> list[dict[str, str]]:
    """One row per case, kernel and architecture: what its machine code needs."""
    rows = []
    for case in cases:
        for arch in architectures:
            with compiling(arch) as launches:
                case.run("meta")
            rows += [_row(case, launch) for launch in launches]
    return rows


def _row(case: Case, launch: CompiledLaunch) -> dict[str, str]:
    resources = launch.resources
    tile = " ".join(f"{name}={value}" for name, value in launch.constants.items() if name.startswith("BLOCK"))
    return {
        "case": f"{case.kernel}: {case.name}",
        "kernel": launch.kernel,
        "arch": launch.arch,
        "blocks": tile.replace("BLOCK_", ""),
        "warps": str(resources.warps),
        "registers": str(resources.registers),
        "spills": str(resources.spills + resources.stack),
        "shared kB": f"{resources.shared / 1024:.1f}",
        "blocks/SM": str(resources.blocks_per_sm(launch.arch)),
        "occupancy": f"{resources.occupancy(launch.arch):.2f}",
    }


def markdown(rows: list[dict[str, str]]) -> str:
    """Rows with the same columns as a markdown table."""
    if not rows:
        return ""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def comma_separated(rows: list[dict[str, str]]) -> str:
    """The same as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
