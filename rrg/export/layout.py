"""The files of an export, and the list of their digests that a load is held to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.digest import digest_file
from rrg.errors import UserError

FORMAT = 1
MODEL_TYPE = "rrg"  # transformers refuses it by name, where it would otherwise guess a type from the folder's name

CONFIG = "config.json"
DIGESTS = "digests.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
DECODING = "generation_config.json"
NGRAMS = "ngrams.json"
CONNECTOR = "connector.safetensors"
TOKENIZER = "tokenizer"
LANGUAGE = "language"
ADAPTERS = {"vision": "vision_adapter", "language": "language_adapter"}

_FREE = (CARD, DIGESTS)  # a card may be completed by whoever publishes it


@dataclass(frozen=True)
class Export:
    """A folder whose files are those that were written."""

    folder: Path
    config: dict[str, Any]


def is_export(folder: Path) -> bool:
    """Whether the folder is an export, as far as its names say."""
    return (folder / DIGESTS).is_file() and not (folder / "config.yaml").exists()


def files_of(folder: Path) -> dict[str, str]:
    """sha-256 of every file of an export but the card, by relative name; hidden files (a repository's own) are none of it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and str(name) not in _FREE and not any(part.startswith(".") for part in name.parts):
            found[name.as_posix()] = digest_file(path)
    return found


def surplus(folder: Path) -> list[str]:
    """Files that lie in the folder and are no part of the export."""
    return sorted(files_of(folder).keys() - _listed(folder).keys())


def read_export(folder: Path) -> Export:
    """The configuration of an export, after every file was compared with its digest.

    Raises:
        UserError: no export, a format this program does not read, a file that is missing or was edited.
    """
    if not is_export(folder):
        raise UserError(f"{folder}: no export (it has no {DIGESTS}); name the folder that `rrg export RUN --out FOLDER` wrote")
    for name, written in _listed(folder).items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{folder}: {name} is missing; copy the export whole, or write it again with `rrg export`")
        found = digest_file(path)
        if found != written:
            raise UserError(
                f"{path}: not the file that was written (sha-256 {found[:12]}, written as {written[:12]}); put the former one "
                "back, or write the export again"
            )
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config.get("format") != FORMAT:
        raise UserError(f"{folder}: has format {config.get('format')}, this program reads {FORMAT}; use the rrg that wrote it")
    return Export(folder, config)


def _listed(folder: Path) -> dict[str, str]:
    path = folder / DIGESTS
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["files"]
        names = {str(name): str(digest) for name, digest in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: damaged; write the export again") from None
    outside = next((name for name in names if Path(name).is_absolute() or ".." in Path(name).parts), None)
    if outside is not None or CONFIG not in names or WEIGHTS not in names:
        raise UserError(f"{path}: not the list of an export; write the export again")
    return names
