"""`rrg preflight`: can a run start on these nodes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.preflight.meeting import Report

EXAMPLE = """examples:
  rrg preflight --output runs/r2gengpt_iu --shards shards/iu
  srun --nodes=4 --ntasks-per-node=1 rrg preflight --output runs/x --shards shards/mimic --json preflight.json
  RRG_NODES=gpu[1-2] RRG_NODE=0 rrg preflight        on gpu1, and with RRG_NODE=1 on gpu2, without Slurm

The first node prints one line for each problem. Exit code 0: a run can start (there may be warnings); 2: something you can mend;
1: a node, a link or a disk is to blame."""


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "preflight", help="can a run start here", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What to look at; `rrg doctor --cluster` has the same."""
    parser.add_argument("--output", default="", metavar="RUN", help="run directory: space and speed of its disk")
    parser.add_argument("--shards", default="", metavar="DIR", help="shards: manifest, sizes, speed; equal on all nodes")
    parser.add_argument("--seconds", type=float, default=30.0, help="to wait for a node, and for all links (30)")
    parser.add_argument("--megabytes", type=float, default=32.0, help="of each transfer and file (32)")
    parser.add_argument("--least-free", type=float, default=1.0, metavar="GIB", help="free space for the output (1)")
    parser.add_argument("--least-gbps", type=float, default=0.0, metavar="GB/S", help="of a link between two nodes (0)")
    parser.add_argument("--slow", type=float, default=0.5, help="warn below this share of the other nodes' median (0.5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured")


def run(options: argparse.Namespace) -> int:
    """Look, meet, judge; the first node prints."""
    from rrg.preflight.machine import Wishes
    from rrg.preflight.meeting import check
    from rrg.preflight.topology import topology

    for name in ("seconds", "megabytes"):
        if getattr(options, name) <= 0:
            raise UserError(f"--{name}: {getattr(options, name):g} is not above 0")
    if not 0 <= options.slow <= 1:
        raise UserError(f"--slow: {options.slow:g} is no share between 0 and 1")
    wishes = Wishes(
        output=options.output,
        shards=options.shards,
        size=max(4096, int(options.megabytes * 2**20) // 4096 * 4096),
        least_free=options.least_free,
        slow=options.slow,
        least_gbps=options.least_gbps,
        seconds=options.seconds,
    )
    report = check(topology(os.environ), wishes)
    code = 0 if report is None else _tell(report, options.json)
    sys.stdout.flush()
    sys.stderr.flush()
    if report is None or len(report.nodes) > 1:
        os._exit(code)  # a thread that waits for a dead node would hold the interpreter up
    return code


def _tell(report: Report, target: Path | None) -> int:
    from rich.console import Console
    from rich.table import Table

    if target is not None:
        _write(target, report.record())
    table = Table("node", "devices", "GFLOP/s", "free GiB", "write MB/s", "read MB/s", "shards MB/s", "links GB/s", "all-reduce")
    for number, name in enumerate(report.nodes):
        facts, links = report.facts.get(number), report.links.get(number)
        if facts is None:
            table.add_row(name, "absent")
            continue
        row = [facts.compute, facts.free_gib, facts.write, facts.read, facts.shards_read]
        speeds = ", ".join(_number(speed, "none") for speed in links.pairs.values()) if links else ""
        table.add_row(name, _devices(facts.devices), *map(_number, row), speeds, _number(links.all_reduce if links else None))
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    for finding in report.findings:
        print(finding.line())
    verdict = {0: "a run can start", 1: "a machine is to blame", 2: "not with these settings"}[report.code]
    print(f"preflight: {len(report.facts)} of {len(report.nodes)} node(s), {report.seconds:.1f} s: {verdict}")
    return report.code


def _write(target: Path, record: dict[str, Any]) -> None:
    import json

    from rrg.shards.storage import replace_file

    try:
        replace_file(target, json.dumps(record, indent=1).encode())
    except OSError as error:
        raise UserError(f"--json {target}: cannot be written ({error.strerror})") from None


def _devices(names: list[str]) -> str:
    return f"{len(names)} x {names[0]}" if names else "cpu"


def _number(value: float | None, otherwise: str = "") -> str:
    return otherwise if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"
