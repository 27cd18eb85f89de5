"""The ways of reading that are compared. All give the same batches: film tensors, token ids, masks.

`StepPasses` is rrg's own path in training. `TarPasses` is a plain `webdataset` pipeline over the same tars with the same
decoding. `PlainPasses` is a torch Dataset that opens full-size JPEGs as the R2GenGPT release does (spec r2gengpt §4): Pillow,
RGB, and a Hugging Face image processor that resizes by bicubic interpolation, scales and normalises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from rrg.batching.batch import Batch
from rrg.batching.collate import Item, collate
from rrg.batching.feed import StepFeed
from rrg.batching.films import Films
from rrg.batching.images import INTERPOLATIONS, Augmentation, Preprocessing, prepare_film
from rrg.bench.outfit import Outfit
from rrg.bench.selection import Selection
from rrg.data.study import Study
from rrg.errors import UserError
from rrg.shards.ledger import Ledger
from rrg.shards.plan import SourceStudy


def films_of(selection: Selection, outfit: Outfit) -> Films:
    """What rrg's own path reads from, without augmentation."""
    seed = outfit.recipe.seed
    return Films(selection.shards, outfit.preprocessing, Augmentation(), None, outfit.policy, seed)


def ledger_of(selection: Selection, outfit: Outfit) -> Ledger:
    """The recipe's order over the selected studies alone."""
    repeats = (np.arange(len(selection.shards)) < selection.count).astype(np.int64)
    return Ledger(selection.shards.shard_sizes, outfit.recipe.seed, outfit.recipe.data.window, repeats)


def _loader(dataset: Any, workers: int, prefetch: int, **options: Any) -> DataLoader:
    """Workers live as long as the loader, so that a pass does not pay for their start."""
    if workers:
        options |= {"prefetch_factor": prefetch, "persistent_workers": True}
    return DataLoader(dataset, num_workers=workers, pin_memory=False, **options)


class StepPasses:
    """rrg: `StepFeed` over shards, each pass an epoch in its own order."""

    def __init__(self, selection: Selection, outfit: Outfit, workers: int) -> None:
        self._steps = selection.count // outfit.batch_size
        self._numbers: list[int] = []
        feed = StepFeed(
            films_of(selection, outfit),
            outfit.tokeniser,
            ledger_of(selection, outfit),
            batch_size=outfit.batch_size,
            micro_batch=outfit.batch_size,
            rank=0,
            world=1,
            section=outfit.recipe.data.section,
        )
        self._loader = _loader(feed, workers, outfit.recipe.data.prefetch, batch_size=None, sampler=self._numbers)

    def __call__(self, number: int) -> Iterator[Batch]:
        """Raises UserError where a study cannot be read: the others would read more than rrg."""
        self._numbers[:] = range(number * self._steps, (number + 1) * self._steps)
        for share in self._loader:
            for damage in share.damaged:
                raise UserError(
                    f"study {damage.study} of {damage.shard} cannot be read ({damage.reason}); see `rrg prepare verify`"
                )
            if share.error is not None:
                raise UserError(share.error)
            yield from share.batches


def shard_item(study: Study, films: Sequence[bytes], outfit: Outfit) -> Item:
    """A study from a tar's bytes, prepared as rrg prepares it."""
    prepared = [prepare_film(films[number], outfit.preprocessing) for number in outfit.policy.choose(study.views)]
    return Item(study.id, outfit.tokeniser(study), films=stacked(prepared), labels=study.labels)


def stacked(films: Sequence[torch.Tensor]) -> torch.Tensor:
    """[V, 3, S, S], without a copy where there is one film, as rrg's own path does it."""
    return films[0][None] if len(films) == 1 else torch.stack(list(films))


