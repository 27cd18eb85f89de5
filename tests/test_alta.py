"""ALTA as a recipe (spec alta §11): counts, what is trained, leaks between the towers, runs, resume, commands, benchmarks."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from rrg.batching.feed import SplitFeed, StepFeed
from rrg.config.context import BuildContext
from rrg.config.explain import told
from rrg.data.study import View
from rrg.model import build_model
from rrg.objectives.scale import MOST
from rrg.recipe import load_recipe
from rrg.shards.ledger import Ledger
from rrg.system import System, open_split
from rrg.train.benchmarks import clean_impression
from tests.batching.test_stitching import sample
from tests.patients import write_patients
from tests.processes import ROOT, events, run
from tests.refusal import refused

TINY = ["data.section=findings", "score.protocol=r2gen_iu", "data.workers=0", "train.threads=1"]
STEPS = 8


def words(shards, output, *more):
    length = f"train.max_steps={STEPS}"
    return [
        "train",
        "tiny/alta_mimic",
        f"data.shards={shards}",
        f"output={output}",
        *TINY,
        length,
        "train.checkpoint_every=4",
        *more,
    ]


@pytest.fixture(scope="module")
def linked(tmp_path_factory):
    """Patients with priors, frontal and lateral films."""
    return write_patients(tmp_path_factory.mktemp("linked"))


@pytest.fixture(scope="module")
def whole(drawn_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alta")
    run(words(drawn_shards, folder / "run", "train.validate_every=1.5"), folder / "log")
    return folder / "run"


@pytest.fixture(scope="module")
def built(drawn_shards):
    recipe = load_recipe("tiny/alta_mimic", [f"data.shards={drawn_shards}", *TINY]).value
    return System.build(recipe, None, open_split(recipe, "train"))


def batch_of(system, indices=(0, 1, 2, 3)):
    share = SplitFeed(system.films(open_split(system.recipe, "train")), system.tokeniser, [list(indices)])[0]
    assert share.error is None and not share.damaged
    return share.batches[0]


# -- the published system ----------------------------------------------------------------------------------------------------


def test_trained_parameters_at_published_sizes_without_any_file():
    recipe = load_recipe("alta_mimic").value
    model = build_model(recipe, BuildContext(meta=True))
    named = {name: p.numel() for name, p in model.named_parameters()}
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}

    def group(*parts, of=trained, without=()):
        return sum(n for name, n in of.items() if all(p in name for p in parts) and not any(w in name for w in without))

    assert group("vision.", ".adapter.") == group("language.", ".adapter.") == 7_100_928 == 24 * 295_872
    assert group("vision.", "norm", without=["decoder"]) == 38_400 and group("vision.decoder", "norm") == 13_824
    assert group("connector.image") + group("connector.patches") == group("connector.text") + group("connector.words") == 230_400
    assert group("objectives.") == 4 and group("cls_token") + group("mask_token") == 1_536
    assert group("temporal_embedding") + group("view_embedding") == 3_072
    assert group("decoder_embed") == 590_592 and group("decoder_pred") == 2_362_368
    assert group("language.model", "LayerNorm") == 38_400 and group("word_head") == 622_650
    assert sum(trained.values()) == 18_333_502 and sum(named.values()) == 242_177_854
    assert not [name for name in ("missing_token", "image_input", "word_embeddings", "pos_embed") if group(name)]
    assert group("vision.decoder", of=named) == 31_458_048
    intent = load_recipe("alta_mimic", ["language.image_input=full", "vision.missing=learned"]).value
    count = sum(p.numel() for p in build_model(intent, BuildContext(meta=True)).parameters() if p.requires_grad)
    assert count == 18_333_502 + 590_592 + 196 * 768


def test_published_settings():
    recipe = load_recipe("alta_mimic").value
    train, augment = recipe.train, recipe.augment
    assert (train.lr, train.batch_size, train.weight_decay, train.betas) == (1.5e-4 * 96 / 256, 96, 0.05, [0.9, 0.95])
    assert (train.epochs, train.schedule.warmup_epochs, train.schedule.span_epochs) == (30, 10, 100) and not train.decay_vectors
    assert (augment.rotation, augment.translate, augment.scale, augment.shear) == (20, 0.1, 0.05, 10) and augment.pair_prior
    assert (augment.brightness, augment.contrast, augment.flip) == (0.2, 0.2, 0)
    assert recipe.data.prior == "films" and recipe.data.views == "frontal_lateral" and recipe.language.masked == 0.5
    assert {name: options.weight for name, options in recipe.objectives.items()} == dict.fromkeys(
        ("contrast", "local_contrast", "masked_image", "masked_words"), 1.0
    )


def test_recipes_differ_by_less_than_a_screen():
    names = sorted(file.stem for file in (ROOT / "configs" / "recipes").glob("*.yaml"))
    loaded = {name: load_recipe(f"recipes/{name}").value for name in names}
    for left, right in itertools.product(["alta_mimic"], names):
        assert left == right or 0 < len(told(loaded[left], loaded[right])) <= 60, (left, right)


# -- what is trained, and what reaches what ----------------------------------------------------------------------------------


def test_gradients_reach_what_is_trained_and_frozen_tensors_keep_their_bits(built):
    model = built.model.train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(value for value, _ in model(batch_of(built)).values()).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad or torch.equal(parameter, before[name]), name
        moves = parameter.requires_grad and not torch.equal(parameter, before[name])
        assert moves == parameter.requires_grad, name
    model.load_state_dict(before)


def test_the_unmasked_report_sees_no_image(built):
    model, batch = built.model.eval(), batch_of(built)
    with torch.no_grad():
        one = model.pairs(batch)
        batch.pixel_values = batch.pixel_values.flip(0)
        other = model.pairs(batch)
    assert torch.equal(one.text, other.text) and torch.equal(one.words, other.words)
    assert not torch.allclose(one.image, other.image) and not torch.allclose(one.logits, other.logits)
    assert len(one.labels) == int(batch.masked.sum()) and not (batch.masked & ~batch.report_mask).any()
    assert one.patches.shape[1] == 4 * 4 and one.hidden.shape == (4, 16), "four streams of four kept patches of sixteen"


def test_what_the_loader_would_have_held_does_not_matter(built):
    model, batch = built.model.eval(), batch_of(built)
    assert not batch.view_mask.all()
    with torch.no_grad():
        one = model.pairs(batch)
        batch.pixel_values[~batch.view_mask] = 3.0
        other = model.pairs(batch)
    for left, right in zip(one, other, strict=True):
        assert (left is None and right is None) or torch.equal(left, right)


def test_priors_come_with_their_films_and_change_alike(linked):
    recipe = load_recipe("tiny/alta_mimic", [f"data.shards={linked}", *TINY]).value
    system = System.build(recipe, None, open_split(recipe, "train"))
    shards = open_split(recipe, "train")
    feed = StepFeed(
        system.films(shards),
        system.tokeniser,
        Ledger(shards.shard_sizes, 1, 64),
        batch_size=len(shards),
        micro_batch=len(shards),
        rank=0,
        world=1,
        section="findings",
    )
    first, later = feed[0].batches[0], feed[1].batches[0]
    assert (first.view_days > 0).any() and first.view_mask.shape[1] == 3
    by_study = {study: row for row, study in enumerate(later.studies)}
    rows = [by_study[study] for study in first.studies]
    assert not torch.equal(first.draws, later.draws[rows]), "every epoch draws anew"
    again = feed[0].batches[0]
    assert torch.equal(first.draws, again.draws) and torch.equal(first.masked, again.masked)
    assert torch.equal(first.report_ids, again.report_ids) and torch.equal(first.pixel_values, again.pixel_values)
    assert not torch.equal(first.report_ids, later.report_ids[rows][:, : first.report_ids.shape[1]]), (
        "sentences are shuffled anew"
    )
    films = system.films(shards)
    assert films._augmentation.pair_prior
    with torch.no_grad():
        assert all(math.isfinite(float(value)) for value, _ in system.model(first).values())


def test_a_prior_is_changed_by_the_draws_of_its_study():
    """One film in both places comes out the same; frontal and lateral films differ."""
    from rrg.batching.film_policy import FilmPolicy
    from rrg.batching.images import Augmentation, Preprocessing
    from rrg.batching.pictures import prepare_pictures

    augmentation = Augmentation("affine", rotation=20, shear=10, brightness=0.2, pair_prior=True)
    shown = sample((64, 64), (64, 64), words=["PA", "LATERAL"])
    views = tuple(View(f"{n}.jpg", word) for n, word in enumerate(("LATERAL", "PA")))
    prior = dataclasses.replace(shown, study=dataclasses.replace(shown.study, views=views), images=shown.images[::-1])
    draws = {"seed": 1, "epoch": 2, "key": "a"}

    def prepared(of, **more):
        return prepare_pictures(of, "t", FilmPolicy("frontal_lateral"), Preprocessing(32), augmentation, **draws, **more)

    assert torch.equal(prepared(shown, paired=True), prepared(prior, paired=True))
    assert not torch.equal(prepared(shown), prepared(prior)), "by the number of the film they would differ"


# -- runs --------------------------------------------------------------------------------------------------------------------


def test_the_losses_are_those_of_the_record(whole):
    """`tests/golden/tiny_alta.json`: the first losses as they were when it was written. A change that means to move them writes
    them anew; no other may."""
    golden = json.loads((ROOT / "tests" / "golden" / "tiny_alta.json").read_text())
    found = {step: event["objectives"] for step, event in events(whole).items()}
    for name, losses in golden.items():
        assert [found[step][name] for step in sorted(found)] == pytest.approx(losses, rel=1e-3, abs=1e-3), name


def test_a_run_learns_validates_and_keeps_its_scales_in_bounds(whole):
    steps, found = events(whole), events(whole, "validation")
    assert sorted(steps) == list(range(1, STEPS + 1)) and found
    assert {"loss", "loss.contrast", "image_to_text_r1", "text_to_image_r10_equal"} <= set(found[max(found)]["metrics"])
    tensors = load_file(whole / "checkpoints" / f"step_{STEPS:08d}" / "trainable.safetensors")
    scales = [tensor for name, tensor in tensors.items() if name.endswith(".log")]
    assert len(scales) == 4 and all(0 <= float(scale) <= MOST for scale in scales)
    assert not any("word_embeddings" in name or "missing_token" in name for name in tensors)


def test_a_resumed_run_is_the_run_that_was_not_stopped(whole, drawn_shards, tmp_path):
    import shutil

    target = tmp_path / "run"
    shutil.copytree(whole, target)
    for leftover in ("done.json",):
        (target / leftover).unlink()
    shutil.rmtree(target / "checkpoints" / f"step_{STEPS:08d}")
    kept = sorted((target / "checkpoints").iterdir())[-1].name
    assert kept < f"step_{STEPS:08d}"
    run(words(drawn_shards, target, "train.validate_every=1.5"), tmp_path / "log")
    for name in ("trainable", "optimizer"):
        one, two = (load_file(r / "checkpoints" / f"step_{STEPS:08d}" / f"{name}.safetensors") for r in (whole, target))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_processes_train_as_one(drawn_shards, tmp_path):
    """Masks, words and order are drawn by the study: features gathered over two ranks give the losses of one."""
    from tests.strategy.ranks import train_on

    exact = ("language.dropout=0", "train.eps=1e-4", "train.validate_every=0", "objectives.local_contrast.chunk=400")
    one = words(drawn_shards, tmp_path / "one", *exact)
    two = words(drawn_shards, tmp_path / "two", *exact, "train.micro_batch_size=4")
    train_on(1, one[1:], tmp_path / "log")
    train_on(2, two[1:], tmp_path / "log")
    left, right = events(tmp_path / "one"), events(tmp_path / "two")
    assert left[1]["objectives"] == pytest.approx(right[1]["objectives"], rel=1e-5, abs=1e-5)
    for step in left:
        assert left[step]["objectives"] == pytest.approx(right[step]["objectives"], rel=1e-3, abs=1e-3)
    ours, theirs = (
        load_file(tmp_path / name / "checkpoints" / f"step_{STEPS:08d}" / "trainable.safetensors") for name in ("one", "two")
    )
    for name, tensor in ours.items():
        assert theirs[name].sub(tensor).abs().max() < 2e-3, name


# -- commands ----------------------------------------------------------------------------------------------------------------


def test_retrieve_and_zeroshot_write_scores(whole, tmp_path):
    run(["retrieve", whole, "--split", "test", "--baseline", "--bootstrap", "40"], tmp_path / "log")
    record = json.loads((whole / "scores" / "test.retrieval.json").read_text())
    assert record["studies"] == 6 and record["interval"]["resamples"] == 40 and record["made"]["step"] <= STEPS
    assert {"image_to_text_r1", "text_to_image_r10_equal", "image_to_text_p5_findings"} <= set(record["metrics"])
    assert record["chance"]["image_to_text_r1"] == pytest.approx(1 / 6) and record["baseline"]["train"] == 24
    assert set(record["metrics"]) == set(record["baseline"]["metrics"]) == set(record["chance"])
    prompts = tmp_path / "p.yaml"
    prompts.write_text("observations: {Cardiomegaly: {positive: [The heart is enlarged.], negative: [The heart is normal.]}}")
    run(["zeroshot", whole, "--split", "test", "--prompts", prompts, "--bootstrap", "40"], tmp_path / "log")
    record = json.loads((whole / "scores" / "test.zeroshot.json").read_text())
    row = record["observations"]["Cardiomegaly"]
    assert row["positive"] + row["negative"] + row["uncertain"] == 6 and 0 <= row["auc"]["value"] <= 1
    assert row["auc"]["interval"][0] <= row["auc"]["value"] <= row["auc"]["interval"][1] and record["labels"]["version"]


def test_labels_of_test_studies_come_from_retrieved_training_reports(whole, drawn_shards, tmp_path):
    labels = tmp_path / "near.jsonl"
    source = ["prepare", "labels", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", "--from", "retrieved"]
    run([*source, "--vectors", whole, "--out", labels], tmp_path / "log")
    head, *lines = [json.loads(line) for line in labels.read_text().splitlines()]
    assert head["source"] == "retrieved" and head["features"].startswith("aligned:")
    recipe = load_recipe("tiny/r2gengpt_iu", [f"data.shards={drawn_shards}"]).value
    train = set(open_split(recipe, "train").ids)
    assert {line["split"] for line in lines} == {"train", "val", "test"}
    for line in lines:
        near = [neighbour["study"] for neighbour in line["neighbours"]]
        assert set(near) <= train and line["study"] not in near
    assert "--vectors: compares films for --from retrieved" in refused(
        [*source[:-1], "image", "--vectors", whole, "--out", labels], tmp_path
    )


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 36), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def table(path, columns, rows):
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


EIGHT = ("No Finding", "Cardiomegaly", "Edema", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Fracture")
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def test_the_benchmarks_of_films_and_texts(whole, films, tmp_path):
    candidates = table(
        tmp_path / "c.csv", ("Path", *EIGHT), [(f"{n}.png", *(int(n % 8 == c) for c in range(8))) for n in range(40)]
    )
    queries = table(tmp_path / "q.csv", ("Path", "Variable", "Text"), [(f"{n}.png", EIGHT[n], "the heart") for n in range(8)])
    five = table(
        tmp_path / "five.csv",
        ("Path", *FIVE, "Report Impression"),
        [(f"{n}.png", *(int(n % 5 == c) for c in range(5)), f"1. The heart is large {n}. Clear.") for n in range(40)],
    )
    rsna = table(tmp_path / "r.csv", ("path", "label"), [(f"{n}.png", int(n % 3 == 0)) for n in range(40)])
    (tmp_path / "phrases.txt").write_text("\n".join(f"phrase {n}" for n in range(15)))
    base = ["retrieve", whole, "--images", films, "--bootstrap", "20", "--json", tmp_path / "o.json"]
    for name, lists, cutoff in (
        ("chexpert_8x200_image", ("--queries", queries, "--candidates", candidates), "p50"),
        ("chexpert_8x200_text", ("--queries", queries, "--candidates", candidates), "p10"),
        ("chexpert_5x200_text", ("--candidates", five), "p100"),
    ):
        run([*base, "--protocol", name, *lists], tmp_path / "log")
        record = json.loads((tmp_path / "o.json").read_text())
        assert record["protocol"]["name"] == name and 0 <= record["metrics"][cutoff]["value"] <= 1
        assert record["metrics"][cutoff]["count"] == (40 if "5x200" in name else 8)
    zero = ["zeroshot", whole, "--images", films, "--bootstrap", "20", "--json", tmp_path / "o.json"]
    run([*zero, "--protocol", "rsna_pneumonia", "--films", rsna], tmp_path / "log")
    record = json.loads((tmp_path / "o.json").read_text())
    assert set(record["metrics"]) == {"auc", "accuracy", "f1"} and record["positive"] == 14
    run(
        [*zero, "--protocol", "chexpert_5x200", "--films", five, "--phrases", f"Cardiomegaly={tmp_path / 'phrases.txt'}"],
        tmp_path / "log",
    )
    record = json.loads((tmp_path / "o.json").read_text())
    assert list(record["prompt_counts"].values()) == [210, 15, 192, 18, 54] and 0 <= record["metrics"]["accuracy"] <= 1


def test_impressions_are_cleaned_as_gloria_cleans_them():
    assert (
        clean_impression("1. No acute\ndisease. 2. STABLE nodule, calcified.  Ok. 3.")
        == "no acute disease stable nodule calcified"
    )
    assert clean_impression("") == ""


# -- mistakes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["objectives.report={kind: report}"], "objectives.report: a text tower writes no report; write report: null"),
        (
            ["vision={kind: dinov2, name: random:tiny-dinov2, architecture: {}}"],
            "masked_image needs the image decoder of vision.kind: mrm",
        ),
        (["strategy=zero3"], "strategy: zero3 spreads the weights of a language model; two towers run with ddp or zero2"),
        (["train.validate_reports=true"], "train.validate_reports: a text tower writes none"),
        (["data.views=stored"], "data.views: vision.kind mrm has a place for one frontal and one lateral film"),
        (["train.select={bleu_4: 1}"], "train.select.bleu_4: not computed in validation"),
        (["vision.mask_ratio=1"], "vision.mask_ratio: 1.0 is not below 1"),
        (["vision.architecture.heads=3"], "multiple of its 3 heads"),
        (["language.architecture={hidden_sizes: 3}"], "language.architecture has no 'hidden_sizes' for a BERT; did you mean"),
    ],
)
def test_settings_that_do_not_fit(drawn_shards, tmp_path, overrides, says):
    assert says in refused(words(drawn_shards, "run", *overrides), tmp_path)
    assert not (tmp_path / "run").exists()


def test_commands_refuse_what_they_cannot_do(whole, films, tmp_path):
    missing = table(tmp_path / "m.csv", ("Path", *EIGHT), [("nothing.png", 1, *[0] * 7)])
    two = table(tmp_path / "two.csv", ("Path", *EIGHT), [("0.png", 1, 1, *[0] * 6)])
    query = table(tmp_path / "q.csv", ("Path", "Variable"), [("0.png", "Edema")])
    odd = table(tmp_path / "odd.csv", ("Path", "Variable"), [("0.png", "Oedema")])
    eight = ["retrieve", whole, "--images", films, "--protocol", "chexpert_8x200_image", "--queries"]
    cases = [
        (["generate", whole], "two towers write no reports; use rrg retrieve or rrg zeroshot"),
        (["retrieve", tmp_path], "no run directory"),
        (["retrieve", whole, "--at", "0"], "--at '0': write whole numbers above 0"),
        (["retrieve", whole, "--protocol", "chexpert"], "did you mean 'chexpert_"),
        (["retrieve", whole, "--protocol", "chexpert_8x200_image"], "needs --queries"),
        ([*eight, query, "--candidates", missing], "nothing.png: cannot be read"),
        ([*eight, query, "--candidates", two], "2 of the columns"),
        ([*eight, odd, "--candidates", missing], "Variable 'Oedema' is none of"),
        ([*eight, query, "--candidates", query], "has no column 'No Finding'"),
        (["retrieve", whole, "--checkpoint", "999"], "no checkpoint '999'"),
        (["zeroshot", whole, "--prompts", "nothing.yaml"], "nothing.yaml: No such file"),
        (
            ["zeroshot", whole, "--prompts", "chexpert_5x200"],
            "15 phrases of Cardiomegaly are part of a benchmark and not shipped",
        ),
        (["zeroshot", whole, "--protocol", "rsna_pneumonia"], "needs --films"),
        (["zeroshot", whole, "--labels", "nothing.csv"], "--labels nothing.csv: no such file"),
        (["export", whole, "--out", "e"], "two towers"),
    ]
    for arguments, says in cases:
        assert says in refused(arguments, tmp_path, talks=True), arguments
