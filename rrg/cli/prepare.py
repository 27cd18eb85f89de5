"""`rrg prepare`: from a published collection of films and reports to a folder of shards."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.cli import prepare_features, prepare_labels, prepare_ngrams
from rrg.cli.progress import Meter
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.data.prepare.collection import Collection
    from rrg.data.prepare.mimic_cxr import MimicChoices, MimicFiles
    from rrg.shards.images import ImagePolicy
    from rrg.shards.manifest import Manifest

Commands = Any  # argparse keeps the class of add_subparsers' result private

_IU = """example:
  rrg prepare iu-xray --annotation annotation.json --images images --reports reports.jsonl --out shards/iu

--annotation is R2Gen's file: an object with train, val and test, each a list of records with id, report (the findings),
image_path and split; views and source_images are read where present. --reports adds indication, comparison, impression and
CheXpert labels from the Open-i reports (JSON lines), matched by CXR number."""

_MIMIC = """example:
  rrg prepare mimic-cxr --root mimic-cxr-jpg --out shards/mimic --size 512

--root holds files/pNN/pNNNNNNNN/sNNNNNNNN/*.jpg (MIMIC-CXR-JPG) or *.dcm (MIMIC-CXR), mimic-cxr-2.0.0-split.csv, -metadata.csv
and, for labels, -chexpert.csv or -negbio.csv (each also as .csv.gz, else give --tables), and mimic-cxr-reports.zip or the folder
it unpacks to (else give --reports). The whole way from PhysioNet's folder is in docs/mimic_cxr.md."""

_PHANTOM = """example:
  rrg prepare phantom --out phantom --studies 200 --seed 7 --shards shards/phantom

writes synthetic films and reports in the layout of MIMIC-CXR-JPG, with --format dicom in that of MIMIC-CXR; with --shards,
prepares them like MIMIC-CXR too."""

_VERIFY = """example:
  rrg prepare verify shards/mimic
  rrg prepare verify s3://films/mimic

reads every shard again, compares it with the manifest and decodes every film; exit code 2 where anything differs."""


def register(commands: Commands) -> None:
    """Add `rrg prepare` and its sources to the command line."""
    parser = commands.add_parser(
        "prepare",
        help="from a source of films and reports to shards",
        description="Write a collection as shards: WebDataset tars, an index beside each, and a manifest.",
        epilog="example:\n  rrg prepare iu-xray --annotation annotation.json --images images --out shards/iu",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)
    _register_iu_xray(sources)
    _register_mimic_cxr(sources)
    _register_phantom(sources)
    prepare_features.register(sources)
    prepare_labels.register(sources)
    prepare_ngrams.register(sources)
    verify = _command(sources, "verify", "read a finished folder of shards again, against its manifest", _VERIFY, _run_verify)
    verify.add_argument("shards", metavar="SHARDS", help="the folder of shards, or its URL")


def _command(
    sources: Commands, name: str, summary: str, example: str, run: Callable[[argparse.Namespace], int | None]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = sources.add_parser(
        name, help=summary, description=f"{summary}.", epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _register_iu_xray(sources: Commands) -> None:
    parser = _command(sources, "iu-xray", "IU X-Ray (Open-i) in R2Gen's annotation layout", _IU, _run_iu_xray)
    parser.add_argument("--annotation", type=Path, required=True, metavar="FILE", help="R2Gen's annotation.json")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder that image_path starts from")
    parser.add_argument("--reports", type=Path, metavar="FILE", help="Open-i reports as JSON lines")
    parser.add_argument("--out", type=Path, required=True, metavar="SHARDS", help="the folder to write")
    _add_size(parser)
    _add_writing(parser)


def _register_mimic_cxr(sources: Commands) -> None:
    parser = _command(sources, "mimic-cxr", "MIMIC-CXR or MIMIC-CXR-JPG as PhysioNet distributes it", _MIMIC, _run_mimic_cxr)
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="the folder that holds files/")
    parser.add_argument("--tables", type=Path, metavar="DIR", help="the folder of the CSV tables, where not --root")
    parser.add_argument("--reports", type=Path, metavar="PATH", help="mimic-cxr-reports.zip or its folder, where not in --root")
    annotation = "R2Gen's mimic_annotation.json: its splits and reports instead of the split table and --reports"
    parser.add_argument("--annotation", type=Path, metavar="FILE", help=annotation)
    parser.add_argument("--exceptions", type=Path, metavar="FILE", help="studies to leave out, with the reason: CSV or text")
    forms = "the films to read: jpg, dicom, or auto (default): what the tree holds, refused where it holds both"
    parser.add_argument("--format", default="auto", metavar="FORM", help=forms)
    parser.add_argument("--out", type=Path, required=True, metavar="SHARDS", help="the folder to write")
    _add_mimic_choices(parser)
    _add_tones(parser)
    _add_size(parser)
    _add_writing(parser)


def _register_phantom(sources: Commands) -> None:
    parser = _command(sources, "phantom", "synthetic films and reports in the layout of MIMIC-CXR-JPG", _PHANTOM, _run_phantom)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the tree of films and reports")
    parser.add_argument("--studies", type=int, required=True, metavar="N", help="number of studies")
    parser.add_argument("--seed", type=int, required=True, metavar="S", help="equal seeds give equal bytes")
    parser.add_argument("--size", type=int, default=320, metavar="PX", help="side of a film in pixels (320)")
    parser.add_argument("--format", default="jpg", metavar="FORM", help="write films as jpg (default) or dicom")
    parser.add_argument("--shards", type=Path, metavar="SHARDS", help="also prepare the tree into this folder")
    _add_mimic_choices(parser)
    _add_writing(parser)


def _add_mimic_choices(parser: argparse.ArgumentParser) -> None:
    views = "frontal_lateral: one of each (default); single: one film, frontal if any; all"
    parser.add_argument("--views", default="frontal_lateral", metavar="POLICY", help=views)
    parser.add_argument("--max-views", type=int, metavar="N", help="at most so many films of a study")
    section = "what a report must have to be taken: findings (default), impression, both, any"
    parser.add_argument("--section", default="findings", metavar="NAME", help=section)
    labels = "chexpert, negbio, none, or auto (default): the first of these tables that is there"
    parser.add_argument("--labels", default="auto", metavar="TABLE", help=labels)


def _add_tones(parser: argparse.ArgumentParser) -> None:
    tones = "grey levels of DICOM films: window, the file's own (default), or equalized, as MIMIC-CXR-JPG was made"
    parser.add_argument("--tones", default="window", metavar="NAME", help=tones)


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, metavar="PX", help="shorter side of a stored film; left out: as it is")


def _add_writing(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--quality", type=int, default=95, metavar="Q", help="JPEG quality of films that are encoded anew (95)")
    parser.add_argument("--workers", type=int, default=cores, metavar="W", help=f"processes (all cores: {cores})")
    parser.add_argument("--studies-per-shard", type=int, default=256, metavar="N", help="studies in a shard (256)")
    parser.add_argument(
        "--max-damaged", type=int, default=0, metavar="N", help="leave out up to N studies with a damaged film or report (0)"
    )
    parser.add_argument("--verify", action="store_true", help="when finished, read all shards again and compare")


def _run_iu_xray(options: argparse.Namespace) -> int:
    from rrg.data.prepare.iu_xray import read_iu_xray

    return _write(options, read_iu_xray(options.annotation, options.images, options.reports), options.out, options.size)


def _run_mimic_cxr(options: argparse.Namespace) -> int:
    from rrg.data.prepare.mimic_cxr import MimicFiles

    files = MimicFiles(options.root, options.tables, options.reports, options.annotation, options.exceptions)
    return _prepare_mimic(options, files, options.out, options.size)


def _run_phantom(options: argparse.Namespace) -> int:
    from rrg.data.prepare.mimic_cxr import MimicFiles
    from rrg.data.prepare.phantom import write_cohort

    _mimic_choices(options)  # a wrong word is said now, not after the drawing
    with _stopping(options.out), Meter("drawing", "studies") as meter:
        write_cohort(
            options.out,
            options.studies,
            options.seed,
            size=options.size,
            workers=options.workers,
            form=options.format,
            progress=meter,
        )
    print(f"{options.out}: {options.studies:,} synthetic studies of seed {options.seed}")
    return _prepare_mimic(options, MimicFiles(options.out), options.shards, None) if options.shards else 0


def _mimic_choices(options: argparse.Namespace) -> MimicChoices:
    from rrg.data.prepare.mimic_cxr import MimicChoices

    return MimicChoices(options.views, options.max_views, options.section, options.labels, options.format)


def _prepare_mimic(options: argparse.Namespace, files: MimicFiles, out: Path, size: int | None) -> int:
    from rrg.data.prepare.mimic_cxr import read_mimic_cxr

    choices = _mimic_choices(options)
    _policy(options, size)
    with _stopping(out), Meter("reading reports", "studies") as meter:
        collection = read_mimic_cxr(files, choices, max_damaged=options.max_damaged, progress=meter)
    return _write(options, collection, out, size)


def _policy(options: argparse.Namespace, size: int | None) -> ImagePolicy:
    from rrg.shards.images import ImagePolicy

    return ImagePolicy(size, options.quality, getattr(options, "tones", "window"))


def _run_verify(options: argparse.Namespace) -> int:
    return _verify(options.shards)


def _write(options: argparse.Namespace, collection: Collection, out: Path, size: int | None) -> int:
    """Write the shards and say what is in them."""
    from rrg.shards.writer import build_shards

    started = time.monotonic()
    with _stopping(out), Meter("writing shards", "studies") as meter:
        manifest = build_shards(
            out,
            collection.studies,
            source=collection.source,
            policy=_policy(options, size),
            parser_version=collection.parser_version,
            studies_per_shard=options.studies_per_shard,
            workers=options.workers,
            excluded=collection.excluded,
            max_damaged=options.max_damaged - collection.damaged,
            progress=meter,
        )
    _show(out, manifest, collection, time.monotonic() - started)
    return _verify(out) if options.verify else 0


def _show(out: Path, manifest: Manifest, collection: Collection, seconds: float) -> None:
    """The final table, what was left out and why, and what the source module counted."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    table = Table("split", *("studies", "patients", "films"), title=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, split in manifest.splits.items():
        table.add_row(name, f"{split.studies:,}", f"{split.patients:,}", f"{split.images:,}")
    console.print(table)
    reasons = Counter(entry.reason.partition(":")[0] for entry in collection.excluded)
    reasons["a film does not decode"] += manifest.excluded - len(collection.excluded)
    for reason, count in reasons.most_common():
        if count:
            console.print(f"left out: {count:,} x {reason} (listed in excluded.jsonl)", highlight=False, markup=False)
    for name, count in collection.source.get("counts", {}).items():
        console.print(f"{name.replace('_', ' ')}: {count:,}", highlight=False, markup=False)
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    console.print(f"{out}: {len(manifest.shards):,} shards, {size:,.1f} MB, {seconds:.1f} s", highlight=False, markup=False)


def _verify(folder: str | Path) -> int:
    """Read `folder` again. Raises UserError, after listing them, where anything differs from its manifest."""
    from rrg.shards.verify import verify_shards

    with Meter("verifying", "studies") as meter:
        report = verify_shards(folder, progress=meter)
    if not report.ok:
        for difference in report.differences:
            print(f"differs: {difference}")
        raise UserError(
            f"{folder}: {len(report.differences)} differences from its manifest; prepare it again into another folder"
        )
    for note in report.notes:
        print(f"note: {note}")
    print(f"{folder}: {report.shards:,} shards, {report.studies:,} studies, {report.images:,} films agree with the manifest")
    return 0


@contextmanager
def _stopping(out: Path) -> Iterator[None]:
    """Ctrl-C inside is one line: what is finished stays, and the same command carries on."""
    try:
        yield
    except KeyboardInterrupt:
        raise UserError(f"stopped; run the same command again to carry on in {out}") from None
