"""The patient's previous study: its films as further views, its report in the prompt, and never the study's own report."""

import copy
import dataclasses

import pytest
import torch

from rrg.batching.feed import SplitFeed
from rrg.batching.priors import Priors, days_since
from rrg.data.projections import KINDS
from rrg.errors import UserError
from rrg.generate.engine import batches_by_prompt
from rrg.generate.films import substituted
from rrg.recipe import load_recipe
from rrg.shards.ledger import Place
from rrg.shards.reader import ShardSet
from rrg.system import System, open_split
from tests.damage import damaged_copy
from tests.patients import COURSE, sources, study_id, word, write, write_patients

PROMPT = "language.prompt='before : {prior} {image} report :'"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_patients(tmp_path_factory.mktemp("patients"))


def build(shards, *overrides):
    words = [f"data.shards={shards}", "data.workers=0", "data.prior=films", "language.min_count=1", *overrides]
    recipe = load_recipe("tiny/r2gengpt_iu", words).value
    return System.build(recipe, None, open_split(recipe, "train"))


def films_of(system, split="train"):
    return system.films(open_split(system.recipe, split))


def batch_of(system, *indices, split="train"):
    share = SplitFeed(films_of(system, split), system.tokeniser, [list(indices)])[0]
    assert share.error is None and not share.damaged
    return share.batches[0]


def decoded(system, ids):
    return system.model.language.tokenizer.decode(ids)


def test_films_of_the_prior_are_further_views_with_their_kinds_and_days(shards):
    system = build(shards, "data.views=ranked", "data.max_views=2")
    batch = batch_of(system, 0, 1, 2)
    assert batch.studies == [study_id(0, 0), study_id(0, 1), study_id(0, 2)]
    assert batch.view_mask.tolist() == [[True, True, False, False][:3], [True] * 3, [True] * 3]
    kinds = [[KINDS[kind] for kind in row] for row in batch.view_kinds.tolist()]
    assert kinds[0][:2] == ["PA", "lateral"]
    assert kinds[1] == ["AP", "PA", "lateral"]
    assert kinds[2] == ["lateral", "AP", "AP"], "LL before AP AXIAL in the ranking, then the prior's one film"
    assert batch.view_days.tolist() == [[0, 0, 0], [0, 0.25, 0.25], [0, 0, 40.0]]
    assert batch.own_mask.tolist() == [[True, True, False], [True, False, False], [True, True, False]]
    films = films_of(system)
    before = films.item(Place(0, 0, 0), system.tokeniser, augment=False).films
    assert torch.equal(batch.pixel_values[1, 1:], before), "the prior shows the films it would show itself"


def test_a_stitched_prior_is_a_second_picture(shards):
    batch = batch_of(build(shards, "data.stitch=true", "vision.resize=pad", "data.max_views=4"), 0, 2)
    assert batch.pixel_values.shape[1] == 2 and batch.view_mask.tolist() == [[True, False], [True, True]]
    assert batch.view_days.tolist() == [[0, 0], [0, 40.0]]


