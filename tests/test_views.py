"""Views, stitched pictures and priors in whole models: what a recipe may ask for, what reaches the loss and the generation."""

import dataclasses

import pytest
import torch

from rrg.batching.feed import SplitFeed
from rrg.errors import UserError
from rrg.language.decoding import Decoding
from rrg.recipe import load_recipe
from rrg.system import System, open_split
from tests.patients import write_patients

GREEDY = Decoding(num_beams=1, min_new_tokens=3, max_new_tokens=6)
RECIPES = ("tiny/views_concat", "tiny/views_stitched", "tiny/views_prior")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_patients(tmp_path_factory.mktemp("patients"))


def build(shards, recipe, *overrides):
    made = load_recipe(recipe, [f"data.shards={shards}", "data.workers=0", "language.min_count=1", *overrides]).value
    return System.build(made, None, open_split(made, "train"))


def batch_of(system, *indices):
    share = SplitFeed(system.films(open_split(system.recipe, "train")), system.tokeniser, [list(indices)])[0]
    assert share.error is None and not share.damaged
    return share.batches[0]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("views", ["mean", "concat"])
def test_what_stands_in_the_padding_changes_nothing(shards, recipe, views):
    """Bitwise: the loss, its gradients and the words that are written."""
    results = []
    for rubbish in (0.0, 3.0, torch.inf):
        system = build(shards, recipe, f"connector.views={views}", "vision.train=full", "data.prior=films")
        batch = batch_of(system, 0, 1, 2, 3)
        assert not batch.view_mask.all()
        batch.pixel_values[~batch.view_mask] = rubbish
        model = system.model.train()
        torch.manual_seed(0)  # drop-path
        loss = sum(value for value, _ in model(batch).values())
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((loss.item(), gradients, model.eval().generate(batch, GREEDY)))
    for loss, gradients, texts in results[1:]:
        assert loss == results[0][0] and texts == results[0][2]
        assert gradients.keys() == results[0][1].keys()
        assert all(torch.equal(gradient, results[0][1][name]) for name, gradient in gradients.items())


@pytest.mark.parametrize("recipe", RECIPES)
def test_only_what_is_trained_has_a_gradient(shards, recipe):
    system = build(shards, recipe)
    system.model.train()
    sum(value for value, _ in system.model(batch_of(system, 0, 1, 2)).values()).backward()
    for name, parameter in system.model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("connector."), name


def test_a_study_costs_the_same_with_or_without_longer_neighbours(shards):
    for recipe in RECIPES:
        system = build(shards, recipe)
        language = system.model.eval().language
        together = batch_of(system, 0, 1, 2)
        nll = language.loss(system.model.prefix(together)[1], together).nll.split(together.report_mask.sum(1).tolist())
        for index in range(3):
            alone = batch_of(system, index)
            expected = language.loss(system.model.prefix(alone)[1], alone).nll
            torch.testing.assert_close(nll[index], expected, rtol=1e-4, atol=1e-4)


def test_the_prior_reaches_the_prediction_and_its_age_too(shards):
    system = build(shards, "tiny/views_prior")
    model, batch = system.model.eval(), batch_of(system, 1)
    with torch.no_grad():
        model.connector.time_embedding[1:].normal_()

    def nll(changed):
        return model.language.loss(model.prefix(changed)[1], changed).nll

    days = torch.where(batch.view_days > 0, 500.0, batch.view_days)
    older, other = dataclasses.replace(batch, view_days=days), dataclasses.replace(batch, pixel_values=batch.pixel_values.clone())
    other.pixel_values[:, 1:] = 0
    assert not torch.allclose(nll(older), nll(batch)) and not torch.allclose(nll(other), nll(batch))


@pytest.mark.parametrize(
    "overrides,said",
    [
        (["data.views=front"], r"data\.views: 'front' is none of stored"),
        (["data.prior=report"], r"data\.prior: 'report' is none of none, films"),
        (["data.stitch=true"], r"data\.stitch: .*vision\.resize: pad"),
        (["data.stitch=true", "vision.resize=shorter_crop"], r"data\.stitch: .*vision\.resize: pad"),
        (["data.stitch=true", "vision.resize=pad", "augment.kind=random_crop"], r"data\.stitch: augment\.kind random_crop"),
        (["connector.views=concat", "data.max_views=3"], r"connector\.max_views: 2, but data\.max_views is 3"),
        (["vision.fill=grey"], r"vision\.fill: 'grey' is none of black, mean"),
        (["language.prompt='{image} {priors}'"], r"unknown field \{priors\}; legal: \{image\}, .*\{prior\}"),
    ],
)
def test_recipes_that_cannot_be_meant_are_refused(overrides, said):
    with pytest.raises(UserError, match=said):
        load_recipe("tiny/r2gengpt_iu", overrides)


def test_recipes_that_are_meant():
    for overrides in (
        ["data.stitch=true", "vision.resize=squash", "augment.kind=affine"],
        ["data.stitch=true", "vision.resize=pad", "connector.views=concat", "data.max_views=4"],
        ["data.stitch=true", "vision.kind=none", "connector.kind=words", "train.validate_reports=false"],
    ):
        assert load_recipe("tiny/r2gengpt_iu", overrides).value.data.stitch


def test_the_margin_of_a_stitched_picture_may_be_the_encoders_mean(shards):
    for fill, zero in (("black", False), ("mean", True)):
        system = build(shards, "tiny/views_stitched", f"vision.fill={fill}")
        pixels = batch_of(system, 0).pixel_values[0, 0]
        assert (pixels[:, 0].abs() < 0.02).all() == zero
