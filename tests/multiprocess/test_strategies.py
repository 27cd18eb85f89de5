"""One run handed from strategy to strategy and from one number of processes to another: the samples and losses of one process."""

import itertools
import json
import os

import pytest
from safetensors.torch import load_file

from tests.processes import events
from tests.strategy.ranks import train_on

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]
SETTINGS = [
    "vision.lora.dropout=0.0",  # random numbers belong to a micro-batch, so they depend on how a batch is dealt
    "vision.architecture.drop_path_rate=0.0",
    "train.batch_size=12",
    "train.micro_batch_size=2",
    "train.schedule.kind=constant",
    "train.checkpoint_every=2",
    "train.keep=99",
    "train.clip_norm=0.5",
    "train.clip_norm_of.connector=0.4",
    "train.threads=1",
    "train.eps=1e-4",  # gradients that are zero but for rounding stay small: AdamW would blow them up to full steps
    "train.validate_studies=3",
    "data.workers=0",
    "generate.num_beams=2",
    "generate.min_new_tokens=2",
    "generate.max_new_tokens=5",
]
SHARDED = ("zero3", "fsdp2", "hsdp")
# (strategy, processes, processes on a node)
SHORT = [("ddp", 1, 1), ("zero3", 2, 2), ("fsdp2", 3, 3), ("zero2", 2, 2), ("hsdp", 4, 2), ("ddp", 3, 3), ("zero3", 3, 3)]
PLACES = {"ddp": (2, 2), "zero2": (3, 3), "zero3": (2, 2), "fsdp2": (3, 3), "hsdp": (4, 2)}


def every_order():
    """A walk that passes every ordered pair of strategies once (Hierholzer on the complete directed graph)."""
    left = {name: [other for other in PLACES if other != name] for name in PLACES}
    stack, walk = ["ddp"], []
    while stack:
        if left[stack[-1]]:
            stack.append(left[stack[-1]].pop())
        else:
            walk.append(stack.pop())
    assert len(set(itertools.pairwise(walk))) == len(walk) - 1 == len(PLACES) * (len(PLACES) - 1)
    return [(name, *PLACES[name]) for name in reversed(walk)]


CHAIN = every_order() if os.environ.get("RRG_STRATEGIES") == "all" else SHORT
SPAN = 2  # steps of each link


def words(shards, output, steps, *more):
    return ["tiny/r2gengpt_delta_iu", f"data.shards={shards}", f"output={output}", f"train.max_steps={steps}", *SETTINGS, *more]


@pytest.fixture(scope="module")
def one(drawn_shards, tmp_path_factory):
    """The whole length on one process."""
    folder = tmp_path_factory.mktemp("one")
    train_on(1, words(drawn_shards, folder / "run", SPAN * len(CHAIN), "train.validate_every=0"), folder / "log")
    return folder / "run"


def starts(run):
    """The records of starts and resumptions, in order."""
    records = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [record for record in records if record["event"] in ("start", "resume")]


def test_a_chain_of_strategies_gives_the_curve_of_one_process(drawn_shards, one, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    for number, (name, world, local) in enumerate(CHAIN, 1):
        settings = words(drawn_shards, run, SPAN * number, f"strategy={name}", "train.validate_every=99")  # at each end
        said = train_on(world, settings, log, local=local)
        assert f"{name}: {world} processes, frozen " in said or world == 1
    ours, theirs = events(run), events(one)
    assert sorted(ours) == sorted(theirs) == list(range(1, SPAN * len(CHAIN) + 1))
    for step in theirs:
        assert ours[step]["order"] == theirs[step]["order"]
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], abs=1e-5), step
        assert ours[step]["grad_norm"] == pytest.approx(theirs[step]["grad_norm"], rel=1e-3)
        assert ours[step]["group_norms"] == pytest.approx(theirs[step]["group_norms"], rel=1e-3)
    for (name, world, local), record in zip(CHAIN, starts(run), strict=True):
        total, held, ranks = record["frozen"], record["frozen_held"], local if name == "hsdp" else world
        assert record["strategy"] == name and record["world"] == len(held) == world
        if name in SHARDED:  # to the rounding of small tensors
            assert all(total / ranks * 0.9 < here < total / ranks * 1.15 for here in held), record
        else:
            assert held == [total] * world
    for name in ("trainable.safetensors", "optimizer.safetensors"):
        a, b = (load_file(r / "checkpoints" / f"step_{SPAN * len(CHAIN):08d}" / name) for r in (run, one))
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].shape == b[key].shape and (a[key] - b[key]).abs().max() < 1e-4, key
    size = sum(path.stat().st_size for path in (run / "checkpoints" / "step_00000004").iterdir())
    assert size < 400_000, "a checkpoint holds what is trained, not the base"


