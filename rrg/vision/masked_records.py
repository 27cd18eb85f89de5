"""The ViT of masked record modelling (Zhou et al. 2023), adapted as ALTA does: four films a record, adapters in every block.

B studies, T streams (`streams.STREAMS`), N patches, K seen ones, D width, S side of what the encoder reads (224) and 2S side of
what it is given in training: the decoder's target is the larger film.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.images import Preprocessing
from rrg.vision.bottleneck import adapt_behind, adapt_beside, train_adapters_and_norms
from rrg.vision.digests import weights_digest
from rrg.vision.image_decoder import ImageDecoder, normalised_patches, patchify
from rrg.vision.masked_blocks import EPS, Block, xavier
from rrg.vision.masking import Masking, draw_masking, gathered_tokens
from rrg.vision.positions import sincos_positions

MEAN, STD = (0.4785,), (0.2834,)


@dataclass(frozen=True)
class MaskedShape:
    """Sizes; the defaults are the published ones."""

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_width: int = 768
    decoder_depth: int = 4
    decoder_heads: int = 6

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size


class SeenRecord(NamedTuple):
    """`cls` [B, D] the image's vector before its head; `patches` [B, P, D] with `patch_mask` (None: all real); `predicted` and
    `target` [B, N, 32·32·3] with `hidden` [B, N] where an image is rebuilt."""

    cls: Tensor
    patches: Tensor
    patch_mask: Tensor | None = None
    predicted: Tensor | None = None
    target: Tensor | None = None
    hidden: Tensor | None = None


class PatchEmbed(nn.Module):
    """Patches by a convolution."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, films: Tensor) -> Tensor:
        """[M, 3, S, S] → [M, N, D]."""
        return self.proj(films).flatten(2).transpose(1, 2)


