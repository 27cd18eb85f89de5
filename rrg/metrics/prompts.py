"""Prompt files of zero-shot reading: what a finding, its absence or a class is called (spec alta §8).

YAML with `name` and either `observations` (a name to `positive` and `negative` texts) or `classes` (a name to `slots`, whose
words are combined in every way, or to `phrases`, whole ones that the user brings where the file says `phrases: COUNT`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from rrg.data.study import OBSERVATIONS
from rrg.digest import digest_json
from rrg.errors import UserError, nearest

SHIPPED = ("findings", "chexpert_5x200", "rsna_pneumonia")


@dataclass(frozen=True)
class Prompts:
    """`texts` has for each observation two lists (present, absent), for each class one. `tokens`: most tokens of a prompt."""

    name: str
    observations: Mapping[str, tuple[list[str], list[str]]]
    classes: Mapping[str, list[str]]
    tokens: int | None
    digest: str


def read_prompts(source: str, phrases: Mapping[str, Path]) -> Prompts:
    """The prompts of a shipped name or a file; `phrases` are files of whole phrases, one a line, by class.

    Raises UserError, in one line, for what cannot be read, an unknown finding, or a class whose phrases are the user's to bring.
    """
    record = _record(source)
    where = f"--prompts {source}"
    if not isinstance(record, dict) or not (record.get("observations") or record.get("classes")):
        raise UserError(f"{where}: write 'observations' (positive and negative texts each) or 'classes' (slots or phrases each)")
    observations = {name: _pair(where, name, held) for name, held in (record.get("observations") or {}).items()}
    classes = {name: _class(where, name, held, phrases) for name, held in (record.get("classes") or {}).items()}
    for name in phrases:
        if name not in classes:
            raise UserError(f"--phrases {name}: {where} has no such class; {nearest(name, classes or ['none'])}")
    texts = {"observations": observations, "classes": classes}
    return Prompts(str(record.get("name", source)), observations, classes, record.get("tokens"), digest_json(texts))


def combinations(slots: Sequence[Sequence[str]]) -> list[str]:
    """Every combination of one word of each slot, joined by spaces; an empty word is no word."""
    return [" ".join(word for word in words if word) for words in itertools.product(*slots)]


def _record(source: str) -> Any:
    import yaml

    place = files("rrg.metrics").joinpath("prompts", f"{source}.yaml") if source in SHIPPED else Path(source)
    try:
        return yaml.safe_load(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--prompts {source}: {error.strerror}; write a file, or one of {', '.join(SHIPPED)}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"--prompts {source}: not readable as YAML") from None


def _pair(where: str, name: str, held: Any) -> tuple[list[str], list[str]]:
    if name not in OBSERVATIONS:
        raise UserError(f"{where}: {name!r} is no observation; {nearest(str(name), OBSERVATIONS)}")
    lists: list[Any] = [held.get(side) if isinstance(held, dict) else None for side in ("positive", "negative")]
    for side, texts in zip(("positive", "negative"), lists, strict=True):
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise UserError(f"{where}: {name}.{side}: write at least one text")
    return lists[0], lists[1]


def _class(where: str, name: str, held: Any, phrases: Mapping[str, Path]) -> list[str]:
    if isinstance(held, dict) and "slots" in held:
        return combinations([[str(word or "") for word in slot] for slot in held["slots"]])
    wanted = held.get("phrases") if isinstance(held, dict) else None
    if isinstance(wanted, list) and wanted:
        return [str(text) for text in wanted]
    if not isinstance(wanted, int):
        raise UserError(f"{where}: class {name}: write slots, or phrases")
    if name not in phrases:
        raise UserError(
            f"{where}: the {wanted} phrases of {name} are part of a benchmark and not shipped; write --phrases {name!r}=FILE, "
            "one phrase a line"
        )
    try:
        lines = [line.strip() for line in phrases[name].read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise UserError(f"--phrases {name}={phrases[name]}: cannot be read") from None
    if len(lines) != wanted:
        raise UserError(f"--phrases {name}={phrases[name]}: {len(lines)} phrases, the benchmark has {wanted}")
    return lines
