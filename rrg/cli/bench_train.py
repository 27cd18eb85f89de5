"""`rrg bench train`: studies a second, utilisation and where the time of a step goes, over numbers of processes or nodes."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.bench.train_run import TrainPlan

EXAMPLE = """examples:
  rrg bench train r2gengpt_mimic data.shards=shards/mimic --processes 1,2,4,8 --scaling weak --out bench/node
  rrg bench train r2gengpt_mimic data.shards=shards/mimic --nodes 1,2,4 --out bench/cluster     (inside a Slurm allocation)
  torchrun --nproc-per-node 8 -m rrg.cli bench train r2gengpt_mimic …     (measures on just these processes)
  rrg bench train --compare here/processes_8.json there/processes_8.json
  rrg bench train --table bench/*/nodes_*.json --out bench/all     (one table and picture of what several jobs measured)

Written to --out: processes_N.json or nodes_N.json (everything measured, with hardware and versions of every rank), its log,
table.txt and scaling.png. No checkpoint is written, nothing is validated. docs/benchmark_runs.md says how each figure is made."""


def register(subjects: argparse._SubParsersAction) -> None:
    """Add the subject."""
    parser = subjects.add_parser(
        "train", help="speed and scaling of training", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", help="a recipe file, or the name of one under configs/")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="steps measured (50)")
    parser.add_argument("--warmup", type=int, default=10, metavar="N", help="steps before them (10)")
    parser.add_argument(
        "--scaling", default="weak", metavar="KIND", help="weak (default): the batch grows with the count; strong: not"
    )
    parser.add_argument("--processes", metavar="N,N", help="counts of processes on this machine (1)")
    parser.add_argument("--nodes", metavar="N,N", help="counts of nodes of the Slurm allocation")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (bench/NAME OF THE RECIPE)")
    parser.add_argument("--peak-tflops", type=float, metavar="X", help="rate of one device, where its kind is not known")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two results side by side; measures nothing")
    parser.add_argument("--table", nargs="+", type=Path, metavar="JSON", help="table and picture of results; measures nothing")
    parser.add_argument("--json", type=Path, metavar="OUT", help="measure on the processes of this launch, and write here")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the recipe")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare, measure here, or launch what measures."""
    if options.compare:
        return _compare(*options.compare)
    if options.table:
        return _tabulate(options)
    if not options.recipe or "=" in options.recipe:
        raise UserError("rrg bench train: name a recipe, for example `rrg bench train tiny/r2gengpt_iu --out bench`")
    from rrg.bench.train_launch import in_launch
    from rrg.bench.train_run import TrainPlan
    from rrg.cli.quiet import quiet_libraries

    if options.scaling not in ("weak", "strong"):
        raise UserError(f"--scaling {options.scaling}: write weak or strong")
    quiet_libraries()
    plan = TrainPlan(options.steps, options.warmup, options.scaling, options.peak_tflops)
    if options.json is not None or in_launch():
        return _measure_here(options, plan)
    return _launch(options)


def _measure_here(options: argparse.Namespace, plan: TrainPlan) -> int:
    """One of the processes of a configuration."""
    import os
    import sys

    from rich.console import Console

    from rrg.bench.train_run import measure_training
    from rrg.cli.bench_train_table import show
    from rrg.cli.room import room_in
    from rrg.recipe import load_recipe
    from rrg.train.rundir import write_json
    from rrg.train.signals import EXIT_INTERRUPTED, Interrupted

    target = options.json
    if target is None:
        out = _out(options, load_recipe(options.recipe, options.overrides).value.name)
        target = out / f"processes_{os.environ['WORLD_SIZE']}.json"
    steps = plan.warmup + plan.steps
    fixed = [f"train.max_steps={steps}", "train.validate_every=0", f"output={target.with_suffix('.run')}"]
    loaded = load_recipe(options.recipe, [*options.overrides, *fixed])
    with room_in(target.parent):
        try:
            record = measure_training(loaded, plan)
        except Interrupted as left:
            sys.stderr.write(f"rrg: interrupted by {left.why}; nothing was measured\n")
            return EXIT_INTERRUPTED
        if os.environ.get("RANK", "0") == "0":
            write_json(target, record)
            if options.json is None:
                show([record], Console(soft_wrap=True, highlight=False))
    return 0


def _launch(options: argparse.Namespace) -> int:
    """Every configuration in turn; then the table and the picture of all."""
    from rich.console import Console

    from rrg.bench.train_launch import check_counts, configurations, run_configuration
    from rrg.cli.room import room_in
    from rrg.recipe import load_recipe

    if options.processes and options.nodes:
        raise UserError("--nodes and --processes: write one of them")
    over_nodes = options.nodes is not None
    counts = _counts("--nodes" if over_nodes else "--processes", options.nodes or options.processes or "1")
    check_counts(counts, over_nodes)
    recipe = load_recipe(options.recipe, options.overrides).value
    planned, out = configurations(recipe, counts, options.scaling, over_nodes), _out(options, recipe.name)
    words = [options.recipe, *options.overrides, "--steps", str(options.steps), "--warmup", str(options.warmup)]
    words += ["--scaling", options.scaling]
    words += [] if options.peak_tflops is None else ["--peak-tflops", str(options.peak_tflops)]
    waiting = Console(stderr=True, highlight=False)
    with room_in(out):
        out.mkdir(parents=True, exist_ok=True)
        records = [run_configuration(planned_one, words, out, waiting.print) for planned_one in planned]
        _present(records, out)
    print(f"everything measured: {out}")
    return 0


def _present(records: list[dict[str, Any]], out: Path) -> None:
    """The table on the screen, table and picture in `out`."""
    from rich.console import Console

    from rrg.bench.train_plot import scaling_png
    from rrg.cli.bench_train_table import show, written
    from rrg.shards.storage import replace_file

    show(records, Console(soft_wrap=True, highlight=False))
    replace_file(out / "table.txt", written(records).encode())
    replace_file(out / "scaling.png", scaling_png(records))


def _tabulate(options: argparse.Namespace) -> int:
    """Results of several jobs, from the fewest processes to the most."""
    from rrg.bench.train_protocol import require_same
    from rrg.bench.train_result import read_result
    from rrg.cli.room import room_in

    read = sorted(((read_result(path), path) for path in options.table), key=lambda pair: pair[0]["configuration"]["processes"])
    records, paths = [pair[0] for pair in read], [pair[1] for pair in read]
    for (earlier, first), (later, second) in itertools.pairwise(read):
        require_same(earlier, later, (str(first), str(second)))
        if earlier["configuration"]["processes"] == later["configuration"]["processes"]:
            raise UserError(
                f"{first} and {second}: both of {later['configuration']['processes']} processes; use --compare for these two"
            )
    out = options.out or paths[0].parent
    with room_in(out):
        out.mkdir(parents=True, exist_ok=True)
        _present(records, out)
    print(f"{out / 'table.txt'}\n{out / 'scaling.png'}")
    return 0


def _out(options: argparse.Namespace, name: str) -> Path:
    return options.out or Path("bench", name)


def _counts(name: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"{name} {text!r}: write numbers with commas, such as 1,2,4") from None


def _compare(first: Path, second: Path) -> int:
    from rich.console import Console

    from rrg.bench.train_protocol import require_same
    from rrg.bench.train_result import read_result
    from rrg.cli.bench_train_table import show_pair

    pair: list[dict[str, Any]] = [read_result(first), read_result(second)]
    require_same(pair[0], pair[1], (str(first), str(second)))
    show_pair(pair[0], pair[1], Console(soft_wrap=True, highlight=False))
    return 0
