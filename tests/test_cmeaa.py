"""CmEAA as a recipe (spec cmeaa §6, §8, §9): what is trained, what may be seen, and that no report reaches the prefix."""

import copy
import dataclasses
import json

import pytest
import torch

from rrg.batching.batch import Prefix
from rrg.batching.feed import SplitFeed, StepFeed, shares
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError
from rrg.generate.films import substituted
from rrg.language.decoding import Decoding
from rrg.model import build_model
from rrg.recipe import load_recipe
from rrg.shards.ledger import Ledger, Place
from rrg.system import System, open_split
from tests.ngram_inputs import LISTS, label_file, ngram_overrides, other_report, rewritten, write_table
from tests.patients import write_patients

PUBLISHED = 36_960_523
GREEDY = Decoding(num_beams=1, repetition_penalty=1.0, length_penalty=1.0, min_new_tokens=4, max_new_tokens=6)


@pytest.fixture(scope="module")
def inputs(drawn_shards, tmp_path_factory):
    return ngram_overrides(tmp_path_factory.mktemp("inputs"), drawn_shards)


def system(overrides, *more):
    recipe = load_recipe("tiny/cmeaa_iu", [*overrides, "data.workers=0", *more]).value
    return System.build(recipe, None, open_split(recipe, "train"))


@pytest.fixture(scope="module")
def built(inputs):
    return system(inputs)


def batch_of(built, split="train", indices=(0, 1, 2, 3), films="own"):
    shards = open_split(built.recipe, split)
    share = SplitFeed(substituted(built.films(shards), films, 7), built.tokeniser, [list(indices)])[0]
    assert share.error is None and not share.damaged
    return share.batches[0]


def shown_by(built, shards):
    """The same system for other shards."""
    recipe = dataclasses.replace(built.recipe, data=dataclasses.replace(built.recipe.data, shards=str(shards)))
    return dataclasses.replace(built, recipe=recipe)


def ngrams_of(batch):
    return [ids[mask].tolist() for ids, mask in zip(batch.ngram_ids, batch.ngram_mask, strict=True)]


def total_loss(model, batch):
    return sum(model.objectives[name].weight * value for name, (value, _) in model(batch).items())


# -- sizes -------------------------------------------------------------------------------------------------------------------


def test_trained_parameters_at_published_sizes_without_any_file():
    recipe, other = (load_recipe(f"recipes/cmeaa_{name}").value for name in ("iu", "mimic"))
    assert (recipe.vision, recipe.connector, recipe.objectives) == (other.vision, other.connector, other.objectives)
    model = build_model(recipe, BuildContext(meta=True))
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == PUBLISHED
    assert all(name.startswith(("connector.", "objectives.mine.")) for name in trained)
    assert sum(p.numel() for p in model.language.parameters()) == 6_738_415_616
    assert all(p.device.type == "meta" for p in model.parameters())


def test_the_difference_to_r2gengpt_is_the_papers_contribution():
    from rrg.config.explain import differences

    left, right = (load_recipe(f"recipes/{name}").value for name in ("r2gengpt_iu", "cmeaa_iu"))
    rows = [row.key for row in differences(left, right) if row.key not in ("name", "output")]
    assert len(rows) < 40, "under a screen"
    parts = {".".join(key.split(".")[:2]) for key in rows if not key.startswith("connector.")}
    assert parts <= {
        *("observations.ngrams", "observations.train", "observations.heldout", "objectives.mine", "language.prompt"),
        *("train.batch_size", "train.epochs", "train.clip_norm_of"),
    }


def test_published_settings():
    iu, mimic = (load_recipe(f"recipes/cmeaa_{name}").value for name in ("iu", "mimic"))
    assert [(r.train.batch_size, r.train.lr, r.train.epochs) for r in (iu, mimic)] == [(8, 1e-4, 10), (6, 1e-5, 3)]
    assert [(r.language.max_report_tokens, r.generate.min_new_tokens, r.generate.max_new_tokens) for r in (iu, mimic)] == [
        (60, 40, 100),
        (100, 80, 120),
    ]
    for recipe in (iu, mimic):
        assert (recipe.vision.train, recipe.language.train, recipe.objectives["mine"].weight) == ("frozen", "frozen", 0.1)
        assert (recipe.generate.num_beams, recipe.generate.repetition_penalty, recipe.generate.length_penalty) == (3, 2.0, 2.0)
        assert recipe.language.prompt.startswith("Human: <Img>{image}</Img>, Generate") and recipe.data.section == "findings"
        assert recipe.observations.per_observation == 30 and recipe.observations.most == 128 and recipe.observations.denied


