"""One vision encoder over the transformers backbones: films in, a fixed number of tokens out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from rrg.batching.images import Preprocessing
from rrg.errors import UserError, nearest
from rrg.vision.architectures import FIELDS, Architecture
from rrg.vision.backbones import load_backbone, torch_dtype
from rrg.vision.bottleneck import MARK
from rrg.vision.digests import weights_digest
from rrg.vision.preprocessing import adjusted

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS = ("patches", "global", "all")
_HIERARCHICAL = ("swin", "swinv2", "resnet")  # no class token; the grid halves at every stage


class VisionEncoder(nn.Module):
    """A backbone and the choice of which of its tokens leave it.

    `width` D and `tokens` N describe the output; `preprocessing` says how films must be prepared for it. `options` is the token
    choice, in words that enter a feature cache's key.
    """

    def __init__(self, backbone: Any, kind: str, preprocessing: Preprocessing, tokens: str, layer: int, grid: int | None) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.kind = kind
        self.preprocessing = preprocessing
        self.mode = tokens
        self.layer = layer
        self.grid = grid
        self.side = _grid_side(kind, backbone.config, preprocessing.size)
        self.width = int(backbone.config.hidden_sizes[-1] if kind == "resnet" else backbone.config.hidden_size)
        self.tokens = _count(kind, tokens, self.side, grid)
        _cut(backbone, kind, tokens, layer)

    @property
    def options(self) -> dict[str, Any]:
        """Kind, tokens, layer, grid and image size: with the weights, all that decides the output."""
        return {
            "kind": self.kind,
            "tokens": self.mode,
            "layer": self.layer,
            "grid": self.grid,
            "image_size": self.preprocessing.size,
        }

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, S, S] → [B, N, D]. Raises ValueError where S is not the encoder's size."""
        size = self.preprocessing.size
        if pixel_values.shape[-2:] != (size, size):
            raise ValueError(f"films of {tuple(pixel_values.shape[-2:])} for an encoder of {size}×{size}")
        options: dict[str, Any] = {}
        if self.kind in ("vit", "clip"):
            options["interpolate_pos_encoding"] = size != self.backbone.config.image_size
        output = self.backbone(pixel_values.to(self.dtype), **options)
        if self.kind == "resnet":  # [B, D, h, w]: tokens in row order, as everywhere
            output.last_hidden_state = output.last_hidden_state.flatten(2).transpose(1, 2)
        if self.mode == "global":
            return self._pooled(output)[:, None]
        x_bnd = output.last_hidden_state
        if self.mode == "all" or self.kind in _HIERARCHICAL:
            return self._gridded(x_bnd)
        return self._gridded(x_bnd[:, 1:])

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights, which the films are cast to."""
        return next(self.backbone.parameters()).dtype

    def _pooled(self, output: Any) -> Tensor:
        """Swin: mean of its tokens. ViT and DINOv2: the class token after the final LayerNorm. CLIP: after its own."""
        if self.kind in _HIERARCHICAL:
            return output.last_hidden_state.mean(1)
        return output.pooler_output if self.kind == "clip" else output.last_hidden_state[:, 0]

    def _gridded(self, x_bnd: Tensor) -> Tensor:
        if self.grid is None or self.grid == self.side:
            return x_bnd
        x_bdhw = x_bnd.transpose(1, 2).unflatten(2, (self.side, self.side))
        return nn.functional.adaptive_avg_pool2d(x_bdhw, self.grid).flatten(2).transpose(1, 2)

    def digest(self) -> str:
        """sha-256 over every weight (names, shapes, types, bytes) and the architecture."""
        return weights_digest(self._weights(), self._architecture())

    def base_digest(self) -> str:
        """`digest` without what LoRA or other adapters added: the same before and after, whatever the adapters learn."""
        return weights_digest(_without_lora(self._weights()), self._architecture())

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters, and the statistics of a pretrained residual network."""
        yield from self.backbone.named_parameters()
        if self.kind == "resnet":
            yield from self.backbone.named_buffers()

    def _architecture(self) -> dict[str, Any]:
        return {"kind": self.kind} | {name: getattr(self.backbone.config, name) for name in FIELDS[self.kind]}


