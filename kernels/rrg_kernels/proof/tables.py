"""Tables of what was compiled and counted, as markdown for a README and CSV for a program."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from rrg_kernels.proof.aot import CompiledLaunch, compiling
from rrg_kernels.proof.cases import Case, Counted
from rrg_kernels.proof.resources import MULTIPROCESSORS
from rrg_kernels.proof.traffic import counting, dram_bytes, lower_bound
from rrg_kernels.proof.unfused import count


def compile_cases(cases: Iterable[Case], architectures: Sequence[str] = tuple(MULTIPROCESSORS)) -> list[dict[str, str]]:
    """One row per case, kernel, tile and architecture: the most that any of its binaries (specialisations) needs."""
    rows = []
    for case in cases:
        for arch in architectures:
            with compiling(arch) as launches:
                case.run("meta")
            kinds: dict[tuple[str, str], list[CompiledLaunch]] = {}
            for launch in launches:
                kinds.setdefault((launch.kernel, _tile(launch)), []).append(launch)
            rows += [_row(case, tile, binaries) for (_, tile), binaries in kinds.items()]
    return rows


def _tile(launch: CompiledLaunch) -> str:
    return " ".join(f"{name[6:]}={value}" for name, value in launch.constants.items() if name.startswith("BLOCK_"))


def _row(case: Case, tile: str, binaries: list[CompiledLaunch]) -> dict[str, str]:
    arch, needs = binaries[0].arch, [binary.resources for binary in binaries]
    return {
        "case": f"{case.kernel}: {case.name}",
        "kernel": binaries[0].kernel,
        "arch": arch,
        "blocks": tile,
        "warps": str(needs[0].warps),
        "binaries": str(len(binaries)),
        "registers": str(max(need.registers for need in needs)),
        "spills": str(max(need.spills + need.stack for need in needs)),
        "shared kB": f"{max(need.shared for need in needs) / 1024:.1f}",
        "blocks/SM": str(min(need.blocks_per_sm(arch) for need in needs)),
        "occupancy": f"{min(need.occupancy(arch) for need in needs):.2f}",
    }


def count_cases(cases: Iterable[Counted]) -> list[dict[str, str]]:
    """One row per case: bytes against the least, and against the eager graph. In a process that interprets."""
    rows = []
    for case in cases:
        with counting(compute=False) as traffic:
            tensors = case.run()
        least = lower_bound(tensors, [])
        moved = {arch: dram_bytes(traffic.waves, int(limits.l2 * case.cache_share)) for arch, limits in MULTIPROCESSORS.items()}
        eager = count(case.unfused) if case.unfused else None
        rows.append(
            {
                "case": f"{case.kernel}: {case.name}",
                "least MB": f"{least / 1e6:.2f}",
                **{f"× least, {arch}": f"{size / least:.2f}" for arch, size in moved.items()},
                "requested MB": f"{traffic.requested / 1e6:.1f}",
                "GFLOP": f"{traffic.flops / 1e9:.2f}",
                "eager MB": f"{eager.bytes / 1e6:.1f}" if eager else "",
                "eager × ours, sm_90": f"{eager.bytes / moved['sm_90']:.1f}" if eager else "",
                "eager GFLOP": f"{eager.flops / 1e9:.2f}" if eager else "",
            }
        )
    return rows


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