# -- n-grams in a batch ------------------------------------------------------------------------------------------------------


def test_batches_carry_the_n_grams_of_their_studies(built):
    batch = batch_of(built)
    texts = [[built.ngrams.table.ngrams[place] for place in row] for row in ngrams_of(batch)]
    assert texts[0] == LISTS["No Finding_True"] and texts[1] == LISTS["Pleural Effusion_True"]
    assert texts[2] == [*LISTS["Cardiomegaly_True"], *LISTS["Pleural Effusion_False"]]
    assert batch.ngram_ids.shape == (4, 4) and batch.ngram_mask.sum(1).tolist() == [3, 4, 4, 1]
    alone = batch_of(built, indices=(3,))
    assert alone.ngram_ids.shape == (1, 1), "K is the longest of the micro-batch"
    torch.testing.assert_close(built.model.eval().prefix(alone)[1].embeds[0], built.model.prefix(batch)[1].embeds[3])


def test_n_grams_do_not_depend_on_workers_or_on_the_step(built):
    recipe, shards = built.recipe, open_split(built.recipe, "train")
    arguments = {"batch_size": 8, "micro_batch": 4, "rank": 0, "world": 1, "section": recipe.data.section}
    ledger = Ledger(shards.shard_sizes, recipe.seed, recipe.data.window)
    feed = StepFeed(built.films(shards), built.tokeniser, ledger, **arguments)
    known = {}
    for workers in (0, 2):
        for share in shares(feed, range(6), workers=workers, prefetch=2):
            for batch in share.batches:
                for study, row in zip(batch.studies, ngrams_of(batch), strict=True):
                    assert known.setdefault(study, row) == row
    assert len(known) == 24


def test_a_micro_batch_without_any_n_gram_or_study(built, inputs, tmp_path):
    blank = built.films(open_split(built.recipe, "train")).blank(Tokens([5], [6], [], False))
    from rrg.batching.collate import collate

    for batch in (collate([blank, blank]), batch_of(built, films="blank")):
        assert batch.ngram_ids.shape == batch.ngram_mask.shape and batch.ngram_ids.shape[1] == 1 and not batch.ngram_mask.any()
        assert torch.isfinite(built.model.prefix(batch)[1].embeds).all()
        assert torch.isfinite(total_loss(built.model, batch))


def test_recipes_without_a_table_read_none(drawn_shards):
    recipe = load_recipe("tiny/r2gengpt_iu", [f"data.shards={drawn_shards}", "data.workers=0"]).value
    plain = System.build(recipe, None, open_split(recipe, "train"))
    batch = batch_of(plain)
    assert plain.ngrams is None and batch.ngram_ids is None and batch.ngram_mask is None


@pytest.mark.parametrize("films", ["own", "shuffled"])
def test_n_grams_follow_the_films_of_a_control(built, films):
    """Labels read from a film belong to it: a report written from another study's film gets that study's n-grams."""
    shards = open_split(built.recipe, "test")
    own = built.films(shards)
    shown = substituted(own, films, 7)
    for index in range(len(shards)):
        item = shown.item(Place(0, index, 0), built.tokeniser, augment=False)
        donor = index if films == "own" else shown._donor[index]
        assert item.ngrams == built.ngrams.ids(shards.study(donor)) and item.study == shards.ids[index]
        assert torch.equal(item.films, own.item(Place(0, donor, 0), built.tokeniser, augment=False).films)
    if films == "shuffled":
        assert any(built.ngrams.ids(shards.study(i)) != built.ngrams.ids(shards.study(d)) for i, d in shown._donor.items())


