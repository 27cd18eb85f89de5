"""What a model card says of the data: from the manifest of the shards that the run trained on, and from nothing else."""

from __future__ import annotations

from rrg.errors import UserError
from rrg.recipe import Recipe
from rrg.shards.manifest import Manifest, read_manifest
from rrg.shards.storage import open_storage

NONE = "none"


def trained_manifest(recipe: Recipe, shards: str, digest: str) -> Manifest | None:
    """The manifest of the training shards: at `shards`, else where the recipe says; None for "none".

    Raises:
        UserError: not there, or other shards than those with that digest, which the run trained on.
    """
    if shards == NONE:
        return None
    root = shards or recipe.data.shards
    try:
        manifest = read_manifest(open_storage(root, recipe.data.reading))
    except UserError as error:
        raise UserError(
            f"{error}; or name the folder with --shards FOLDER, or write a card without counts with --shards none"
        ) from None
    if manifest.digest("train") != digest:
        raise UserError(
            f"--shards {root}: other shards than the run was trained on; name those, or 'none' for a card without counts"
        )
    return manifest


def source_name(manifest: Manifest | None) -> str:
    """The name of the collection, as its preparation wrote it."""
    return "unknown" if manifest is None else str(manifest.source.get("name") or "unknown")


def data_lines(recipe: Recipe, manifest: Manifest | None) -> list[str]:
    """The section on data, as Markdown."""
    data = recipe.data
    lines = ["## Data", ""]
    if manifest is None:
        lines += ["The shards were not at hand when this card was written: name and counts of the data are not stated.", ""]
    else:
        lines += [f"Collection: **{source_name(manifest)}**", "", "| split | studies | films | patients |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {entry.studies:,} | {entry.images:,} | {entry.patients:,} |" for name, entry in manifest.splits.items()
        ]
        apart = "No patient is in two splits" if manifest.patients_disjoint else "**Patients are in more than one split**"
        lines += ["", f"{apart} (checked when the shards were written). Left out in preparation: {manifest.excluded:,}.", ""]
    lines += [
        f"Target text: {data.section}, cleaning `{data.cleaning}`. Films: `{data.views}`, at most {data.max_views} of a study"
        f"{', pasted side by side' if data.stitch else ''}"
        f"{', with those of the previous study' if data.prior != 'none' else ''}. "
        "Training reads the training and validation splits, never the test split.",
        "",
    ]
    return lines
