"""What a model card says of loading: what needs rrg, and what transformers or peft read alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rrg.export.layout import ADAPTERS, LANGUAGE
from rrg.recipe import Recipe


def loading_lines(config: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """The section on loading, as Markdown."""
    inputs = ["observations.heldout=LABELS"] if recipe.reads_ngrams else []
    return [
        "## Loading",
        "",
        "```bash",
        " ".join(["rrg generate FOLDER --shards SHARDS --split test --out predictions.jsonl", *inputs]),
        "rrg export FOLDER --check",
        "```",
        "",
        "```python",
        "import rrg.export",
        "",
        'system = rrg.export.load("FOLDER")  # system.model, system.tokeniser, system.films(shards)',
        "```",
        "",
        f"Written by rrg {config['rrg_version']}. Whoever loads it is held to the digests of files and of frozen base weights.",
        "",
        *_alone(recipe),
    ]


def _alone(recipe: Recipe) -> list[str]:
    lines = []
    for part, folder in ADAPTERS.items():
        if getattr(getattr(recipe, part), "train", "") == "lora":
            lines.append(
                f'- `{folder}/`: LoRA of the {part} model, by `peft.PeftModel.from_pretrained(base, "FOLDER/{folder}")`.'
            )
    name = getattr(recipe.language, "name", "")
    places = [LANGUAGE] if recipe.language.train == "full" else []
    places += [f"stages/{name.removeprefix('stage:')}/language"] if name.startswith("stage:") else []
    lines += [f'- `{place}/`: `transformers.AutoModelForCausalLM.from_pretrained("FOLDER/{place}")`.' for place in places]
    if not lines:
        return ["Transformers or peft alone load nothing of this folder: what was trained is rrg's connector.", ""]
    return ["Without rrg (these parts alone write no report of a film):", "", *lines, ""]