class MaskedRecordEncoder(nn.Module):
    """One ViT for the four streams of a record, each by itself; absent films are `missing_token` (spec alta §2).

    `missing`: `release` (that token stays zero, and the mean class token counts absent films) or `learned` (it is trained, and
    only films that are there count). `decodes`: whether the image decoder is built.
    """

    kind = "mrm"

    def __init__(self, shape: MaskedShape, *, ratio: float, missing: str, decodes: bool) -> None:
        super().__init__()
        D, self.shape, self.ratio, self.missing = shape.width, shape, ratio, missing
        self.patch_embed = PatchEmbed(shape.patch_size, D)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.pos_embed = nn.Parameter(sincos_positions(D, shape.side), requires_grad=False)
        self.missing_token = nn.Parameter(torch.zeros(1, shape.side**2, D))
        self.temporal_embedding = nn.Parameter(torch.zeros(1, 2, D))
        self.view_embedding = nn.Parameter(torch.zeros(1, 2, D))
        self.blocks = nn.ModuleList([Block(D, shape.heads) for _ in range(shape.depth)])
        self.norm = nn.LayerNorm(D, eps=EPS)
        self.decoder = self._decoder() if decodes else None
        self.apply(xavier)
        for token in (self.cls_token, *([self.decoder.mask_token] if self.decoder is not None else [])):
            nn.init.normal_(token, std=0.02)

    def _decoder(self) -> ImageDecoder:
        s = self.shape
        return ImageDecoder(s.width, s.decoder_width, s.decoder_depth, s.decoder_heads, s.side, 3 * (2 * s.patch_size) ** 2)

    @property
    def width(self) -> int:
        return self.shape.width

    @property
    def preprocessing(self) -> Preprocessing:
        """For training: twice the size the encoder reads, from which that is made (spec alta §6)."""
        size = 2 * self.shape.image_size
        return Preprocessing(size, "shorter_crop", MEAN, STD, shorter=round(size * 8 / 7))

    @property
    def evaluation(self) -> Preprocessing:
        """For evaluation: the shorter side to 256, the middle 224."""
        size = self.shape.image_size
        return Preprocessing(size, "shorter_crop", MEAN, STD, shorter=round(size * 8 / 7))

    def set_adapters(self) -> None:
        """Put the adapters in and train what the publication trains, by an explicit list (spec alta §1, §10.9)."""
        blocks: Any = self.blocks
        for block in blocks:
            adapt_behind(block.attn, self.width)
            adapt_beside(block.mlp, self.width)
        train_adapters_and_norms(self)
        trained: list[Any] = [self.cls_token, self.temporal_embedding, self.view_embedding]
        if self.missing == "learned":
            trained.append(self.missing_token)
        if self.decoder is not None:
            trained += [self.decoder.mask_token, *self.decoder.decoder_embed.parameters()]
            trained += self.decoder.decoder_pred.parameters()
        for parameter in trained:
            parameter.requires_grad_(True)

    def train_all(self) -> None:
        """Everything but the fixed positions, and the token of absent films where the release leaves it."""
        self.requires_grad_(True)
        self.pos_embed.requires_grad_(False)
        self.missing_token.requires_grad_(self.missing == "learned")
        if self.decoder is not None:
            self.decoder.decoder_pos_embed.requires_grad_(False)

    def forward(self, streams: Tensor, draws: Tensor | None = None) -> SeenRecord:
        """Films [B, T, 3, S or 2S, S or 2S], zeros where absent. With `draws` [B] patches are masked and stream 0 is rebuilt;
        T may be 1, the current frontal film alone, as in evaluation."""
        tokens, there = self.tokens(streams)
        masking = None
        if draws is not None:
            masking = draw_masking(draws, tokens.shape[1], tokens.shape[2], self.ratio)
            tokens = gathered_tokens(tokens, masking.kept)
        x = self._blocks(tokens)
        cls, patches = self._mean(x[:, :, 0], there), x[:, :, 1:].flatten(1, 2)
        if masking is None or self.decoder is None:
            return SeenRecord(cls, patches)
        first = Masking(*(tensor[:, 0] for tensor in masking))
        predicted = self.decoder(x[:, 0], first)
        target = normalised_patches(patchify(self._large(streams[:, 0]).float(), 2 * self.shape.patch_size))
        return SeenRecord(cls, patches, None, predicted, target, first.hidden)

    def tokens(self, streams: Tensor) -> tuple[Tensor, Tensor]:
        """(patch tokens with their positions [B, T, N, D], which films are there [B, T])."""
        B, T = streams.shape[:2]
        there = (streams != 0).flatten(2).any(2)
        seen = self.patch_embed(self._small(streams.flatten(0, 1)).to(self.patch_embed.proj.weight.dtype))
        tokens = seen.unflatten(0, (B, T))
        tokens = torch.where(there[:, :, None, None], tokens, self.missing_token[:, None].to(tokens.dtype))
        return tokens + self.pos_embed[:, None, 1:], there

    def _small(self, films: Tensor) -> Tensor:
        size = self.shape.image_size
        if films.shape[-1] == size:
            return films
        return F.interpolate(films.float(), size=(size, size), mode="bicubic", antialias=True, align_corners=False)

    def _large(self, films: Tensor) -> Tensor:
        size = 2 * self.shape.image_size
        if films.shape[-1] != size:
            raise ValueError(f"the decoder's target is {size}×{size}, and films are {films.shape[-1]}×{films.shape[-1]}")
        return films

    def _blocks(self, tokens: Tensor) -> Tensor:
        """[B, T, K, D] → [B, T, 1 + K, D]: every stream by itself."""
        B, T, _, D = tokens.shape
        cls = (self.cls_token + self.pos_embed[:, :1])[:, None].expand(B, T, 1, D).to(tokens.dtype)
        stream = torch.arange(T, device=tokens.device)
        marks = self.view_embedding[0, stream % 2] + self.temporal_embedding[0, stream // 2]
        x = (torch.cat([cls, tokens], dim=2) + marks[None, :, None]).flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).unflatten(0, (B, T))

    def _mean(self, cls_btd: Tensor, there: Tensor) -> Tensor:
        if self.missing == "release":
            return cls_btd.mean(1)
        weight = there.to(cls_btd.dtype)[..., None]
        return (cls_btd * weight).sum(1) / weight.sum(1).clamp_min(1)

    def digest(self) -> str:
        """sha-256 over every weight and the sizes."""
        return weights_digest(self.named_parameters(), {"kind": self.kind, **vars(self.shape)})