class TarPasses:
    """webdataset: the selected tars from the first to the last, in their order (no shuffling, its fastest form)."""

    def __init__(self, selection: Selection, outfit: Outfit, workers: int) -> None:
        pipeline = tar_items(selection, outfit).batched(outfit.batch_size, collation_fn=collate)
        self._loader = _loader(pipeline, workers, outfit.recipe.data.prefetch, batch_size=None)

    def __call__(self, number: int) -> Iterator[Batch]:
        return iter(self._loader)


def tar_items(selection: Selection, outfit: Outfit) -> Any:
    """The webdataset pipeline: one `Item` per selected study. Raises UserError for shards that are not local files."""
    import webdataset

    if "://" in selection.shards.root:
        raise UserError(f"webdataset reads {selection.shards.root} through a shell command, which rrg does not start")
    urls = [str(Path(selection.shards.root, name)) for name in selection.tars()]
    last = selection.ids[-1]

    def item(sample: Mapping[str, Any]) -> Item:
        films = [sample[f"{view}.jpg"] for view in range(sum(name.endswith(".jpg") for name in sample))]
        return shard_item(Study.from_json(sample["json"]), films, outfit)

    def selected(samples: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for sample in samples:
            yield sample
            if sample["__key__"] == last:
                return

    return webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).compose(selected).map(item)


class PlainDataset(Dataset):
    """Study → `Item` from full-size JPEG files; the reports are in memory, as a parsed annotation file is."""

    def __init__(self, studies: Sequence[SourceStudy], outfit: Outfit) -> None:
        self._studies, self._outfit = studies, outfit
        self._process = hugging_face_processor(outfit.preprocessing)

    def __len__(self) -> int:
        return len(self._studies)

    def __getitem__(self, index: int) -> Item:
        source, outfit = self._studies[index], self._outfit
        chosen = outfit.policy.choose(source.study.views)
        films = stacked([self._film(source.images[number]) for number in chosen])
        return Item(source.study.id, outfit.tokeniser(source.study), films=films, labels=source.study.labels)

    def _film(self, path: str) -> torch.Tensor:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        return self._process(pixels)


def hugging_face_processor(preprocessing: Preprocessing) -> Callable[[np.ndarray], torch.Tensor]:
    """uint8 [H, W, 3] → float32 [3, S, S] by the Pillow processor of transformers that does what `preprocessing` says.

    Raises UserError for `pad`, which none of them does.
    """
    from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

    size = preprocessing.size
    channels: dict[str, Any] = {"image_mean": list(preprocessing.mean), "image_std": list(preprocessing.std)}
    if len(preprocessing.mean) == 1:
        channels = {name: values * 3 for name, values in channels.items()}
    resample = int(INTERPOLATIONS[preprocessing.interpolation])
    processor: Any
    if preprocessing.resize == "squash":
        processor = ViTImageProcessorPil(size={"height": size, "width": size}, resample=resample, **channels)
    elif preprocessing.resize == "shorter_crop":
        edges: dict[str, Any] = {
            "size": {"shortest_edge": preprocessing.shorter or size},
            "crop_size": {"height": size, "width": size},
        }
        processor = CLIPImageProcessorPil(resample=resample, **edges, **channels)
    else:
        raise UserError(f"vision.resize: no Hugging Face processor does {preprocessing.resize!r}; leave --films out, or squash")
    return lambda pixels: processor(pixels, return_tensors="pt")["pixel_values"][0]


class PlainPasses:
    """A DataLoader over `PlainDataset`, shuffled anew in every pass."""

    def __init__(self, dataset: PlainDataset, outfit: Outfit, workers: int) -> None:
        self._order: list[int] = []
        self._count, self._seed = len(dataset), outfit.recipe.seed
        options = {"batch_size": outfit.batch_size, "sampler": self._order, "collate_fn": collate}
        self._loader = _loader(dataset, workers, outfit.recipe.data.prefetch, **options)

    def __call__(self, number: int) -> Iterator[Batch]:
        self._order[:] = np.random.default_rng([self._seed, number]).permutation(self._count).tolist()
        return iter(self._loader)
