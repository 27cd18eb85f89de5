"""`rrg bench loader`: films a second of rrg's reader and of two others, over the same films, in one run."""

from __future__ import annotations

import dataclasses
import io
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from rrg.batching.collate import Item
from rrg.bench.agreement import Agreement, agreement
from rrg.bench.loader_result import PLAIN, RRG, RRG_FULL, TARS, LoaderResult
from rrg.bench.machine import describe_machine, load_average
from rrg.bench.order import OrderQuality, ledger_orders, order_quality, uniform_orders
from rrg.bench.outfit import Outfit, outfit_of
from rrg.bench.pages import drop, resident
from rrg.bench.parts import measure_parts
from rrg.bench.selection import FilmFolder, Selection, store_as_such
from rrg.bench.sides import PlainDataset, PlainPasses, StepPasses, TarPasses, films_of, tar_items
from rrg.bench.turns import Passes, take_turns
from rrg.config.load import Loaded
from rrg.errors import UserError
from rrg.recipe import Recipe
from rrg.shards.ledger import Ledger, Place
from rrg.shards.plan import SourceStudy
from rrg.shards.reader import DamagedSample, ShardSet

_COMPARED = 32  # studies whose tensors are compared
_EPOCHS = 3


@dataclass(frozen=True)
class LoaderPlan:
    """What is measured. `films`: a folder of full-size JPEGs, for the plain Dataset and the shards that store them as such.

    `studies` are the first of the split; each of `rounds` turns takes at least `seconds` for each number of `workers` (0: in
    this process). `cold` drops the files from the page cache before every turn; otherwise all are read once before the first.
    """

    shards: str
    split: str = "train"
    films: Path | None = None
    studies: int = 64
    seconds: float = 0.0
    rounds: int = 5
    workers: tuple[int, ...] = (0,)
    cold: bool = False

    def __post_init__(self) -> None:
        for name, least in (("studies", 1), ("seconds", 0), ("rounds", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)}: write {least} or more")
        if not self.workers or min(self.workers) < 0:
            raise UserError(f"--workers {','.join(map(str, self.workers))}: write numbers of processes, such as 0,1,2")
        if self.cold and "://" in self.shards:
            raise UserError(f"--cold: the cache in front of {self.shards} is not this machine's to drop; leave it out")


@dataclass(frozen=True)
class _Inputs:
    """The selected studies as each way reads them; the last three only where full-size films are given."""

    outfit: Outfit
    prepared: Selection
    full: Selection | None = None
    sources: tuple[SourceStudy, ...] = ()

    def ways(self, workers: int, notes: list[str]) -> dict[str, Callable[[], Passes]]:
        """What can be measured with so many workers, by name."""
        outfit = self.outfit
        ways: dict[str, Callable[[], Passes]] = {}
        ways[RRG] = lambda: StepPasses(self.prepared, outfit, workers)
        if "://" in self.prepared.shards.root:
            notes.append("webdataset was left out: it reads remote tars through a shell command")
        elif len(self.prepared.tars()) < workers:
            notes.append(f"webdataset with {workers} workers was left out: it needs a shard for each, the selection has fewer")
        else:
            ways[TARS] = lambda: TarPasses(self.prepared, outfit, workers)
        if self.full is not None:
            full, dataset = self.full, PlainDataset(self.sources, outfit)
            ways[RRG_FULL] = lambda: StepPasses(full, outfit, workers)
            ways[PLAIN] = lambda: PlainPasses(dataset, outfit, workers)
        return ways

    def files(self) -> list[Path]:
        """Every local file that is read."""
        held = [self.prepared] + ([self.full] if self.full is not None else [])
        tars = [Path(s.shards.root, name) for s in held if "://" not in s.shards.root for name in s.tars()]
        return [*tars, *(Path(path) for source in self.sources for path in source.images)]


def measure_loader(
    loaded: Loaded[Recipe], plan: LoaderPlan, scratch: Path, say: Callable[[str], None] = lambda what: None
) -> LoaderResult:
    """Measure. `scratch` is an empty folder that takes the full-size films as shards; `say` is told what is being done.

    Raises UserError: shards, films, recipe or tokenizer are missing or damaged, or hold too few studies.
    """
    with _one_thread(), _whole():
        say("opening")
        inputs = _inputs(loaded, plan, scratch, say)
        result = LoaderResult(describe_machine(), _setting(plan, inputs))
        result.inputs = _describe_films(inputs)
        say("comparing what is read")
        result.agreements = _agreements(inputs)
        for workers in plan.workers:
            say(f"reading with {workers} workers")
            made = {name: make() for name, make in inputs.ways(workers, result.notes).items()}
            before = (lambda: drop(inputs.files())) if plan.cold else None
            result.turns[workers] = take_turns(made, plan.rounds, seconds=plan.seconds, before=before)
        result.setting["pages"]["resident"] = resident(inputs.files())
        say("timing the parts")
        result.parts = {RRG: measure_parts(inputs.prepared, inputs.outfit, plan.rounds)}
        if inputs.full is not None:
            result.parts[RRG_FULL] = measure_parts(inputs.full, inputs.outfit, plan.rounds)
        say("judging the order")
        result.order, result.uniform = _orders(inputs)
        result.machine["load_after"] = load_average()
    return result


