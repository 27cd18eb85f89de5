"""`rrg bench loader`: films a second of the reader and its parts, beside a plain Dataset and webdataset."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from rrg.bench.loader_result import LoaderResult
    from rrg.bench.turns import Ratio

EXAMPLE = """examples:
  rrg bench loader --shards shards/mimic
  rrg bench loader --shards shards/mimic --films mimic-cxr-jpg/files --studies 64 --workers 0,1,2 --json loader.json
  rrg bench loader --shards shards/iu --recipe embedded/r2gengpt_iu --split val train.micro_batch_size=16

Ways of reading, all to the same tensors, token ids and batches, in turns (A B C A B C ...), after one untimed pass of each:
  rrg, shards                     the training reader over SHARDS
  webdataset, shards              a plain webdataset pipeline over the same tars with the same decoding
  rrg, full-size shards           the training reader over --films, stored in temporary shards byte for byte
  plain Dataset, full-size files  Pillow, RGB, bicubic Hugging Face processor, as the R2GenGPT release reads
The films of --films are found by the source name that the shards record for each view. A ratio is taken turn by turn; the
median is printed, with the least and the largest. Without --recipe: 224x224 squashed, ImageNet's mean, a byte-level tokenizer
made from the split's first reports. Augmentation is off."""

# The preprocessing of R2GenGPT's encoder and a tokenizer that needs no file of its own.
_DEFAULT = ("tiny/r2gengpt_iu", ("vision.image_size=224", "language.tokenizer=bpe", "name=default"))


def register(subjects: argparse._SubParsersAction) -> None:
    """Add the subject."""
    parser = subjects.add_parser(
        "loader", help="films a second of reading", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", required=True, metavar="SHARDS", help="folder that `rrg prepare` wrote")
    parser.add_argument("--split", default="train", metavar="SPLIT", help="train (default), val or test")
    parser.add_argument("--films", type=Path, metavar="DIR", help="the same films as full-size JPEG files")
    parser.add_argument("--recipe", metavar="RECIPE", help="whose preprocessing, tokenizer, order and batch size are used")
    parser.add_argument("--studies", type=int, default=64, metavar="N", help="the first so many of the split (64)")
    parser.add_argument("--seconds", type=float, default=0.0, metavar="S", help="least time of a turn; 0: one pass")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="turns of each way (5)")
    parser.add_argument("--workers", default="0", metavar="W,W", help="numbers of loader processes to measure with (0)")
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache before every turn")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write everything that was measured")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the recipe")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, print, write."""
    from rich.console import Console

    from rrg.cli.quiet import quiet_libraries
    from rrg.recipe import load_recipe

    if options.json is not None and not options.json.parent.is_dir():
        raise UserError(f"--json {options.json}: no folder {options.json.parent}; make it first")
    recipe, defaults = (options.recipe, ()) if options.recipe else _DEFAULT
    loaded = load_recipe(recipe, [*defaults, *options.overrides])
    quiet_libraries()
    from rrg.bench.loader import LoaderPlan, measure_loader

    plan = LoaderPlan(
        shards=options.shards,
        split=options.split,
        films=options.films,
        studies=options.studies,
        seconds=options.seconds,
        rounds=options.rounds,
        workers=_workers(options.workers),
        cold=options.cold,
    )
    waiting = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="rrg-bench-") as scratch, waiting.status("opening") as status:
        result = measure_loader(loaded, plan, Path(scratch), status.update)
    _show(result, Console(soft_wrap=True, highlight=False))
    if options.json is not None:
        _write(options.json, result.record())
        print(f"everything measured: {options.json}")
    return 0