def test_n_grams_are_the_studys_own_where_its_prior_is_read_too(tmp_path):
    """Films of the prior are further views; what is labelled is the study."""
    shards = write_patients(tmp_path)
    prior = ["data.prior=films", "connector.views=concat", "connector.max_views=2"]
    named = ngram_overrides(tmp_path, shards)
    write_table(tmp_path / "ngrams.json", {"No Finding_True": ["lungs clear"], "Edema_True": ["heart", "interstitial edema"]})
    built = system(named, *prior)
    batch = batch_of(built, indices=(0, 1, 2))
    assert (batch.view_days > 0).any(1).tolist() == [False, True, True]
    assert [len(row) for row in ngrams_of(batch)] == [2, 1, 2], "the first and the last are of edema, the second is of none"
    assert torch.isfinite(total_loss(built.model, batch))


# -- leaks -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(drawn_shards, tmp_path_factory):
    """The drawn shards with the same films, and with other reports and stored labels of validation and test studies."""
    folder = tmp_path_factory.mktemp("other")
    return rewritten(drawn_shards, folder, lambda study: study if study.split == "train" else other_report(study))


def test_nothing_of_a_held_out_report_or_its_stored_labels_is_seen(built, other):
    changed = shown_by(built, other)
    built.model.eval()
    for split in ("val", "test"):
        before, after = batch_of(built, split), batch_of(changed, split)
        assert not torch.equal(before.labels, after.labels) and before.report_ids.tolist() != after.report_ids.tolist()
        assert torch.equal(before.pixel_values, after.pixel_values) and ngrams_of(before) == ngrams_of(after)
        prefixes = [built.model.prefix(batch)[1] for batch in (before, after)]
        assert torch.equal(prefixes[0].embeds, prefixes[1].embeds) and torch.equal(prefixes[0].code, prefixes[1].code)
        assert built.model.generate(before, GREEDY) == built.model.generate(after, GREEDY)


def test_in_training_the_report_changes_the_loss_and_not_the_prefix(inputs):
    built = system(inputs, "connector.dropout=0")
    model = built.model.train()
    batch = batch_of(built)
    other = copy.copy(batch)
    other.report_ids, other.report_mask = batch.report_ids.flip(0), batch.report_mask.flip(0)
    other.labels = torch.full_like(batch.labels, 1)
    first, second = (model.prefix(b)[1] for b in (batch, other))
    assert torch.equal(first.embeds, second.embeds) and torch.equal(first.code, second.code)
    values = []
    for each in (batch, other):
        torch.manual_seed(0)
        values.append({name: value.item() for name, (value, _) in model(each).items()})
    assert values[0]["mine"] != values[1]["mine"]


def test_training_labels_of_a_file_keep_the_own_report_out_of_the_prefix(drawn_shards, inputs, tmp_path):
    """With labels read from films in training too, nothing of the report is in the prefix of a training study either."""
    every = label_file(tmp_path / "every.jsonl", drawn_shards, ("train", "val", "test"))
    built = system(inputs, f"observations.train={every}", f"observations.heldout={every}")
    changed = shown_by(built, rewritten(drawn_shards, tmp_path / "changed", other_report))
    before, after = batch_of(built), batch_of(changed)
    assert before.report_ids.tolist() != after.report_ids.tolist() and ngrams_of(before) == ngrams_of(after)
    built.model.eval()
    assert torch.equal(*(built.model.prefix(batch)[1].embeds for batch in (before, after)))


def test_own_reports_are_refused_as_labels_of_held_out_studies(drawn_shards, inputs, tmp_path):
    own = label_file(tmp_path / "own.jsonl", drawn_shards, source="report")
    built = system(inputs, f"observations.heldout={own}")
    for split in ("val", "test"):
        with pytest.raises(UserError, match=r"observations\.heldout: .*own reports"):
            built.films(open_split(built.recipe, split))
    built.films(open_split(built.recipe, "train"))


# -- training ----------------------------------------------------------------------------------------------------------------


def test_gradients_reach_what_is_trained_and_nothing_else(inputs):
    built = system(inputs, "connector.dropout=0")
    model, batch = built.model.train(), batch_of(built)
    for parameter in model.connector.adapters.parameters():  # the up-projections start at zero, which hides the shared one
        torch.nn.init.normal_(parameter, std=0.1)
    report, mine = (model(batch)[name][0] for name in ("report", "mine"))
    report.backward(retain_graph=True)
    for name, parameter in model.named_parameters():
        reached = name.startswith("connector.")
        assert bool(parameter.grad is not None and parameter.grad.any()) == reached, name
    mine.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("objectives."):
            assert parameter.grad is not None and parameter.grad.any(), name
        elif not name.startswith("connector."):
            assert parameter.grad is None and not parameter.requires_grad, name
    assert not any(m.training for m in (*model.vision.modules(), *model.language.model.modules()))


