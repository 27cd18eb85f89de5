"""Fourteen observations from frozen features of the films: a linear or two-layer classifier, saved with its thresholds.

What it says is of source `image`. Fitting is `head_fit`'s. S studies, F features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rrg.data.prepare.json_files import read_json
from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError
from rrg.observations.calibration import Thresholds
from rrg.observations.film_vectors import FilmVectors
from rrg.observations.probabilities import Probabilities
from rrg.shards.storage import replace_file

FORMAT, KIND = 1, "observation head"
_WEIGHTS, _RECORD = "head.safetensors", "head.json"


class ObservationClassifier(nn.Module):
    """Standardised features [S, F] → 14 logits; buffers `mean` and `spread` are those of the training studies."""

    def __init__(self, features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        wide = [nn.Linear(features, hidden), nn.GELU(), nn.Dropout(dropout)] if hidden else []
        self.layers = nn.Sequential(*wide, nn.Linear(hidden or features, len(OBSERVATIONS)))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers((x - self.mean) / self.spread)
        return logits


@dataclass
class ImageHead:
    """A fitted head. `made` says how: options, the decay and validation precisions, features, labels."""

    model: ObservationClassifier
    thresholds: Thresholds
    features: str
    made: Mapping[str, Any]

    def probabilities(self, vectors: FilmVectors) -> Probabilities:
        """Of a split's studies. Raises UserError where the vectors are of other features than those it was fitted on."""
        if vectors.features != self.features or vectors.x.shape[1] != len(self.model.mean):
            raise UserError(f"features of split {vectors.split!r} are not those the observation head was fitted on; fit it again")
        return Probabilities(vectors.ids, predicted(self.model, vectors.x))

    def save(self, folder: Path) -> None:
        """Write `head.safetensors` and `head.json`. Raises UserError where they cannot be written."""
        tensors = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        record = {"format": FORMAT, "kind": KIND, "features": self.features, **self.thresholds.to_json(), **self.made} | {
            "kind": KIND
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / _WEIGHTS, save(tensors))
            replace_file(folder / _RECORD, (json.dumps(record, indent=1) + "\n").encode())
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror or type(error).__name__}") from None

    @classmethod
    def load(cls, folder: Path) -> ImageHead:
        """Read a saved head. Raises UserError: not there, damaged, of another format."""
        record = read_json(folder / _RECORD, "observation head")
        if not isinstance(record, dict) or record.get("kind") != KIND or record.get("format") != FORMAT:
            raise UserError(f"{folder / _RECORD}: not an observation head of format {FORMAT}; fit one with 'rrg prepare labels'")
        thresholds = Thresholds.from_json(record, str(folder / _RECORD))
        try:
            tensors = load_file(folder / _WEIGHTS)
            hidden = record["options"]["hidden"]
            model = ObservationClassifier(len(tensors["mean"]), hidden, record["options"]["dropout"])
            model.load_state_dict(tensors)
        except (OSError, SafetensorError, KeyError, TypeError, RuntimeError):
            raise UserError(f"{folder / _WEIGHTS}: missing, damaged or not of {_RECORD}; fit the head again") from None
        made = {k: v for k, v in record.items() if k not in ("format", "kind", "features", "thresholds", "found")}
        return cls(model.eval(), thresholds, str(record.get("features")), made)


@torch.inference_mode()
def predicted(model: ObservationClassifier, x: Tensor) -> npt.NDArray[np.float32]:
    """Probabilities [S, 14] of film vectors [S, F]."""
    parts = [model(part).sigmoid() for part in x.split(4096)]
    return torch.cat(parts).numpy() if parts else np.zeros((0, len(OBSERVATIONS)), np.float32)