def _workers(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        raise UserError(f"--workers {text!r}: write numbers of processes with commas, such as 0,1,2") from None


def _write(path: Path, record: dict[str, Any]) -> None:
    from rrg.shards.storage import replacing

    with replacing(path) as file:
        file.write(json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n")


def _show(result: LoaderResult, console: Console) -> None:
    _show_machine(result, console)
    _show_rates(result, console)
    _show_parts(result, console)
    _show_order(result, console)
    for note in dict.fromkeys(result.notes):
        console.print(note, markup=False)


def _show_machine(result: LoaderResult, console: Console) -> None:
    machine, setting = result.machine, result.setting
    pages = setting["pages"]
    held = "" if pages["resident"] is None else f" ({pages['resident']:.0%} in memory at the end)"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']} to {machine['load_after']}, nice {machine['nice']}",
        f"python {machine['python']}, {versions}",
        f"{setting['studies']} studies, batches of {setting['batch_size']}, {setting['tensor']}",
        f"files: {pages['policy']}{held}",
    ]
    for name, films in result.inputs.items():
        size = f"{films['width']:.0f}x{films['height']:.0f} pixels (medians), {films['mean_bytes'] / 1e3:.0f} kB"
        lines.append(f"{name}: {films['films']} films, {size}")
    for name, found in result.agreements.items():
        lines.append(
            f"{name}: {found.films} films differ by {found.largest_mean:.2f} grey levels of 255 in the mean of the worst film, "
            f"{found.largest:.1f} in the worst pixel"
        )
    for line in lines:
        console.print(line, markup=False)


def _show_rates(result: LoaderResult, console: Console) -> None:
    from rich.table import Table

    from rrg.bench.loader_result import medians

    table = Table("workers", "way", "films/s", "least to largest", "films/s of a core")
    for workers, turns in result.turns.items():
        for name, (middle, least, most, core) in medians(turns).items():
            alone = "" if workers else f"{core:,.1f}"
            table.add_row(str(workers), name, f"{middle:,.1f}", f"{least:,.1f} to {most:,.1f}", alone)
    console.print(table)
    table = Table("workers", "times the films/s of", "by the clock [least, largest]", "by seconds of a core")
    for workers, ours, theirs, found in result.ratios():
        table.add_row(str(workers), f"{ours} / {theirs}", _ratio(found), _ratio(found.cores))
    console.print(table)


def _ratio(found: Ratio | None) -> str:
    return "" if found is None else f"{found.median:.2f} [{found.least:.2f}, {found.largest:.2f}]"


def _show_parts(result: LoaderResult, console: Console) -> None:
    from rich.table import Table

    columns = [(name, clock) for name in result.parts for clock in ("core_seconds", "seconds")]
    words = {"core_seconds": "of a core", "seconds": "by the clock"}
    table = Table("milliseconds a film", *(f"{name}, {words[clock]}" for name, clock in columns))
    costs = [[getattr(cost, clock) for cost in result.parts[name].values()] for name, clock in columns]
    for row, part in enumerate(next(iter(result.parts.values()))):
        table.add_row(part.replace("_", ", "), *(f"{column[row] * 1e3:.3f}" for column in costs))
    table.add_row("sum", *(f"{sum(column) * 1e3:.3f}" for column in costs))
    table.add_row("films/s", *(f"{1 / sum(column):,.1f}" for column in costs))
    console.print(table)


def _show_order(result: LoaderResult, console: Console) -> None:
    from rich.table import Table

    assert result.order is not None and result.uniform is not None
    ours, uniform = result.order, result.uniform
    table = Table(f"order of {ours.studies:,} studies in {ours.shards:,} shards, {ours.epochs} epochs", "rrg", "uniform shuffle")
    rows = {
        "sequential reads (shard among the last 64)": "sequential",
        "times a shard is opened per epoch": "opens",
        "shards in a global batch": "shards_a_batch",
        "largest |rank correlation|, position and place in the shards": "position_index",
        "largest |rank correlation|, positions in two epochs": "between_epochs",
        "samples followed by their neighbour in the shards": "neighbours",
    }
    for text, name in rows.items():
        table.add_row(text, f"{getattr(ours, name):.3f}", f"{getattr(uniform, name):.3f}")
    console.print(table)
