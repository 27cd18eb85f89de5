"""The first losses of every tiny twin, stage by stage, as they were when `tests/golden/tiny.json` was written.

A change that means to move them writes them anew (`RRG_GOLDEN=write pytest tests/test_golden.py`); no other may. A new twin has
to be written in.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from rrg.batching.feed import StepFeed
from rrg.connector.weights import save_connector
from rrg.recipe import load_recipe
from rrg.shards.ledger import Ledger
from rrg.stages import stage_recipe
from rrg.strategy.replicas import Replicas
from rrg.system import System, open_split
from rrg.train.optim import build_optimizer
from rrg.train.repeats import repeats
from rrg.train.step import Stepper
from rrg.train.team import start
from tests.ngram_inputs import ngram_overrides

ROOT = Path(__file__).resolve().parents[1]
TWINS = sorted(file.stem for file in (ROOT / "configs" / "tiny").glob("*.yaml"))
FILE = ROOT / "tests" / "golden" / "tiny.json"
STEPS = 2


@pytest.fixture(scope="module")
def team():
    return start(1)


@pytest.fixture(scope="module")
def inputs(drawn_shards, tmp_path_factory):
    return ngram_overrides(tmp_path_factory.mktemp("inputs"), drawn_shards)


def losses(recipe, root, team):
    """The objectives of the first steps of one stage; its connector is left where the next stage looks for it."""
    shards = open_split(recipe, "train")
    system = System.build(recipe, root, shards)
    optimizer = build_optimizer(system.model, recipe.train)
    ledger = Ledger(shards.shard_sizes, recipe.seed, recipe.data.window, repeats(shards, recipe))
    size = {"batch_size": 4, "micro_batch": 4, "rank": 0, "world": 1, "section": recipe.data.section}
    feed = StepFeed(system.films(shards), system.tokeniser, ledger, **size)
    stepper = Stepper(system.model.train(), Replicas(system.model, optimizer, team.accelerator), recipe, team)
    found = [stepper.run(step, feed[step]).objectives for step in range(STEPS)]
    if recipe.name.count("/"):
        folder = root / "stages" / recipe.name.rpartition("/")[2]
        folder.mkdir(parents=True)
        if system.model.connector is not None:
            save_connector(system.model.connector, folder / "connector.safetensors")
    return found


@pytest.mark.parametrize("name", TWINS)
def test_the_first_losses_are_those_of_the_record(name, drawn_shards, inputs, tmp_path, team):
    words = inputs if "cmeaa" in name else [f"data.shards={drawn_shards}"]
    loaded = load_recipe(f"tiny/{name}", [*words, "data.workers=0", "train.batch_size=4", "train.micro_batch_size=4"])
    stages = [stage_recipe(loaded, stage).value for stage in loaded.value.stages]
    found = {recipe.name: losses(recipe, tmp_path, team) for recipe in (*stages, loaded.value)}
    if os.environ.get("RRG_GOLDEN") == "write":
        record = json.loads(FILE.read_text()) if FILE.exists() else {}
        rounded = {stage: [{k: round(v, 6) for k, v in step.items()} for step in steps] for stage, steps in found.items()}
        FILE.write_text(json.dumps(dict(sorted({**record, name: rounded}.items())), indent=1) + "\n")
        return
    golden = json.loads(FILE.read_text())[name]
    assert found.keys() == golden.keys()
    for stage, steps in golden.items():
        for mine, theirs in zip(found[stage], steps, strict=True):
            assert mine == pytest.approx(theirs, rel=2e-4, abs=2e-5), stage
    assert all(torch.isfinite(torch.tensor(list(step.values()))).all() for steps in found.values() for step in steps)


def test_no_record_of_a_twin_that_is_gone():
    assert sorted(json.loads(FILE.read_text())) == TWINS