def test_priors_of_features_are_those_of_films(shards, tmp_path):
    cached = build(shards, f"vision.cache={tmp_path / 'features'}")
    plain = build(shards)
    split = open_split(cached.recipe, "train")
    cached.build_features(split, device=torch.device("cpu"))
    feed = SplitFeed(cached.films(split, cached.features(split)), cached.tokeniser, [[0, 1, 2]])
    ours, theirs = feed[0].batches[0], batch_of(plain, 0, 1, 2)
    for name in ("view_mask", "view_kinds", "view_days"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    encoded = plain.model.encode(theirs)
    torch.testing.assert_close(ours.features[ours.view_mask].float(), encoded[theirs.view_mask], atol=0.02, rtol=0.02)
    recipe = dataclasses.replace(cached.recipe.data, prior="none")
    alone = System(dataclasses.replace(cached.recipe, data=recipe), cached.model, cached.tokeniser, None)
    assert alone.features(split).get(1).shape[0] == 1, "the same cache serves a recipe without priors"


def test_prompts_hold_the_report_of_the_prior_and_never_the_own(shards):
    system = build(shards, "data.prior=none", PROMPT)
    films = films_of(system)
    for index in range(len(films.shards)):
        patient, number = divmod(index, len(COURSE))
        item = films.item(Place(0, index, 0), system.tokeniser, augment=False)
        prompt = decoded(system, item.tokens.before + item.tokens.after)
        report = decoded(system, item.tokens.report)
        own, before = word(patient, number), word(patient, number - 1) if number else None
        assert own in report and own not in prompt
        assert number == 0 or (before in prompt and before not in report)
        assert prompt.count("mark") == (number > 0), "of no other study either"
        assert ("clear . <unk> before ." in prompt) == (number > 0), "findings and impression"
        assert item.films.shape[0] <= 2 and not any(item.days), "the films of the prior were not asked for"
    assert system.tokeniser.blank_prompt()[0] == films.item(Place(0, 0, 0), system.tokeniser, augment=False).tokens.before
    longest = batches_by_prompt(films, system.tokeniser, range(6), 2)
    assert sorted(index for batch in longest for index in batch) == list(range(6)) and set(longest[-1]) == {0, 3}, (
        "first studies have the shortest prompts"
    )


def test_a_study_is_not_its_own_prior(shards):
    system = build(shards, PROMPT)
    study = films_of(system).shards.study(1)
    with pytest.raises(ValueError, match="own prior"):
        system.tokeniser(study, study)


@pytest.fixture(scope="module")
def split(shards):
    return ShardSet(shards, "train")


def test_links_that_cannot_be_true_are_refused(split):
    study = split.study(4)
    assert Priors(split).find(study) == 3 and Priors(split).find(split.study(3)) is None
    for change, said in (
        ({"prior": study.id}, "not an earlier study"),
        ({"prior_days": -1.0}, "not an earlier study"),
        ({"prior": study_id(0, 0)}, "of another patient"),
        ({"prior": study_id(6, 0)}, "is in val"),
        ({"prior": study_id(8, 1)}, "is in test"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            Priors(split).find(dataclasses.replace(study, **change))
        assert study.id in str(caught.value) and "prepare the shards again" in str(caught.value)
    mixed = copy.copy(split)
    mixed.manifest = dataclasses.replace(split.manifest, patients_disjoint=False)
    with pytest.raises(UserError, match=r"patients are in several splits.*data\.prior=none"):
        Priors(mixed)


def test_days(split):
    assert days_since(split.study(1)) == 0.25
    assert days_since(dataclasses.replace(split.study(1), prior_days=None)) == float("inf")
    assert days_since(dataclasses.replace(split.study(1), prior_days=0.0)) > 0


@pytest.fixture(scope="module")
def gap(tmp_path_factory):
    """Shards that lack the first study of patient 0: its second names a prior that is nowhere."""
    root = tmp_path_factory.mktemp("gap")
    return write(root / "shards", [source for source in sources(root) if source.study.id != study_id(0, 0)])


def test_a_prior_that_the_shards_lack_is_counted(gap):
    system = build(gap, PROMPT)
    films = films_of(system)
    first, third = (films.item(Place(0, index, 0), system.tokeniser, augment=False) for index in (0, 2))
    assert first.study == study_id(0, 1) and first.prior_absent and not any(first.days)
    assert third.study == study_id(1, 0) and not third.prior_absent, "a first study has no prior to lack"
    assert batch_of(system, 0, 1, 2, 3).priors_absent == 1
    assert films.prior_of(films.shards.study(0), system.tokeniser) is None
    assert films.prior_of(films.shards.study(1), system.tokeniser) == study_id(0, 1)
    assert batch_of(build(gap, "data.prior=none"), 0, 1).priors_absent == 0


def test_a_damaged_prior_is_the_loss_of_the_study_that_it_was_for(shards, tmp_path):
    lost = study_id(0, 1)
    damaged = damaged_copy(shards, tmp_path / "shards", f"{lost}.0.jpg")
    system = build(damaged)
    share = SplitFeed(films_of(system), system.tokeniser, [[0, 1, 2, 3]])[0]
    assert share.batches[0].studies == [study_id(0, 0), study_id(1, 0)]
    assert [(d.study, d.member) for d in share.damaged] == [(lost, f"{lost}.0.jpg"), (study_id(0, 2), f"{lost}.0.jpg")]
    reports = build(damaged, "data.prior=none", PROMPT)
    share = SplitFeed(films_of(reports), reports.tokeniser, [[0, 1, 2]])[0]
    assert [d.study for d in share.damaged] == [lost], "the report of that prior can be read"


def test_films_of_the_prior_are_augmented_on_their_own(shards):
    system = build(shards, "augment.kind=affine")
    films = films_of(system)

    def item(place, augment=True):
        return films.item(place, system.tokeniser, augment=augment)

    one = item(Place(0, 1, 0))
    assert torch.equal(one.films, item(Place(0, 1, 0)).films)
    for other in (Place(1, 1, 0), Place(0, 1, 1)):
        assert not torch.equal(one.films[1:], item(other).films[1:])
    assert not torch.equal(one.films[1:], item(Place(0, 0, 0)).films), "not the same turn as where it is itself the study"
    assert torch.equal(item(Place(0, 1, 0), False).films[1:], item(Place(0, 0, 0), False).films)


def test_controls_show_the_donors_prior_and_the_studys_own_text(shards):
    system = build(shards, PROMPT)
    films = films_of(system)
    shuffled, blank = substituted(films, "shuffled", 7), substituted(films, "blank", 0)
    for index in range(6):
        got, own, donor = (
            source.item(Place(0, place, 0), system.tokeniser, augment=False)
            for source, place in ((shuffled, index), (films, index), (films, shuffled._donor[index]))
        )
        assert (got.study, got.tokens) == (own.study, own.tokens)
        assert torch.equal(got.films, donor.films) and (got.kinds, got.days) == (donor.kinds, donor.days)
        none = blank.item(Place(0, index, 0), system.tokeniser, augment=False)
        assert not none.films.any() and (none.tokens, none.days) == (own.tokens, own.days)


def test_the_observation_head_looks_at_the_study_itself(shards):
    system = build(shards, "objectives.observations.kind=observations")
    batch = batch_of(system, 1, 2)
    tokens = system.model.encode(batch).detach().requires_grad_()
    head = system.model.objectives["observations"]
    head.logits(tokens, batch.own_mask).sum().backward()
    assert (tokens.grad.flatten(2).any(-1) == batch.own_mask).all()
    system.model.train()
    loss, _ = system.model(batch)["observations"]
    alone = build(shards, "objectives.observations.kind=observations", "data.prior=none")
    alone.model.objectives["observations"].load_state_dict(head.state_dict())
    alone.model.vision.load_state_dict(system.model.vision.state_dict())
    torch.testing.assert_close(loss, alone.model(batch_of(alone, 1, 2))["observations"][0], rtol=1e-5, atol=1e-5)


def test_text_only_stages_read_no_films_of_priors(shards):
    overrides = ("vision.kind=none", "connector.kind=words", "language.train=full", "train.validate_reports=false")
    batch = batch_of(build(shards, *overrides, PROMPT), 0, 1)
    assert batch.pixel_values is None and batch.view_kinds.shape == (2, 0) == batch.view_days.shape
