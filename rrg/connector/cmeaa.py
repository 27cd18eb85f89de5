"""CmEAA: the cross-modal enhancement and alignment adapter (spec cmeaa §2).

Two RepAdapters f_d and f_u that share their down-projection, a generator of two weights per study, the enhancement of tokens by
the study's n-grams (CFE) and the image side of the mutual information aligner (NMIA).

Dimensions: B studies, V views, N tokens a view, M prefix tokens, D visual width, H language width, k code width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from rrg.batching.batch import Batch, Prefix
from rrg.connector.alignment import ImageAligner
from rrg.connector.enhancement import FeatureEnhancement
from rrg.connector.ngram_embedding import NgramEmbedding
from rrg.connector.projection import prefix_norm
from rrg.connector.repadapter import RepAdapters
from rrg.connector.views import ViewMerging, token_mean
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.connector.options import CmeaaOptions


class WeightsGenerator(nn.Module):
    """softmax(Linear(x̄) / τ), two weights per study [B, 2] (eq. 1, 2). Starts at zero: both are one half."""

    def __init__(self, width: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.linear = nn.Linear(width, 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x_bmd: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, 2] of the tokens [B, M, D], those that `mask` [B, M] names."""
        logits = self.linear(token_mean(x_bmd, mask))
        return (logits.float() if logits.element_size() < 4 else logits).div(self.temperature).softmax(-1)


class EnhancementAlignmentAdapter(ViewMerging):
    """X~ = w0 · CFE(E, f_d(X)) + w1 · f_u(X) + NMIA(f_u(X)), then LayerNorm (eq. 4). [B, M, H].

    `project: each` gives f_u, the CFE and the aligner the language model's width, f_u by a Linear behind its adapter. `after`
    leaves all three at the visual width; one Linear follows the sum. Without `align` the last term is not there; without
    `enhance` neither is the first, and f_u has no weight.

    `views` are merged as by the other connectors; where that leaves masked tokens (`concat`, priors), they are not looked at and
    count in no mean. The n-grams are those of the study, whichever of its views or its prior's a token comes from.

    Args:
        options: of the recipe.
        facts: see family.py.
        ngrams: embeddings of the recipe's n-grams, None without `enhance`.

    Raises:
        UserError: heads or groups do not divide a width.
    """

    def __init__(self, options: CmeaaOptions, facts: Mapping[str, Any], ngrams: NgramEmbedding | None) -> None:
        super().__init__(options, facts)
        D, H = facts["vision_width"], facts["language_width"]
        self.after = options.project == "after"
        width = D if self.after else H
        branches = ("f_d", "f_u") if options.enhance else ("f_u",)
        self.adapters = RepAdapters(
            D, branches, options.adapter_hidden, options.adapter_groups, options.adapter_scale, options.dropout
        )
        self.project = nn.Linear(D, H)
        self.ngrams = ngrams
        if options.enhance:
            self.weights = WeightsGenerator(D, options.temperature)
            self.enhancement = FeatureEnhancement(
                D,
                H,
                width,
                context_width=options.context_width,
                heads=options.heads,
                feedforward=options.feedforward,
                dropout=options.dropout,
            )
        self.aligner = ImageAligner(width, options.code_width) if options.align else None
        self.norm = prefix_norm(options, facts)

    @property
    def code_width(self) -> int | None:
        """k of the prefix's code, None without `align`."""
        return None if self.aligner is None else self.aligner.encode.out_features

    def forward(self, tokens: Tensor, batch: Batch) -> Prefix:
        """`tokens` [B, V, N, D] → prefix with the image code.

        Raises:
            UserError: `enhance`, and the batch was made without n-grams; or RRG_KERNELS asks for what cannot run here.
        """
        x_bmd, mask = self.merge(tokens, batch)
        adapted = self.adapters(x_bmd)
        mixed = adapted.get("f_u", x_bmd)  # a folded f_u is part of the Linear
        mixed = mixed if self.after else self.project(mixed)
        aligned, code = None, None
        if self.aligner is not None:
            code, aligned = self.aligner(mixed, mask)
        if self.ngrams is not None:
            w_b2 = self.weights(x_bmd, mask)
            enhanced = self._enhanced(adapted["f_d"], mask, batch)
            mixed = w_b2[:, :1, None] * enhanced + w_b2[:, 1:, None] * mixed
        if aligned is not None:
            mixed = mixed + aligned
        return Prefix(self.norm(self.project(mixed) if self.after else mixed), mask, code)

    def _enhanced(self, x_bmd: Tensor, mask: Tensor | None, batch: Batch) -> Tensor:
        """CFE of the tokens with the n-grams of their study."""
        if batch.ngram_ids is None or batch.ngram_mask is None:
            raise UserError("connector.enhance: the studies were read without their n-grams; write observations.ngrams")
        assert self.ngrams is not None
        return self.enhancement(x_bmd, mask, *self.ngrams(batch.ngram_ids, batch.ngram_mask))

    def fold(self) -> EnhancementAlignmentAdapter:
        """Fold f_u into the Linear behind it, for inference: the same prefix in evaluation mode, and other tensor names than a
        checkpoint has. f_d stays, for what follows it is a residual, and so does f_u with `project: after`."""
        if not self.after and "f_u" in self.adapters.up:
            self.project = self.adapters.fold("f_u", self.project)
        return self
