"""The page of a run: everything in one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rrg.errors import UserError
from rrg.view.curves import loss_chart, training
from rrg.view.findings import BAR, observations
from rrg.view.gallery import DEFAULT_STUDIES, gallery
from rrg.view.provenance import flat, parameter_table, share, stage_line, timeline
from rrg.view.rundir import Run, protocol_name, read_run
from rrg.view.scores import score_table
from rrg.view.verdict import verdict


def render(run: Path, split: str = "test", studies: int | None = DEFAULT_STUDIES) -> str:
    """The HTML of a run directory, with at most `studies` studies in the gallery (None: all).

    The same run gives the same bytes. A part that is not there yet is named with the command that makes it.

    Raises:
        UserError: `run` is no run directory, or a file in it is damaged.
    """
    if studies is not None and studies < 0:
        raise UserError(f"studies: {studies} is negative; write 0 for no gallery, or leave it out for {DEFAULT_STUDIES}")
    read = read_run(run, split)
    environment = Environment(
        loader=PackageLoader("rrg", "view"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["share"] = share
    return environment.get_template("page.html").render(_content(read, studies))


def _content(run: Run, studies: int | None) -> dict[str, Any]:
    style, script = (resources.files("rrg.view").joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return {
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "run": run,
        "facts": _facts(run),
        "verdict": verdict(run.scores[0] if run.scores else None),
        "scores": [(protocol_name(score), score_table(score)) for score in run.scores],
        "observations": observations(run.scores[0]) if run.scores else (),
        "bar": BAR,
        "training": training(run.events, _selected(run)),
        "stages": [(stage, stage_line(stage), loss_chart(stage.events)) for stage in run.stages],
        "gallery": gallery(run, studies),
        "parameters": parameter_table(run.parameters),
        "environment": list(flat(run.environment)),
        "timeline": timeline(run.events),
    }


def _selected(run: Run) -> list[str]:
    """The validation metrics that choose the checkpoint."""
    selected = run.setting("train.select")
    return [str(name) for name in selected] if isinstance(selected, Mapping) else []


def _policy(style: str, script: str) -> str:
    """A content security policy that allows this page's own style and script, embedded images, and nothing else."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def style_policy(style: str) -> str:
    """The policy of a page without any script."""
    return f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _facts(run: Run) -> list[tuple[str, str]]:
    """What was joined with what, as (part, words) pairs, from the resolved recipe."""
    parts = [(family.capitalize(), _part(run.setting(family))) for family in ("vision", "connector", "language")]
    rest = [("Section", run.setting("data.section")), ("Split", run.split), ("Seed", run.setting("seed"))]
    return [(name, str(value)) for name, value in [*parts, *rest] if value not in (None, "")]


def _part(options: object) -> str:
    """The kind of a part and the model it loads, whichever of the usual keys names that."""
    if not isinstance(options, Mapping):
        return ""
    names = [options.get(key) for key in ("kind", "name", "model", "path")]
    return " · ".join(dict.fromkeys(str(name) for name in names if name))
