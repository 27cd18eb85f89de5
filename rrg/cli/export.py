"""`rrg export RUN --out FOLDER`: a trained run as a folder to hand on; `rrg export FOLDER --check`: is it whole?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rrg.errors import UserError

EXAMPLE = """examples:
  rrg export runs/r2gengpt_iu --out exports/r2gengpt_iu
  rrg export runs/r2gengpt_iu --out exports/last --checkpoint last --license mit
  rrg export runs/own_llm --out exports/own_llm --language-name meta-llama/Llama-2-7b-chat-hf
  rrg export exports/r2gengpt_iu --check
  rrg generate exports/r2gengpt_iu --shards shards/iu --split test --out predictions.jsonl

The folder holds what was trained, the run's own tokenizer and language model where it made them, LoRA as peft's adapter folders,
and a model card filled from the run. Base models are named with the digest of their weights, and not in it."""


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="a run as a folder to hand on, with a model card",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="a run directory; with --check, an export")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write the export")
    parser.add_argument("--checkpoint", default="best", metavar="best|last|STEP", help="default: best")
    parser.add_argument("--license", default="", metavar="ID", help="licence of the trained weights, a Hugging Face id (mit, …)")
    parser.add_argument("--vision-name", metavar="NAME", help="published name of a vision model that lies in a local folder")
    parser.add_argument("--language-name", metavar="NAME", help="published name of a language model that lies in a local folder")
    parser.add_argument("--shards", default="", metavar="FOLDER", help="where the run's shards lie now, or 'none' (for the card)")
    parser.add_argument("--force", action="store_true", help="replace an export that is there")
    parser.add_argument("--check", action="store_true", help="verify an export: its files, then its base models and tensors")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="with --check: vision.name=FOLDER and the like")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write or verify, and say what there is."""
    from rrg.cli.quiet import quiet_libraries

    quiet_libraries()
    return _check(options) if options.check else _write(options)


def _write(options: argparse.Namespace) -> int:
    from rrg.cli.room import room_in
    from rrg.export.layout import files_of
    from rrg.export.writing import Request, write_export

    if options.out is None:
        raise UserError("export: --out is missing; name the folder to write, or verify an export with --check")
    if options.overrides:
        raise UserError(f"override {options.overrides[0]}: an export is what the run trained; overrides go with --check")
    named = {"vision": options.vision_name, "language": options.language_name}
    published = {part: name for part, name in named.items() if name}
    request = Request(options.checkpoint, published, options.license, options.shards, options.force)
    with room_in(options.out):
        folder = write_export(options.directory, options.out, request)
    sizes = {name: (folder / name).stat().st_size for name in files_of(folder)}
    print(f"{folder}: {len(sizes) + 2} files, {sum(sizes.values()) / 1e6:,.1f} MB, model card {folder / 'README.md'}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from rrg.export import load
    from rrg.export.layout import read_export, surplus

    export = read_export(options.directory)
    more = surplus(options.directory)
    print(f"{options.directory}: every file is as it was written{f'; no part of it: {chr(44).join(more)}' if more else ''}")
    load(options.directory, options.overrides)
    bases = ", ".join(f"{part} {name}" for part, name in export.config["bases"].items())
    print(f"{options.directory}: loads; base models are those it was trained on ({bases})")
    return 0