def _inputs(loaded: Loaded[Recipe], plan: LoaderPlan, scratch: Path, say: Callable[[str], None]) -> _Inputs:
    shards = ShardSet(plan.shards, plan.split)
    outfit = outfit_of(loaded, shards)
    prepared = Selection.of(shards, plan.studies, outfit.batch_size)
    if plan.films is None:
        return _Inputs(outfit, prepared)
    sources = FilmFolder(plan.films).of(prepared.studies())
    say(f"storing {sum(len(source.images) for source in sources)} full-size films as shards")
    store_as_such(scratch, sources)
    full = Selection.of(ShardSet(scratch, plan.split), prepared.count, outfit.batch_size)
    return _Inputs(outfit, prepared, full, tuple(sources))


def _setting(plan: LoaderPlan, inputs: _Inputs) -> dict[str, Any]:
    outfit = inputs.outfit
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "shards": Path(plan.shards).name,
        "split": plan.split,
        "studies": inputs.prepared.count,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "recipe": outfit.recipe.name,
        "batch_size": outfit.batch_size,
        "max_views": outfit.policy.most,
        "preprocessing": dataclasses.asdict(outfit.preprocessing),
        "tensor": f"float32 [3, {outfit.preprocessing.size}, {outfit.preprocessing.size}] a film, no augmentation",
        "pages": {"policy": "dropped before every turn" if plan.cold else "read once before the first turn, for all ways"},
    }


def _describe_films(inputs: _Inputs) -> dict[str, dict[str, float]]:
    """Of each selection: films, median width and height in pixels, mean bytes."""
    held = {RRG: inputs.prepared} | ({} if inputs.full is None else {RRG_FULL: inputs.full})
    return {name: _describe(selection) for name, selection in held.items()}


def _describe(selection: Selection) -> dict[str, float]:
    from PIL import Image

    sizes, lengths = [], []
    for index in range(selection.count):
        for data in selection.shards.read(index).images:
            with Image.open(io.BytesIO(data)) as image:
                sizes.append(image.size)
            lengths.append(len(data))
    width, height = (statistics.median(size[axis] for size in sizes) for axis in (0, 1))
    return {"films": len(sizes), "width": width, "height": height, "mean_bytes": statistics.mean(lengths)}


def _agreements(inputs: _Inputs) -> dict[str, Agreement]:
    """Each other way against rrg's reading of the same shards, and full-size against prepared films."""
    count = min(inputs.prepared.count, _COMPARED)

    def own(selection: Selection) -> Iterator[Item]:
        films = films_of(selection, inputs.outfit)
        return (films.item(Place(0, index, 0), inputs.outfit.tokeniser, augment=False) for index in range(count))

    found, preprocessing = {}, inputs.outfit.preprocessing
    if "://" not in inputs.prepared.shards.root:
        theirs = islice(tar_items(inputs.prepared, inputs.outfit), count)
        found[f"{RRG} – {TARS}"] = agreement(own(inputs.prepared), theirs, preprocessing)
    if inputs.full is not None:
        dataset = PlainDataset(inputs.sources, inputs.outfit)
        for name, selection in ((RRG, inputs.prepared), (RRG_FULL, inputs.full)):
            read = (dataset[index] for index in range(count))
            found[f"{name} – {PLAIN}"] = agreement(own(selection), read, preprocessing)
    return found


def _orders(inputs: _Inputs) -> tuple[OrderQuality, OrderQuality]:
    """The recipe's order over the whole split, and a uniform shuffle of it."""
    recipe, sizes = inputs.outfit.recipe, inputs.prepared.shards.shard_sizes
    ledger = Ledger(sizes, recipe.seed, recipe.data.window)
    ours = order_quality(ledger_orders(ledger, _EPOCHS), sizes, recipe.train.batch_size)
    return ours, order_quality(uniform_orders(sum(sizes), _EPOCHS, recipe.seed), sizes, recipe.train.batch_size)


@contextmanager
def _whole() -> Iterator[None]:
    """A study that cannot be read stops the measurement: the ways would not read the same films."""
    try:
        yield
    except DamagedSample as damage:
        raise UserError(f"{damage}; see `rrg prepare verify`") from None


@contextmanager
def _one_thread() -> Iterator[None]:
    """Films a second of one core: torch keeps to one thread, as it does in loader workers."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