def test_a_frozen_table_is_not_trained_and_not_in_a_checkpoint(built):
    from rrg.train.checkpoint import trainable_tensors

    held = trainable_tensors(built.model)
    assert {name.split(".")[0] for name in held} == {"connector", "objectives"}
    rows = len(built.ngrams.table.ngrams)
    width = built.model.language.width
    assert not any(tensor.shape == (rows, width) for tensor in held.values())


def test_generation_needs_no_objective(built):
    batch = batch_of(built, "test")
    texts = built.model.eval().generate(batch, GREEDY)
    objectives, built.model.objectives = built.model.objectives, torch.nn.ModuleDict()
    try:
        assert built.model.generate(batch, GREEDY) == texts
    finally:
        built.model.objectives = objectives


def test_n_grams_change_the_prefix(built):
    built.model.eval()
    batch = batch_of(built)
    first = built.model.prefix(batch)[1]
    batch.ngram_ids = batch.ngram_ids.flip(0)
    batch.ngram_mask = batch.ngram_mask.flip(0)
    second = built.model.prefix(batch)[1]
    assert not torch.allclose(first.embeds[0], second.embeds[0]) and torch.equal(first.code, second.code)
    assert isinstance(first, Prefix)


# -- recipes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides,said",
    [
        (["observations.ngrams=''"], "connector.enhance: needs n-grams; write observations.ngrams"),
        (["connector.enhance=false"], r"observations.ngrams: the connector \(cmeaa\) reads none"),
        (["connector.kind=linear", "objectives.mine=null"], r"observations.ngrams: the connector \(linear\) reads none"),
        (["connector.align=false"], "objectives.mine: needs connector.align"),
        (["observations.heldout=stored"], "'stored' reads the report that the model is to write"),
        (["observations.heldout=''"], "observations.heldout: empty"),
        (["vision={kind: none}", "connector={kind: words}", "train.validate_reports=false"], "objectives.mine: needs films"),
    ],
)
def test_settings_that_exclude_each_other(overrides, said):
    with pytest.raises(UserError, match=said):
        load_recipe("tiny/cmeaa_iu", overrides)


def test_a_text_only_stage_of_the_recipe_reads_no_n_grams(drawn_shards):
    """It needs neither the table nor labels of held-out studies: the files of this recipe do not exist here."""
    from rrg.stages import stage_recipe

    loaded = load_recipe("cpu/cmeaa_iu_small", [f"data.shards={drawn_shards}", "language.max_report_tokens=20"])
    stage = stage_recipe(loaded, "text").value
    assert loaded.value.reads_ngrams and not stage.reads_ngrams and set(stage.objectives) == {"report"}
    plain = stage_recipe(load_recipe("cpu/r2gengpt_iu_small", [f"data.shards={drawn_shards}"]), "text").value
    for part in ("vision", "connector", "language", "objectives", "data"):
        assert getattr(stage, part) == getattr(plain, part), part
    assert stage.train == plain.train, "the frozen language model is that of r2gengpt_iu_small"
    small = [f"language.{name}={value}" for name, value in (("hidden_size", 32), ("layers", 1), ("heads", 2))]
    overrides = [f"stages.text.{text}" for text in small]
    stage = stage_recipe(load_recipe("cpu/cmeaa_iu_small", [f"data.shards={drawn_shards}", *overrides]), "text").value
    text = System.build(stage, None, open_split(stage, "train"))
    batch = batch_of(text)
    assert text.ngrams is None and batch.ngram_ids is None and torch.isfinite(total_loss(text.model, batch))
    assert batch.labels.shape == (4, len(OBSERVATIONS))


def test_the_table_of_a_run_is_in_its_ids(built, tmp_path):
    """Ids mean the texts of the table in their order: what the connector embeds."""
    record = json.loads(json.dumps(list(built.ngrams.table.ngrams)))
    assert record == sorted(record) and len(record) == len({text for texts in LISTS.values() for text in texts})