def _without_lora(tensors: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors:
        if ".lora_" not in name and MARK not in name:
            yield name.replace(".base_layer.", "."), tensor


def build_encoder(
    kind: str,
    name: str,
    *,
    tokens: str = "patches",
    layer: int = -1,
    grid: int | None = None,
    image_size: int | None = None,
    resize: str | None = None,
    fill: str = "black",
    architecture: Architecture | None = None,
    dtype: str = "float32",
    device: str | Literal["meta"] | None = None,
) -> VisionEncoder:
    """Build the encoder `name` of `kind` (swin, swinv2, vit, dinov2, clip, resnet).

    `name`: a local folder, a Hugging Face name, `embedded:dinov2-small`, `random` with an `architecture`, or `random:NAME` with
    an entry of the architecture table; random weights come from torch's current random state. `tokens`: `patches`, `global`
    (one pooled token) or `all` (class token, then patches). `layer` -1 is the last hidden state, after the final LayerNorm where
    the backbone has one; -2 and below are raw hidden states of earlier layers, and the layers behind them are dropped. `grid` g
    average-pools the patches to g×g. `image_size` and `resize` take the place of the encoder's own preprocessing; `fill` is the
    colour that `resize="pad"` adds, `black` or `mean`.
    `device="meta"` builds without memory and, for names in the architecture table, without any file.

    Raises UserError, in one line, for everything that does not fit.
    """
    kept = torch_dtype(dtype)
    if tokens not in TOKENS:
        raise UserError(f"vision.tokens {tokens!r}: {nearest(tokens, TOKENS)}")
    backbone, preprocessing = load_backbone(kind, name, architecture, image_size, meta=device == "meta")
    preprocessing = adjusted(preprocessing, image_size, resize, fill)
    encoder = VisionEncoder(backbone, kind, preprocessing, tokens, layer, grid)
    return encoder.to(dtype=kept) if device in (None, "meta") else encoder.to(device=device, dtype=kept)


def _grid_side(kind: str, config: Any, size: int) -> int:
    step = 4 << int(config.downsample_in_first_stage) if kind == "resnet" else int(config.patch_size)
    if kind in _HIERARCHICAL:
        step *= 2 ** (len(config.depths) - 1)
    if size % step or size < step:
        raise UserError(f"vision.image_size {size} is no multiple of {step}; write {max(1, round(size / step)) * step}")
    side = size // step
    if kind in ("swin", "swinv2") and side < config.window_size:
        least = step * config.window_size
        raise UserError(f"vision.image_size {size} is below the window of this {kind} encoder; write at least {least}")
    return side


def _count(kind: str, tokens: str, side: int, grid: int | None) -> int:
    if tokens == "all" and kind in _HIERARCHICAL:
        raise UserError(f"vision.tokens=all: a {kind} encoder has no class token; write patches or global")
    if grid is not None and tokens != "patches":
        raise UserError(f"vision.grid={grid} pools patches only; write vision.tokens=patches or leave vision.grid out")
    if grid is not None and not 1 <= grid <= side:
        raise UserError(f"vision.grid={grid}: the encoder has {side}×{side} patches; write 1 to {side}")
    if tokens == "global":
        return 1
    return (grid or side) ** 2 + (tokens == "all")


def _cut(backbone: nn.Module, kind: str, tokens: str, layer: int) -> None:
    """Drop what the chosen output does not read. An unread parameter would get no gradient, which DDP refuses."""
    model: Any = backbone
    if kind in _HIERARCHICAL:
        if layer != -1:
            raise UserError(f"vision.layer={layer}: the stages of a {kind} encoder have other widths; write -1")
        return
    holder, attribute = {"vit": (model, "layers"), "dinov2": (getattr(model, "encoder", None), "layer")}.get(
        kind, (getattr(model, "encoder", None), "layers")
    )
    layers: nn.ModuleList = getattr(holder, attribute)
    if not -len(layers) <= layer <= -1:
        raise UserError(f"vision.layer={layer}: this encoder has {len(layers)} layers; write -1 to -{len(layers)}")
    if layer != -1 and tokens == "global":
        raise UserError(
            f"vision.layer={layer}: the pooled output is the last layer's; write vision.layer=-1 or vision.tokens=patches"
        )
    setattr(holder, attribute, layers[: len(layers) + 1 + layer])
    if kind == "clip":
        model.post_layernorm = model.post_layernorm if tokens == "global" else nn.Identity()
    elif layer != -1:
        model.layernorm = nn.Identity()
