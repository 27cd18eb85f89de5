"""Vectors of films that are files of their own, as benchmarks name them in lists."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from rrg.batching.batch import Batch
from rrg.batching.collate import Item, collate
from rrg.batching.images import Preprocessing, decode, prepare_pixels
from rrg.batching.tokenise import Tokens
from rrg.data.dicom import is_dicom, require_dicom
from rrg.data.projections import KINDS
from rrg.errors import UserError
from rrg.generate.engine import autocast
from rrg.metrics.statistics import FloatArray
from rrg.train.aligned_run import AlignedRun
from rrg.train.phases import phases


def read_list(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table. Raises UserError where it cannot be read, is empty or lacks one of `columns`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: the list cannot be read ({getattr(error, 'strerror', None) or 'not CSV in UTF-8'})") from None
    if not rows:
        raise UserError(f"{path}: has no rows below its header")
    for name in columns:
        if name not in rows[0]:
            raise UserError(f"{path}: has no column {name!r}; it has {', '.join(filter(None, rows[0]))}")
    return rows


def film_vectors(run: AlignedRun, root: Path, names: Sequence[str]) -> FloatArray:
    """[N, d] of length one, of the films `names` below `root`. Raises UserError for a film that is missing or not a film."""
    system, device = run.system, run.team.device
    preprocessing = getattr(system.model.vision, "evaluation", system.model.vision.preprocessing)
    rows: list[torch.Tensor] = []
    size = system.recipe.train.micro_batch_size
    for number, start in enumerate(range(0, len(names), size), 1):
        phases.batch(number, -(-len(names) // size))
        items = [_item(root / name, name, preprocessing) for name in names[start : start + size]]
        batch: Batch = collate(items).to(device)
        with torch.no_grad(), autocast(system.recipe, device):
            rows.append(system.model.images(batch)[0].cpu())
    phases.stage("score")
    return F.normalize(torch.cat(rows), dim=1).double().numpy()


def _item(path: Path, name: str, preprocessing: Preprocessing) -> Item:
    pixels = read_film(path)
    film = prepare_pixels(pixels, preprocessing)
    return Item(name, Tokens([], [], [], False), films=film[None], kinds=(KINDS.index("frontal"),), days=(0.0,))


def read_film(path: Path) -> np.ndarray:
    """A film as uint8. DICOM: scaled by 255 over its largest value, inverted where small values are bright (spec alta §8)."""
    try:
        data = path.read_bytes()
        return _dicom(path) if is_dicom(data) else decode(data)
    except OSError as error:
        raise UserError(f"film {path}: cannot be read ({error.strerror}); the list names films below --images") from None
    except ValueError as error:
        raise UserError(f"film {path}: {error}") from None


def _dicom(path: Path) -> np.ndarray:
    require_dicom()
    from pydicom import dcmread

    film = dcmread(path)
    values = film.pixel_array.astype(np.float64)
    scaled = values * (255 / max(float(values.max()), 1.0))
    if film.PhotometricInterpretation == "MONOCHROME1":
        scaled = 255 - scaled
    return scaled.clip(0, 255).astype(np.uint8)
