"""The four films of a record that ALTA reads: current and prior, frontal and lateral (spec alta §2).

B studies, V views of a batch, T = 4 streams, S side of a film.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rrg.batching.batch import Batch
from rrg.data.projections import KINDS

STREAMS = ("frontal", "lateral", "prior frontal", "prior lateral")
_LATERAL = KINDS.index("lateral")


def stream_of(batch: Batch) -> Tensor:
    """[B, V] long: the stream of every view. A film of unknown plane counts as frontal."""
    return (batch.view_kinds == _LATERAL).long() + 2 * (batch.view_days != 0).long()


def in_streams(batch: Batch) -> Tensor:
    """[B, T, 3, S, S]: each film in its stream, exact zeros where a study has none; of several, the first."""
    assert batch.pixel_values is not None
    films, places = batch.pixel_values, stream_of(batch)
    streams = films.new_zeros(len(batch), len(STREAMS), *films.shape[2:])
    for view in reversed(range(films.shape[1])):
        there = batch.view_mask[:, view].nonzero()[:, 0]
        streams[there, places[there, view]] = films[there, view]
    return streams


def has_frontal(batch: Batch) -> Tensor:
    """[B] bool: studies with a current frontal film that could be read."""
    real = torch.tensor([bool(study) for study in batch.studies], device=batch.view_mask.device)
    return real & (batch.view_mask & (stream_of(batch) == 0)).any(1)
