"""The image decoder of masked record modelling: hidden patches from the seen ones (Zhou et al. 2023; spec alta §3).

B studies, N patches, K seen ones, D width of the encoder, E of the decoder, P pixels of a target patch (32·32·3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rrg.vision.masked_blocks import EPS, Block
from rrg.vision.masking import Masking, gathered_tokens
from rrg.vision.positions import sincos_positions


class ImageDecoder(nn.Module):
    """Linear to its width, mask tokens in the holes, positions, blocks, norm, Linear to pixels. The encoder keeps its parts under
    the published names, so that one checkpoint fills both."""

    def __init__(self, width: int, decoder_width: int, depth: int, heads: int, side: int, pixels: int) -> None:
        super().__init__()
        self.decoder_embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_pos_embed = nn.Parameter(sincos_positions(decoder_width, side), requires_grad=False)
        self.decoder_blocks = nn.ModuleList([Block(decoder_width, heads) for _ in range(depth)])
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=EPS)
        self.decoder_pred = nn.Linear(decoder_width, pixels)

    def forward(self, latent: Tensor, masking: Masking) -> Tensor:
        """Class token and seen patches of one stream [B, 1 + K, D], and its masking [B, ·] → pixels of every patch [B, N, P]."""
        x = self.decoder_embed(latent)
        B, N = masking.restore.shape
        holes = self.mask_token.to(x.dtype).expand(B, N + 1 - x.shape[1], -1)
        patches = gathered_tokens(torch.cat([x[:, 1:], holes], dim=1), masking.restore)
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]


def patchify(films: Tensor, side: int) -> Tensor:
    """[B, 3, S, S] → [B, (S/side)², side·side·3], patches row by row, pixels row by row with their channels last."""
    B, C, S, _ = films.shape
    n = S // side
    return films.reshape(B, C, n, side, n, side).permute(0, 2, 4, 3, 5, 1).reshape(B, n * n, side * side * C)


def unpatchify(patches: Tensor, side: int) -> Tensor:
    """The inverse of `patchify`."""
    B, N, P = patches.shape
    n, C = round(N**0.5), P // side**2
    return patches.reshape(B, n, n, side, side, C).permute(0, 5, 1, 3, 2, 4).reshape(B, C, n * side, n * side)


def normalised_patches(patches: Tensor) -> Tensor:
    """Each patch less its mean, over the root of its (unbiased) variance plus 1e-6."""
    return (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
