"""Every vision part with every connector with every language part: what fits is built, trained, taken up and written with; what
does not is refused with the reason. Driven by the families' tables: a new kind has to be given tiny sizes here."""

import copy
import itertools

import pytest
import torch

from rrg.batching.feed import StepFeed
from rrg.config.schema import typed
from rrg.connector.family import CONNECTOR
from rrg.errors import UserError
from rrg.language.decoding import Decoding
from rrg.language.family import LANGUAGE
from rrg.recipe import Recipe, load_recipe
from rrg.shards.ledger import Ledger
from rrg.strategy.replicas import Replicas
from rrg.system import System, open_split
from rrg.train import checkpoint
from rrg.train.optim import build_optimizer
from rrg.train.step import Stepper
from rrg.train.team import start
from rrg.vision.family import VISION
from tests.language.test_families import SIZES as LLAMA
from tests.language.test_families import saved

PLAIN = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "patch_size": 8}
HIERARCHY = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "patch_size": 4}
RESIDUAL = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
MASKED = {"image_size": 32, "patch_size": 8, "width": 16, "depth": 2, "heads": 2}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 128,
}
ADAPTERS = {"adapter_width": 8, "adapter_heads": 2}

VISIONS = {
    "none": {},
    "swin": {"name": "random", "image_size": 32, "architecture": HIERARCHY},
    "swinv2": {"name": "random", "image_size": 32, "architecture": HIERARCHY},
    "vit": {"name": "random", "image_size": 32, "architecture": PLAIN},
    "dinov2": {"name": "random", "image_size": 32, "architecture": {k: v for k, v in PLAIN.items() if k != "intermediate_size"}},
    "clip": {"name": "random", "image_size": 32, "architecture": PLAIN},
    "resnet": {"name": "random", "image_size": 32, "train": "full", "architecture": RESIDUAL},
    "mrm": {"name": "random", "architecture": MASKED},
    "clip_resnet": {"name": "random:tiny"},
    "staged_dinov2": {"name": "random:tiny-dinov2", "stages": [1, 2, 3]},
}
CONNECTORS = {
    "none": {},
    "words": {"slots": 4},
    "linear": {},
    "mlp": {"hidden": 8},
    "cmeaa": {"enhance": False, "code_width": 4, "adapter_hidden": 4, "heads": 2},
    "unicrossadapter": {**ADAPTERS, "width": 16, "heads": 2, "layers": 1, "encoder_heads": 2},
    "shared_space": {"width": 8},
}
LANGUAGES = {
    "causal_lm": {"train": "lora", "dtype": "float32", "prompt": "{image} report :", "lora": {"r": 2, "targets": ["all-linear"]}},
    "small_llama": {"train": "full", "hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 24, "min_count": 1},
    "word_decoder": {"name": "random:tiny", **ADAPTERS, "stages": [1, 2, 3], "layers": 1, "heads": 2, "min_count": 1},
    "text": {"name": "random", "architecture": TEXT},
}
KINDS = tuple(itertools.product(VISION.kinds, CONNECTOR.kinds, LANGUAGE.kinds))


def fits(vision, connector, language):
    gives = {name: kind.options.gives for name, kind in VISION.kinds.items()}[vision]
    between, after = CONNECTOR.kinds[connector].options, LANGUAGE.kinds[language].options
    return bool(set(gives) & set(between.takes)) and between.gives == after.takes


LEGAL = [kinds for kinds in KINDS if fits(*kinds)]


@pytest.fixture(scope="module")
def base():
    return load_recipe("tiny/r2gengpt_iu").data


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return saved("llama", LLAMA, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def team():
    return start(1)


def recipe_of(base, shards, llama, kinds):
    """The tiny recipe of these three parts. Raises UserError where they do not fit."""
    data = copy.deepcopy(base)
    tiny = zip(("vision", "connector", "language"), kinds, (VISIONS, CONNECTORS, LANGUAGES), strict=True)
    data |= {part: {"kind": kind, **sizes.get(kind, {})} for part, kind, sizes in tiny}
    if kinds[2] == "causal_lm":
        data["language"]["name"] = str(llama)
    towers = kinds[2] == "text"
    data["objectives"] = {"contrast": {"kind": "contrast"}} if towers else {"report": {"kind": "report"}}
    data["data"] |= {"shards": str(shards), "workers": 0, "views": "frontal_lateral" if towers else "stored"}
    data["train"] |= {"batch_size": 2, "micro_batch_size": 2, "validate_reports": False, "precision": "fp32"}
    return typed(Recipe, data)


class Run:
    """A system with its optimizer and its steps, as the training loop puts them together."""

    def __init__(self, recipe, root, team):
        shards = open_split(recipe, "train")
        self.system = System.build(recipe, root, shards)
        self.model = self.system.model
        self.optimizer = build_optimizer(self.model, recipe.train)
        films, ledger = self.system.films(shards), Ledger(shards.shard_sizes, 3, 64)
        self.feed = StepFeed(
            films, self.system.tokeniser, ledger, batch_size=2, micro_batch=2, rank=0, world=1, section=recipe.data.section
        )
        self._recipe, self._team = recipe, team

    def step(self, number):
        self.model.train()
        strategy = Replicas(self.model, self.optimizer, self._team.accelerator)
        return Stepper(self.model, strategy, self._recipe, self._team).run(number, self.feed[number])

    def state(self):
        return checkpoint.trainable_tensors(self.model)


def test_every_kind_has_tiny_sizes():
    for family, sizes in ((VISION, VISIONS), (CONNECTOR, CONNECTORS), (LANGUAGE, LANGUAGES)):
        assert family.kinds.keys() == sizes.keys(), f"give every kind of {family.name} its tiny sizes in this file"
    for column, (family, _) in enumerate(((VISION, VISIONS), (CONNECTOR, CONNECTORS), (LANGUAGE, LANGUAGES))):
        assert {kinds[column] for kinds in LEGAL} == set(family.kinds), "every kind fits somewhere"


def test_what_does_not_fit_is_refused_with_the_reason(base, drawn_shards, llama):
    for kinds in set(KINDS) - set(LEGAL):
        with pytest.raises(UserError) as caught:
            recipe_of(base, drawn_shards, llama, kinds)
        said = str(caught.value)
        assert "\n" not in said and said.startswith(("connector.kind", "language.kind", "vision.kind")), (kinds, said)
        assert "write " in said and any(kind in said for kind in kinds), (kinds, said)


@pytest.mark.parametrize("kinds", LEGAL, ids="-".join)
def test_what_fits_trains_is_taken_up_and_writes(kinds, base, drawn_shards, llama, tmp_path, team):
    recipe = recipe_of(base, drawn_shards, llama, kinds)
    first = Run(recipe, tmp_path, team)
    result = first.step(0)
    assert result.finite and result.studies == 2
    saved_at = checkpoint.State(step=1, position=2, frozen=checkpoint.frozen_digest(first.model), data="")
    folder = checkpoint.save(tmp_path / "checkpoints", first.model, first.optimizer, saved_at)
    kept = {name: tensor.clone() for name, tensor in first.state().items()}
    whole = first.step(1)

    again = Run(recipe, tmp_path, team)
    state = checkpoint.load(folder, again.model, again.optimizer)
    assert state.frozen == checkpoint.frozen_digest(again.model)
    assert again.state().keys() == kept.keys() and all(torch.equal(again.state()[name], kept[name]) for name in kept)
    assert again.step(1) == whole
    moved = first.state()
    assert all(torch.equal(moved[name], tensor) for name, tensor in again.state().items())
    assert any(not torch.equal(moved[name], kept[name]) for name in kept)
    writes(again, recipe)


def writes(run, recipe):
    """A report for every study of the batch, the same each time; of two towers vectors of length one."""
    model, batch = run.model.eval(), run.feed[0].batches[0]
    if not recipe.writes:
        image, _ = model.images(batch)
        assert image.shape == (2, 8) and torch.allclose(image.norm(dim=1), torch.ones(2), atol=1e-5)
        return
    decoding = Decoding(num_beams=2, repetition_penalty=1.0, length_penalty=1.0, min_new_tokens=3, max_new_tokens=5)
    torch.manual_seed(0)  # a text-only stage draws the words that it shows
    reports = model.generate(batch, decoding)
    torch.manual_seed(0)
    assert len(reports) == 2 and reports == model.generate(batch, decoding)
