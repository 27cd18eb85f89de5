"""CLIP's modified residual network (Radford et al. 2021, §2.4), run stage by stage and pooled densely.

Against a plain residual network: three convolutions in the stem, average pooling in place of every stride, and attention in place
of the last pooling. In the dense pool (spec unicrossadapter §2.2) every position is a query and there is no mean token, so that a
map comes out. Names of parameters are OpenAI's.

Dimensions: F films, S side in pixels, C channels.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.errors import UserError
from rrg.vision.openai_layout import clip_sizes, clip_tensors, fill
from rrg.vision.preprocessing import adjusted, published_preprocessing
from rrg.vision.stages import StagedTower, resized

if TYPE_CHECKING:
    from rrg.batching.images import Preprocessing
    from rrg.vision.openai_layout import ClipSizes

_EXPANSION = 4
_HEAD = 64


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions; a stride is an average pool before the last one and in the shortcut."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        out = planes * _EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(channels, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False), nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3, self.bn3 = nn.Conv2d(planes, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            pool, project = nn.AvgPool2d(stride), nn.Conv2d(channels, out, 1, bias=False)
            self.downsample = nn.Sequential(OrderedDict([("-1", pool), ("0", project), ("1", nn.BatchNorm2d(out))]))

    def forward(self, x: Tensor) -> Tensor:
        """[F, C, h, w] → [F, 4·planes, h / stride, w / stride]."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.avgpool(self.bn2(self.conv2(y)).relu())
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


class DensePool(nn.Module):
    """CLIP's attention pool with all positions as queries. `positional_embedding` [1 + n², C]: the first row is not used."""

    def __init__(self, side: int, channels: int, out: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(side**2 + 1, channels) / channels**0.5)
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, out)

    def forward(self, x_fchw: Tensor, places: Tensor | None = None) -> Tensor:
        """[F, C, h, h] → [F, out, h, h]; `places` [h², C] takes the place of the pool's own positions."""
        side = x_fchw.shape[-1]
        own = resized(self.positional_embedding, side) if places is None else places
        x_fnc = x_fchw.flatten(2).transpose(1, 2) + own
        q, k, v = (
            project(x_fnc).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        pooled = self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        return pooled.transpose(1, 2).unflatten(2, (side, side))


class OpenAIResNet(StagedTower):
    """The film tower of OpenAI's RN101 and RN50. Stages: up to layer2, layer3, layer4; `pool` is the dense attention pool.

    Raises:
        UserError: the films' side is no multiple of 32, where the maps of the stages would not halve.
    """

    def __init__(self, sizes: ClipSizes, preprocessing: Preprocessing) -> None:
        side, width = preprocessing.size, sizes.width
        if side % 32:
            raise UserError(f"vision.image_size: {side} is no multiple of 32; write {max(1, round(side / 32)) * 32}")
        widths = [width * _EXPANSION * 2**stage for stage in (1, 2, 3)]
        super().__init__(preprocessing, widths, [side // step for step in (8, 16, 32)], {"kind": "clip_resnet"})
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, 2, 1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        channels = [width, *(width * _EXPANSION * 2**stage for stage in range(3))]
        layers = [
            nn.Sequential(*_blocks(channels[stage], width * 2**stage, count, 2 if stage else 1))
            for stage, count in enumerate(sizes.blocks)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.attnpool = DensePool(sizes.side // 32, widths[-1], sizes.embed, max(1, widths[-1] // _HEAD))
        self._embed = sizes.embed

    @property
    def pooled(self) -> tuple[int, int]:
        return self._embed, self.sides[-1]

    @property
    def positions(self) -> Tensor:
        return self.attnpool.positional_embedding

    def _first(self, pixel_values: Tensor) -> Tensor:
        x = pixel_values
        for convolution, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = norm(convolution(x)).relu()
        return _tokens(self.layer2(self.layer1(F.avg_pool2d(x, 2))))

    def _further(self, stage: int, x_fnc: Tensor) -> Tensor:
        return _tokens((self.layer3, self.layer4)[stage - 1](self.as_map(x_fnc)))

    def _pool(self, x_fnc: Tensor, places: Tensor | None) -> Tensor:
        return self.attnpool(self.as_map(x_fnc), places)


def _blocks(channels: int, planes: int, count: int, stride: int) -> list[Bottleneck]:
    rest = [Bottleneck(planes * _EXPANSION, planes, 1) for _ in range(count - 1)]
    return [Bottleneck(channels, planes, stride), *rest]


def _tokens(map_fchw: Tensor) -> Tensor:
    return map_fchw.flatten(2).transpose(1, 2)


def build_openai_resnet(name: str, image_size: int | None, resize: str | None, *, meta: bool) -> OpenAIResNet:
    """The film tower of `name`: a file in OpenAI's layout, `random:tiny`, or with `meta` a published name.

    Films are prepared as the R2Gen family does (spec common §4): squashed, ImageNet's statistics and not CLIP's.
    Raises UserError, in one line, for everything that does not fit.
    """
    sizes = clip_sizes(name, "vision.name", meta=meta)
    preprocessing = adjusted(published_preprocessing("resnet", sizes.side), image_size, resize)
    with torch.device("meta" if meta else "cpu"):
        tower = OpenAIResNet(sizes, preprocessing)
    if not meta and not name.startswith("random:"):
        held = {
            key.removeprefix("visual."): t for key, t in clip_tensors(name, "vision.name").items() if key.startswith("visual.")
        }
        fill(tower, held, "vision.name", name)
    return tower
