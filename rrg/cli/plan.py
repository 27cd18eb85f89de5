"""`rrg plan`: what a recipe costs on a cluster, by strategy, before a GPU is paid for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.config.load import Loaded
    from rrg.plan.dry_run import DryRun
    from rrg.plan.planning import Plan
    from rrg.recipe import Recipe

EXAMPLE = """examples:
  rrg plan cmeaa_mimic --gpus 8 --gpu a100-40g
  rrg plan cmeaa_mimic --gpus 16 --gpus-per-node 8 --gpu a100-80g --report-tokens 90 train.batch_size=96
  rrg plan cmeaa_mimic --gpus 64 --gpu a100-40g --dry-run --json plan.json
  rrg plan --gpu LIST

Printed for ddp, zero2, zero3, fsdp2 and hsdp: bytes on a GPU at the fullest moment of a step, what crosses inside and between
nodes, seconds of a step, what fits, and which to write. Nothing is loaded or downloaded, and no GPU is needed: figures are
computed from shapes and from what vendors say of their GPUs. --dry-run also goes through a step of the real model under fake
tensors and a fake process group, and prints what it counted beside the estimate. docs/plan.md has the formulas."""


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "plan",
        help="bytes, traffic and time of every strategy",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", nargs="?", default="", metavar="RECIPE", help="a name below configs/, or a file")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="GPUs of all nodes together (8)")
    parser.add_argument("--gpus-per-node", type=int, metavar="M", help="of one node (8, or all where they are fewer)")
    parser.add_argument("--gpu", default="a100-80g", metavar="NAME", help="which (a100-80g); LIST prints the table")
    parser.add_argument("--network", type=float, metavar="GBIT", help="gigabits per second between nodes, of a node (200)")
    parser.add_argument("--report-tokens", type=int, metavar="L", help="longest report (language.max_report_tokens)")
    parser.add_argument("--prompt-tokens", metavar="B,A", help="tokens of the prompt before and after the image slot (estimated)")
    parser.add_argument("--dry-run", action="store_true", help="go through a step under fake tensors, and count")
    parser.add_argument(
        "--only", default="", metavar="S,S", help="strategies of the dry run: ddp, fsdp2, hsdp (those of them that can run)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write everything")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the recipe")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Plan, print, write."""
    from rrg.cli.plan_table import show_dry_runs, show_gpus, show_plan

    if options.gpu.upper() == "LIST":
        show_gpus()
        return 0
    if "=" in options.recipe:
        options.overrides, options.recipe = [options.recipe, *options.overrides], ""
    if not options.recipe:
        raise UserError("rrg plan: name a recipe, for example `rrg plan cmeaa_mimic --gpus 8 --gpu a100-40g`")
    if options.json is not None and not options.json.parent.is_dir():
        raise UserError(f"--json {options.json}: no folder {options.json.parent}; make it first")
    loaded, plan = _planned(options)
    only = _strategies(options.only, plan)
    show_plan(plan)
    runs = _dry_runs(loaded, plan, only) if options.dry_run else []
    if options.dry_run:
        show_dry_runs(plan, runs)
    if options.json is not None:
        _write(options.json, plan.record() | {"dry_runs": [vars(found) for found in runs]})
        print(f"everything: {options.json}")
    return 0


def _planned(options: argparse.Namespace) -> tuple[Loaded[Recipe], Plan]:
    from rrg.cli.quiet import quiet_libraries
    from rrg.plan.hardware import make_cluster
    from rrg.recipe import load_recipe

    cluster = make_cluster(options.gpu, options.gpus, options.gpus_per_node, options.network)
    loaded = load_recipe(options.recipe, options.overrides)
    prompt = _prompt(options.prompt_tokens)
    quiet_libraries()
    from rrg.plan.account import meta_model
    from rrg.plan.planning import make_plan
    from rrg.plan.workload import NGRAMS, workload

    model = meta_model(loaded.value, NGRAMS)
    work = workload(loaded.value, model, report_tokens=options.report_tokens, prompt=prompt)
    chosen = any(word.startswith("train.batch_size=") for word in options.overrides)
    return loaded, make_plan(loaded, model, cluster, work, chosen=chosen)


def _prompt(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        before, after = (int(word) for word in text.split(","))
    except ValueError:
        raise UserError(f"--prompt-tokens {text!r}: write two numbers, such as 6,24") from None
    if before < 0 or after < 1:
        raise UserError(f"--prompt-tokens {text}: write 0 or more before the image slot, and 1 or more after it")
    return before, after


def _strategies(text: str, plan: Plan) -> list[str]:
    from rrg.errors import nearest
    from rrg.plan.dry_run import RUNS

    asked = [word for word in text.split(",") if word] or [name for name in RUNS if not plan.row(name).why]
    for name in asked:
        if name not in RUNS:
            raise UserError(f"--only {name}: no strategy that can run dry; {nearest(name, RUNS)}")
        if plan.row(name).why:
            raise UserError(f"--only {name}: {plan.row(name).why}")
    return asked


def _dry_runs(loaded: Loaded[Recipe], plan: Plan, names: Sequence[str]) -> list[DryRun]:
    from rich.console import Console

    from rrg.plan.dry_run import dry_run

    found = []
    with Console(stderr=True).status("dry run") as status:
        for name in names:
            status.update(f"dry run: {name}, {plan.cluster.gpus} processes")
            found.append(dry_run(loaded.value, name, plan.cluster, plan.work))
    return found


def _write(path: Path, record: dict[str, Any]) -> None:
    from rrg.shards.storage import replacing

    with replacing(path) as file:
        file.write(json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n")
