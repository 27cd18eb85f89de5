"""The image side of the neural mutual information aligner (CmEAA, eq. 14, 15; spec cmeaa §4).

The report's side and the statistics network belong to the objective and do not exist at inference: what is added to the prefix
depends on the image alone.

Dimensions: B studies, N tokens, W width, k code width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rrg.connector.views import token_mean


class ImageAligner(nn.Module):
    """C = W1 x̄ + b1 and X_g = W2 C + b2 of the pooled tokens x̄: W·k + k + k·W + W parameters.

    Pooling comes first: it commutes with the affine maps, and costs N times less. Both maps run outside autocast, since the
    objective that reads C is a difference of exponentials.
    """

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.encode = nn.Linear(width, code)
        self.decode = nn.Linear(code, width)

    def forward(self, x_bnw: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(image code C [B, k], X_g [B, 1, W], to be added to each of the N tokens)."""
        with torch.autocast(x_bnw.device.type, enabled=False):
            code = self.encode(token_mean(x_bnw.to(self.encode.weight.dtype), mask))
            return code, self.decode(code)[:, None]
