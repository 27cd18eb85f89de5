"""Samples of different lengths and numbers of views into one `Batch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rrg.batching.batch import Batch
from rrg.batching.tokenise import Tokens
from rrg.data.study import OBSERVATIONS

UNSAID = 2  # in `Batch.labels`: the report does not mention the observation


@dataclass(frozen=True)
class Item:
    """One study, ready to be batched: `films` [V, 3, S, S] or `features` [V, N, D], or neither in text-only stages.

    `kinds` and `days` have one entry per view, as in `Batch`; left empty, every view is the study's own, of unknown projection.
    `ngrams` are places in the n-gram table: None where the recipe reads none, empty where the study has none. `draw` seeds random
    choices about the study.
    """

    study: str
    tokens: Tokens
    films: Tensor | None = None
    features: Tensor | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    kinds: Sequence[int] = ()
    days: Sequence[float] = ()
    prior_absent: bool = False
    ngrams: Sequence[int] | None = None
    draw: int = 0


def collate(items: Sequence[Item]) -> Batch:
    """One micro-batch of at least one item. Absent views are zeros under a mask; text is padded as `Batch` says."""
    before_ids, before_mask = _pad([item.tokens.before for item in items], left=True)
    after_ids, after_mask = _pad([item.tokens.after for item in items], left=True)
    report_ids, report_mask = _pad([item.tokens.report for item in items], left=False)
    films, view_mask = _stack_views([item.films for item in items])
    features, feature_mask = _stack_views([item.features for item in items])
    view_mask = feature_mask if films is None else view_mask
    ngram_ids, ngram_mask = _ngrams([item.ngrams for item in items])
    return Batch(
        studies=[item.study for item in items],
        pixel_values=films,
        features=features,
        view_mask=view_mask,
        view_kinds=_per_view([item.kinds for item in items], view_mask.shape[1], torch.long),
        view_days=_per_view([item.days for item in items], view_mask.shape[1], torch.float32),
        before_ids=before_ids,
        before_mask=before_mask,
        after_ids=after_ids,
        after_mask=after_mask,
        report_ids=report_ids,
        report_mask=report_mask,
        labels=torch.tensor([[item.labels.get(name, UNSAID) for name in OBSERVATIONS] for item in items], dtype=torch.int8),
        ngram_ids=ngram_ids,
        ngram_mask=ngram_mask,
        masked=_masked([item.tokens for item in items], report_ids.shape[1]),
        draws=torch.tensor([item.draw for item in items], dtype=torch.long),
        truncated=sum(item.tokens.truncated for item in items),
        priors_absent=sum(item.prior_absent for item in items),
    )


def _pad(rows: Sequence[list[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, row in enumerate(rows):
        part = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[place, part] = torch.tensor(row, dtype=torch.long)
        mask[place, part] = True
    return ids, mask


def _ngrams(rows: Sequence[Sequence[int] | None]) -> tuple[Tensor | None, Tensor | None]:
    """[B, K] and its mask, K the longest of the micro-batch and at least 1: a column to point at where no study has an n-gram."""
    if any(row is None for row in rows):
        return None, None
    ids, mask = _pad([list(row) for row in rows if row is not None], left=False)
    absent = int(ids.shape[1] == 0)
    return nn.functional.pad(ids, (0, absent)), nn.functional.pad(mask, (0, absent))


def _masked(rows: Sequence[Tokens], longest: int) -> Tensor | None:
    """[B, L] bool, None where nothing was drawn."""
    if not any(row.masked for row in rows):
        return None
    masked = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, row in enumerate(rows):
        masked[place, : len(row.masked)] = torch.tensor(row.masked, dtype=torch.bool)
    return masked


def _stack_views(stacks: Sequence[Tensor | None]) -> tuple[Tensor | None, Tensor]:
    """[B, V, …] zero-filled where a study has fewer views, and the mask [B, V] of what is there."""
    present = [stack for stack in stacks if stack is not None]
    if not present:
        return None, torch.zeros(len(stacks), 0, dtype=torch.bool)
    most = max(len(stack) for stack in present)
    if sum(map(len, present)) == len(stacks) * most:  # nothing is absent: no zeros to write first
        return torch.stack(present), torch.ones(len(stacks), most, dtype=torch.bool)
    values = present[0].new_zeros(len(stacks), most, *present[0].shape[1:])
    mask = torch.zeros(len(stacks), most, dtype=torch.bool)
    for place, stack in enumerate(stacks):
        if stack is not None:
            values[place, : len(stack)] = stack
            mask[place, : len(stack)] = True
    return values, mask


def _per_view(rows: Sequence[Sequence[float]], views: int, dtype: torch.dtype) -> Tensor:
    """[B, V], zero where a row has no entry."""
    values = torch.zeros(len(rows), views, dtype=dtype)
    for place, row in enumerate(rows):
        count = min(len(row), views)  # a batch without films has no views, whatever is known of them
        values[place, :count] = torch.tensor(row[:count], dtype=dtype)
    return values
