"""From a study's films to what the encoder reads: the one place that training, generation and the feature cache share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from rrg.batching.film_policy import FilmPolicy
from rrg.batching.images import Augmentation, Preprocessing, decode, prepare_film, prepare_pixels
from rrg.batching.stitching import stitch
from rrg.shards.reader import DamagedSample, Sample

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def prepare_pictures(
    sample: Sample,
    shard: str,
    policy: FilmPolicy,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    *,
    seed: int = 0,
    epoch: int = 0,
    key: str = "",
    paired: bool = False,
) -> Tensor:
    """float32 [V, 3, S, S]: the films of `sample` that `policy` chooses, or their one stitched picture (V = 1).

    Augmentation draws are a pure function of (seed, epoch, key, number of the film in the study; 0 for a stitched picture). With
    `paired` they depend on the film's plane instead of its number, so that a study and its prior under one key are changed alike.
    Raises DamagedSample, of `shard`, where a film does not decode or the study has none.
    """
    import torch

    views = sample.study.views
    chosen = policy.choose(views)
    if not chosen:
        raise DamagedSample(sample.study.id, shard, f"{sample.study.id}.json", "a study without films")

    def read(number: int, work: Callable[..., T], *arguments: Any, **named: Any) -> T:
        try:
            return work(sample.images[number], *arguments, **named)
        except ValueError as error:
            member = f"{sample.study.id}.{views[number].image}"
            raise DamagedSample(sample.study.id, shard, member, str(error)) from None

    draws: dict[str, Any] = {"seed": seed, "epoch": epoch, "study": key}
    if policy.stitch:  # films are pasted at their full size: reduced decoding would change where each begins
        picture = stitch([read(number, decode) for number in chosen])
        return prepare_pixels(picture, preprocessing, augmentation, **draws)[None]
    draw_of = {number: int(views[number].plane == "lateral") if paired else number for number in chosen}
    films = [read(number, prepare_film, preprocessing, augmentation, view=draw_of[number], **draws) for number in chosen]
    return films[0][None] if len(films) == 1 else torch.stack(films)  # one film needs no copy
