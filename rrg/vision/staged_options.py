"""Options of film towers that are run stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rrg.config.context import BuildContext
from rrg.config.schema import option
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.vision.stages import StagedTower


@dataclass
class StagedOptions:
    """What every staged tower has in common."""

    gives: ClassVar[tuple[str, ...]] = ("tokens", "stages")
    name: str = option("", "the tower's weights")
    train: str = option("frozen", "frozen; what is trained in a staged tower is the connector's", choices=("frozen",))
    image_size: int | None = option(None, "side of the square input in pixels; null takes the tower's own", least=1)
    resize: str | None = option(
        None,
        "squash (aspect ratio lost) | shorter_crop | pad; null takes the tower's own",
        choices=("squash", "shorter_crop", "pad"),
    )
    dtype: str = option(
        "float32", "dtype of the weights: float32 | bfloat16 | float16", choices=("float32", "bfloat16", "float16")
    )
    cache: str = option(
        "", "folder where the first stage's tokens are kept (auto: beside the shards); empty computes them every time"
    )

    def check(self, path: str) -> None:
        if not self.name:
            raise UserError(f"{path}.name: empty; write a file in OpenAI's layout, random:tiny, or for DINOv2 its name")


@dataclass
class ClipResNetOptions(StagedOptions):
    kind: str = option("clip_resnet", "CLIP's residual network, run stage by stage (for connector.kind: unicrossadapter)")
    name: str = option("openai/RN101", "file with the tensors of OpenAI's RN101 or RN50, or random:tiny")


@dataclass
class StagedDinov2Options(StagedOptions):
    kind: str = option("staged_dinov2", "DINOv2 in three groups of layers: a stand-in for CLIP's residual network")
    name: str = option("embedded:dinov2-small", "Hugging Face name, local folder, embedded:dinov2-small, or random:NAME")
    stages: list[int] = option([4, 8, 12], "layers after which the three stages end", least=1)
    grid: int | None = option(
        None, "average-pool the patch tokens to grid x grid at the end of the first stage; null keeps them all", least=1
    )


def staged_tower(options: StagedOptions, context: BuildContext) -> StagedTower:
    """The frozen tower of `options`."""
    import torch

    from rrg.vision.adapters import freeze

    meta = context.meta
    tower: StagedTower
    if isinstance(options, StagedDinov2Options):
        from rrg.vision.staged_vit import build_staged_vit

        tower = build_staged_vit(options.name, options.stages, options.grid, options.image_size, options.resize, meta=meta)
    else:
        from rrg.vision.openai_resnet import build_openai_resnet

        tower = build_openai_resnet(options.name, options.image_size, options.resize, meta=meta)
    return freeze(tower.to(getattr(torch, options.dtype)))