@pytest.mark.parametrize("name", ["zero3", "fsdp2"])
def test_interrupted_on_the_same_setting_a_run_is_bitwise_the_same(drawn_shards, tmp_path, name):
    for run, lengths in (("whole", (4,)), ("parts", (2, 4))):
        for steps in lengths:
            settings = words(drawn_shards, tmp_path / run, steps, f"strategy={name}", "train.validate_every=0")
            train_on(2, settings, tmp_path / "log")
    for file in ("trainable.safetensors", "optimizer.safetensors", "state.json"):
        whole, parts = (tmp_path / run / "checkpoints" / "step_00000004" / file for run in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes(), file


DEMANDING = [
    "tiny/r2gengpt_iu",
    *("connector.kind=cmeaa", "connector.enhance=false", "connector.code_width=8", "connector.dropout=0"),
    *("objectives.mine.hidden=8", "objectives.mine.weight=1.0", "train.clip_norm_of.objectives.mine=1.0"),
    *("language.train=lora", "language.lora.r=2", "language.lora.dropout=0.0", "language.gradient_checkpointing=true"),
    *("train.batch_size=6", "train.max_steps=4", "train.checkpoint_every=2", "train.validate_every=0", "train.eps=1e-4"),
    *("train.threads=1", "data.workers=0"),
]


@pytest.mark.parametrize("name", ["zero3", "fsdp2"])
def test_gathered_objectives_lora_and_recomputed_activations(drawn_shards, tmp_path, name):
    """An objective that gathers over ranks and keeps averages, adapters within sharded blocks, blocks that run twice."""
    for run, world, micro in (("one", 1, 6), ("two", 2, 3)):
        settings = [*DEMANDING, f"data.shards={drawn_shards}", f"output={tmp_path / run}", f"train.micro_batch_size={micro}"]
        train_on(world, [*settings, f"strategy={name}"], tmp_path / "log")
    one, two = events(tmp_path / "one"), events(tmp_path / "two")
    assert sorted(one) == sorted(two) == [1, 2, 3, 4]
    for step in one:
        assert one[step]["objectives"] == pytest.approx(two[step]["objectives"], abs=1e-4)
        assert one[step]["group_norms"] == pytest.approx(two[step]["group_norms"], rel=1e-2)
    a, b = (load_file(tmp_path / run / "checkpoints" / "step_00000004" / "trainable.safetensors") for run in ("one", "two"))
    assert a.keys() == b.keys() and "objectives.mine.estimator.log_average" in a
    assert max(float((a[key] - b[key]).abs().max()) for key in a) < 1e-3
    assert (tmp_path / "two" / "language" / "model.safetensors").exists(), "the adapted language model, folded"


def test_towers_that_run_stage_by_stage_give_the_losses_of_whole_ones(drawn_shards, tmp_path):
    """UniCrossAdapter's connector calls both frozen towers in pieces, and a piece has to be gathered whenever it runs."""
    for name in ("ddp", "zero3"):
        settings = ["tiny/unicrossadapter_iu", f"data.shards={drawn_shards}", f"output={tmp_path / name}", f"strategy={name}"]
        settings += ["train.batch_size=4", "train.micro_batch_size=2", "train.max_steps=3", "train.checkpoint_every=3"]
        settings += ["train.validate_every=99", "train.validate_studies=3", "generate.num_beams=2", "generate.max_new_tokens=4"]
        train_on(2, [*settings, "train.threads=1", "data.workers=0", "train.eps=1e-4"], tmp_path / "log")
    whole, pieces = events(tmp_path / "ddp"), events(tmp_path / "zero3")
    assert sorted(whole) == sorted(pieces) == [1, 2, 3]
    for step in whole:
        assert pieces[step]["loss"] == pytest.approx(whole[step]["loss"], abs=1e-4)
        assert pieces[step]["grad_norm"] == pytest.approx(whole[step]["grad_norm"], rel=1e-2)
    (record,) = starts(tmp_path / "zero3")
    assert all(held < 0.7 * record["frozen"] for held in record["frozen_held"])
