"""The model card: README.md with the front matter Hugging Face reads, filled from the run and from nothing else."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.config.schema import flatten
from rrg.export.card_data import data_lines, source_name, trained_manifest
from rrg.export.card_loading import loading_lines
from rrg.export.card_scores import Scored, read_scores, results, score_lines
from rrg.export.licences import Base, base_of
from rrg.recipe import Recipe
from rrg.shards.manifest import Manifest
from rrg.train.rundir import RunDirectory

_LIMITS = """## Intended use and limits

For research on report generation. **Not for clinical use**: no report of this model may inform the care of a patient.

The model writes fluent text whether or not a film supports it; a report may name findings that are not there and leave out those
that are. Scores of likeness of words reward common phrases: read them beside the controls, of which some never see a film. Scores
on one collection say nothing about other hospitals, devices, age groups or rare findings, and nothing about the harm of an error.
Nobody has assessed this model with radiologists unless this card says so below.

No report and no film is in this folder. A tokenizer or n-gram table that was made from training reports, where there is one,
holds single words and short phrases of them; a trained model may have memorised more."""

_SETTINGS = ("train.batch_size", "train.lr", "train.weight_decay", "train.precision", "train.schedule.kind", "train.clip_norm")


@dataclass(frozen=True)
class Exported:
    """The run, its recipe, the export's configuration, and what a user said of licence and shards."""

    run: Path
    recipe: Recipe
    config: Mapping[str, Any]
    licence: str
    shards: str

    @functools.cached_property
    def bases(self) -> dict[str, Base]:
        return {part: base_of(name) for part, name in self.config["bases"].items()}

    @functools.cached_property
    def manifest(self) -> Manifest | None:
        return trained_manifest(self.recipe, self.shards, self.config["train_shards"])


def card_text(exported: Exported) -> str:
    """The whole card. Raises UserError where the run's files are damaged, or its shards are not those it trained on."""
    scores, remarks = read_scores(exported.run, exported.config["checkpoint"]["sha256"])
    lines = [
        *("---", _front(exported, scores), "---", "", f"# {exported.recipe.name}", ""),
        *_summary(exported),
        *loading_lines(exported.config, exported.recipe),
        *_base_lines(exported),
        *data_lines(exported.recipe, exported.manifest),
        *_parameters(exported),
        *_training(exported),
        *score_lines(scores, remarks, exported.config["recipe"]["generate"]),
        *(_LIMITS, ""),
        *_environment(exported),
    ]
    return "\n".join(lines)


def _front(exported: Exported, scores: list[Scored]) -> str:
    from huggingface_hub import ModelCardData

    entries = results(scores, source_name(exported.manifest))
    bases = [base.hub for base in exported.bases.values() if base.hub]
    data = ModelCardData(
        license=exported.licence or "other",
        license_name=None if exported.licence else "not-stated",
        base_model=bases or None,
        base_model_relation="adapter" if bases else None,
        library_name="rrg",
        pipeline_tag="image-to-text",
        tags=["radiology", "chest-x-ray", "radiology-report-generation", "not-for-clinical-use"],
        metrics=list(dict.fromkeys(entry.metric_type for entry in entries)) or None,
        model_name=exported.recipe.name if entries else None,
        eval_results=entries or None,
    )
    return data.to_yaml().strip()


def _summary(exported: Exported) -> list[str]:
    point, recipe = exported.config["checkpoint"], exported.recipe
    chosen = "the best of the run's validations" if point["best"] else "not marked as the best of the run's validations"
    return [
        f"Writes the {recipe.data.section} of chest films: vision `{recipe.vision.kind}`, connector `{recipe.connector.kind}`, "
        f"language `{recipe.language.kind}`. This folder holds what was trained; the base models below are needed beside it.",
        "",
        f"Checkpoint: step {point['step']:,}, {chosen}.",
        "",
    ]


def _base_lines(exported: Exported) -> list[str]:
    lines = [
        "## Base models and licences",
        "",
        "| part | base | training | frozen weights (sha-256) | licence |",
        "|---|---|---|---|---|",
    ]
    for part, name in exported.config["bases"].items():
        base, trained = exported.bases[part], getattr(getattr(exported.recipe, part), "train", "frozen")
        frozen = exported.config["frozen"].get(part, "")
        lines.append(f"| {part} | `{name}` | {trained} | {f'`{frozen[:16]}…`' if frozen else 'none'} | {base.licence} |")
    lines += [
        "",
        *(f"`{exported.config['bases'][part]}`: {base.remark}.  " for part, base in exported.bases.items() if base.remark),
    ]
    stated = f"Licence of this folder: {exported.licence}." if exported.licence else "The licence of this folder is not stated."
    return [*lines, f"{stated} Terms of the base models, and of the data, hold beside it.", ""]


def _parameters(exported: Exported) -> list[str]:
    table = _json(RunDirectory(exported.run).parameters)
    if not table:
        return ["## What was trained", "", "The run holds no table of parameters.", ""]
    lines = [
        *("## What was trained", "", f"{table['trained']:,} parameters trained, {table['frozen']:,} frozen.", ""),
        *("| parameters | tensors | count | type | learning rate | |", "|---|---|---|---|---|---|"),
    ]
    for row in table["rows"]:
        rate = "" if row["lr"] is None else f"{row['lr']:g}"
        lines.append(f"| `{row['pattern']}` | {row['tensors']:,} | {row['count']:,} | {row['dtype']} | {rate} | {row['state']} |")
    return [*lines, ""]


def _training(exported: Exported) -> list[str]:
    recipe = exported.config["recipe"]
    values = dict(flatten(recipe))
    length = f"{recipe['train']['max_steps']} steps" if recipe["train"]["max_steps"] else f"{recipe['train']['epochs']:g} epochs"
    lines = ["## Training", "", "| setting | value |", "|---|---|", f"| length | {length} |", f"| seed | {recipe['seed']} |"]
    lines += [f"| {key} | {values[key]} |" for key in _SETTINGS]
    lines += [
        f"| objective {name} | {part['kind']}, weight {part.get('weight', 1)} |" for name, part in recipe["objectives"].items()
    ]
    lines += [f"| stage {name} before | its settings are in config.json |" for name in recipe["stages"]]
    chosen = ", ".join(f"{weight:g} {name}" for name, weight in recipe["train"]["select"].items())
    return [
        *lines,
        f"| best checkpoint by | {chosen} on the validation split |",
        "",
        "All settings: `recipe` in config.json.",
        "",
    ]


def _environment(exported: Exported) -> list[str]:
    found = _json(RunDirectory(exported.run).environment)
    if not found:
        return ["## Versions and hardware", "", "The run holds no record of them.", ""]
    versions, hardware = found.get("versions", {}), found.get("hardware", {})
    gpus = ", ".join(hardware.get("gpus") or []) or "none"
    return [
        *("## Versions and hardware", "", ", ".join(f"{name} {value}" for name, value in versions.items()), ""),
        f"Machine {hardware.get('machine')}, {hardware.get('cpus')} CPUs, GPUs: {gpus}.",
        f"Revision of rrg: {found.get('git') or 'unknown'}.",
        "",
    ]


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
