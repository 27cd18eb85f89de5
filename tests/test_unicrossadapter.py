"""UniCrossAdapter as a recipe (spec unicrossadapter §9): counts, what stays frozen, what may not leak, writing."""

import dataclasses
import itertools
import json

import pytest
import torch
from safetensors.torch import load_file

from rrg.batching.batch import Prefix
from rrg.batching.feed import SplitFeed
from rrg.config.context import BuildContext
from rrg.config.explain import told
from rrg.errors import UserError
from rrg.language.decoding import Decoding
from rrg.model import build_model
from rrg.recipe import load_recipe
from rrg.system import System, open_split
from rrg.train.optim import build_optimizer
from tests.processes import ROOT, Command, events, run

GREEDY = Decoding(num_beams=1, repetition_penalty=1.0, length_penalty=0.0, min_new_tokens=0, max_new_tokens=12)
DRAWN = ("connector.zero_up=false", "language.zero_up=false")


def system(shards, *overrides, recipe="tiny/unicrossadapter_iu", louder=True):
    """The tiny twin; its head and adapters far from their start, so that what reaches a word can be seen."""
    made = load_recipe(recipe, [f"data.shards={shards}", "data.workers=0", "augment.kind=none", *overrides]).value
    built = System.build(made, None, open_split(made, "train"))
    if louder:
        with torch.no_grad():
            for parameter in built.model.parameters():
                if parameter.requires_grad and parameter.dim() > 1:
                    parameter.mul_(3.0)
    return built


@pytest.fixture(scope="module")
def built(drawn_shards):
    return system(drawn_shards, *DRAWN)


@pytest.fixture(scope="module")
def leaking(drawn_shards):
    return system(drawn_shards, *DRAWN, "language.mode=release")


def batch_of(built, indices=(1, 2, 4, 5)):
    """Studies 0, 3, 6, … have one film, the others two."""
    split = open_split(built.recipe, "train")
    share = SplitFeed(built.films(split), built.tokeniser, [list(indices)])[0]
    assert share.error is None and not share.damaged
    return share.batches[0]


def trained(model):
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def log_probs(built, batch):
    """[B, L, words] of every word of the reports, as in training."""
    model = built.model.eval()
    with torch.no_grad():
        seen = shown_of(built, batch)
        return model.language.model.head(model.language.model.hidden(model.language.given(batch), seen)).log_softmax(-1)


def shown_of(built, batch):
    from rrg.language.word_decoder import shown

    return shown(built.model.prefix(batch)[1], batch)


# -- the published system ----------------------------------------------------------------------------------------------------


def test_trained_parameters_at_published_sizes_without_any_file():
    counts = {}
    for name in ("iu", "mimic"):
        model = build_model(load_recipe(f"recipes/unicrossadapter_{name}").value, BuildContext(meta=True))
        counts[name] = trained(model)
        assert not any(key.startswith("vision.") for key in counts[name]), "CLIP's film tower is frozen whole"
        assert sum(p.numel() for p in model.vision.parameters()) == 56_259_936

    def sum_of(which, *parts):
        return sum(n for key, n in counts[which].items() if any(part in key for part in parts))

    d = 64
    formula = 6 * (8 * d**2 + 8 * d + 2 * 128 * d + 128 + d + 6 * d) + 2 * (512 * 4 + 1024 + 2048 * 4) * d
    formula += 3 * (2 * 512 * d + d + 512) + 4 * 2 * d
    bridge = ("connector.bridge.", "stream.down", "stream.up", "stream.blocks", "stream.ladder")
    assert sum_of("iu", *bridge) == sum_of("mimic", *bridge) == formula == 1_942_080
    assert sum_of("iu", "bridge.blocks", "stream.blocks") == 6 * 50_240
    assert sum_of("iu", "bridge.down", "bridge.up") == 1_441_792 and sum_of("iu", "stream.down", "stream.up") == 198_336
    assert sum_of("iu", "connector.neck") == 11_556_352
    assert sum_of("iu", "places", "connector.positions") == 141_824
    assert sum_of("iu", "encoder.project", "encoder.enter", "encoder.cls") == 264_192
    assert sum_of("iu", "encoder.layers", "encoder.norm") == 9_458_176
    assert sum_of("mimic", "encoder.layers", "encoder.norm") == 18_915_328
    assert sum_of("iu", "language.model.decoder", "language.model.norm") == 12_613_120
    assert sum_of("mimic", "language.model.decoder", "language.model.norm") == 25_225_216
    assert sum_of("mimic", "language.model.head") == 2_230_524 == 513 * 4_348
    assert sum(counts["mimic"].values()) == 60_275_516
    assert sum(counts["iu"].values()) - sum_of("iu", "language.model.head") == 35_975_744
    beside = build_model(load_recipe("unicrossadapter_iu", ["connector.connect=true"]).value, BuildContext(meta=True))
    assert sum(trained(beside).values()) - sum(counts["iu"].values()) == 1_049_600


def test_published_settings():
    for name, epochs, decay, longest, layers, dropout in (("iu", 25, 5e-5, 59, 3, 0.09), ("mimic", 2, 4e-5, 77, 6, 0.1)):
        recipe = load_recipe(f"unicrossadapter_{name}").value
        train, words = recipe.train, recipe.language
        assert (train.optimizer, train.amsgrad, train.lr, train.clip_value, train.clip_norm) == ("adam", True, 1e-5, 0.1, 0)
        assert (train.batch_size, train.epochs, train.weight_decay, train.precision) == (16, epochs, decay, "fp32")
        assert train.schedule.kind == "constant" and recipe.seed == 42 and recipe.augment.flip == 0
        assert (words.max_report_tokens, words.layers, recipe.connector.layers) == (longest, layers, layers)
        assert words.dropout == recipe.connector.encoder_dropout == dropout and words.min_count == {"iu": 3, "mimic": 10}[name]
        assert train.select == {"bleu_4": 1.0, "bleu_1": 0.33}
        writing = recipe.generate
        assert (writing.num_beams, writing.length_penalty, writing.max_new_tokens) == (3, 0.0, longest - 1)
        assert recipe.augment.kind == "random_crop" and recipe.augment.resize == 256


def test_two_recipes_differ_by_less_than_a_screen():
    ours = load_recipe("recipes/unicrossadapter_iu").value
    for file in sorted((ROOT / "configs" / "recipes").glob("*.yaml")):
        if file.stem != "unicrossadapter_iu":
            assert 0 < len(told(ours, load_recipe(file).value)) <= 60, file.stem


def test_the_system_is_small():
    """Beyond parts that others may use: recipe and all, fewer than 400 lines."""
    files = ["rrg/connector/unicrossadapter.py", "rrg/connector/bridge.py", "rrg/connector/fusion_neck.py"]
    files += ["rrg/language/text_stream.py", "configs/base/unicrossadapter.yaml", "configs/recipes/unicrossadapter_iu.yaml"]
    assert sum(len((ROOT / file).read_text().splitlines()) for file in files) < 500
    code = [
        line
        for file in files
        for line in (ROOT / file).read_text().splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    assert len(code) < 400


# -- frozen, and equal to what it was ---------------------------------------------------------------------------------------


def test_clip_stays_bit_for_bit_but_for_its_positions(drawn_shards):
    built = system(drawn_shards, *DRAWN, louder=False)
    model = built.model.train()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = build_optimizer(model, built.recipe.train)
    for _ in range(2):
        sum(value for value, _ in model(batch_of(built)).values()).backward()
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing, "every trained parameter takes part: DDP would wait for it"
        assert all(p.grad is None for name, p in model.named_parameters() if name in frozen)
        optimizer.step()
        optimizer.zero_grad()
    after = model.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert not moved & frozen and not any(name.startswith("vision.") for name in moved), "statistics too"
    assert {"connector.positions.weight", "language.model.stream.tower.places.weight"} <= moved
    assert not any(".tower." in name for name in moved - {"language.model.stream.tower.places.weight"})
    assert not model.vision.training and not model.language.stream.tower.training and model.connector.training
    assert all(not module.training for module in model.vision.modules())


def test_with_paths_back_at_zero_both_towers_are_clips_own(drawn_shards):
    built = system(drawn_shards, louder=False)
    model, batch = built.model.eval(), batch_of(built)
    tower, stream = model.vision, model.language.stream
    with torch.no_grad():
        tokens = model.encode(batch)[batch.view_mask]
        seen = {}
        neck = model.connector.neck
        handle = neck.register_forward_hook(lambda module, inputs, output: seen.update(maps=inputs[0], sentence=inputs[1]))
        model.connector(model.encode(batch), batch)
        handle.remove()
        third = tower.advance(1, tokens)
        wanted = [tower.as_map(tokens), tower.as_map(third), tower.pool(tower.advance(2, third), None)]
        for ours, theirs in zip(seen["maps"], wanted, strict=True):
            torch.testing.assert_close(ours, theirs)
        ids = model.language.given(batch)
        x = stream.begin(ids)
        for layer in stream.tower.layers:
            x = layer(x)
        plain = stream.tower.end(x)
        maps = [torch.randn(len(ids), 16, 16) for _ in range(3)]
        torch.testing.assert_close(stream(ids, maps), plain)
        torch.testing.assert_close(seen["sentence"], stream.sentence(plain[:, 0])[:1].expand_as(seen["sentence"]))
    loud = system(drawn_shards, *DRAWN)
    assert not torch.allclose(loud.model.language.stream.eval()(ids, maps), plain, atol=1e-3)


# -- what may not leak -------------------------------------------------------------------------------------------------------


def later_words_reach_earlier_ones(built):
    batch = batch_of(built)
    L = batch.report_ids.shape[1]
    before, moved = log_probs(built, batch), []
    for place in (0, 3, L - 2):
        changed = dataclasses.replace(batch, report_ids=batch.report_ids.clone())
        changed.report_ids[:, place] = (
            changed.report_ids[:, place] % 20 + 3
        )  # word `place` of the report, known from place + 1 on
        after = log_probs(built, changed)
        moved.append(not torch.allclose(before[:, : place + 1], after[:, : place + 1], atol=1e-5))
        assert not torch.allclose(before[:, place + 1 :], after[:, place + 1 :], atol=1e-4), "and later ones know it"
    return any(moved)


def another_studys_film_reaches_this_one(built):
    batch = batch_of(built)
    before = log_probs(built, batch)
    changed = dataclasses.replace(batch, pixel_values=batch.pixel_values.clone())
    changed.pixel_values[1] += torch.randn_like(changed.pixel_values[1])
    after = log_probs(built, changed)
    assert not torch.allclose(before[1], after[1], atol=1e-4)
    return not torch.allclose(before[0], after[0], atol=1e-5)


def test_no_later_word_and_no_other_study_reaches_a_word(built):
    assert not later_words_reach_earlier_ones(built)
    assert not another_studys_film_reaches_this_one(built)


def test_the_release_leaks_both(leaking):
    """Not a wish: it documents what the published code does, and that the checks above can fail."""
    assert later_words_reach_earlier_ones(leaking)
    assert another_studys_film_reaches_this_one(leaking)
    batch = batch_of(leaking)
    with pytest.raises(UserError, match=r"language\.mode: release reads the report"):
        leaking.model.generate(batch, GREEDY)
    with pytest.raises(UserError, match="equally many"):
        leaking.model(batch_of(leaking, (0, 1)))


def test_absent_films_and_padding_have_no_influence(built):
    batch = batch_of(built, (0, 1, 3, 4))
    assert not batch.view_mask[0].all() and batch.report_mask.all(1).any() and not batch.report_mask.all()
    before = log_probs(built, batch)
    changed = dataclasses.replace(batch, pixel_values=batch.pixel_values.clone(), report_ids=batch.report_ids.clone())
    changed.pixel_values[~batch.view_mask] = torch.inf
    changed.report_ids[~batch.report_mask] = 7
    after = log_probs(built, changed)
    assert torch.equal(before[batch.report_mask], after[batch.report_mask])
    alone = log_probs(built, batch_of(built, (0,)))
    torch.testing.assert_close(alone[0], before[0, : alone.shape[1]], rtol=1e-4, atol=1e-4)


def test_tokens_masks_and_the_first_target(built):
    batch = batch_of(built, (0, 1, 3, 4))
    prefix = built.model.prefix(batch)[1]
    assert prefix.embeds.shape == (4, 1 + 2 * 16, 32) and prefix.maps.shape == (4, 3, 2, 16, 16)
    assert prefix.mask[:, 0].all() and prefix.mask[0].sum() == 17 and prefix.mask[1].all()
    given = built.model.language.given(batch)
    assert (given[:, 0] == 0).all() and torch.equal(given[:, 1:], batch.report_ids[:, :-1]), "position 0 is the start symbol"
    ids = batch.report_ids[1][batch.report_mask[1]].tolist()
    words = built.tokeniser.clean(open_split(built.recipe, "train").study(1)).split()
    assert built.tokeniser._tokenizer.convert_ids_to_tokens(ids) == [*words, "<end>"], (
        "the first target is word 1, the last the end"
    )
    output = built.model.language.loss(prefix, batch)
    rows = -log_probs(built, batch)[batch.report_mask].gather(1, batch.report_ids[batch.report_mask][:, None])[:, 0]
    built.model.eval()
    torch.testing.assert_close(built.model.language.loss(built.model.prefix(batch)[1], batch).nll, rows)
    assert output.tokens == int(batch.report_mask.sum())


# -- writing -----------------------------------------------------------------------------------------------------------------


def loud(built, indices):
    """(batch, prefix) of studies that a decoder at its start can tell apart."""
    batch = batch_of(built, indices)
    prefix = built.model.eval().prefix(batch)[1]
    factor = torch.tensor([[1.0, 9.0, -9.0, 30.0, -30.0, 3.0][index] for index in indices])
    return batch, dataclasses.replace(prefix, embeds=prefix.embeds * factor[:, None, None])


def test_greedy_and_beams_against_plain_passes_without_a_cache(built):
    from rrg.language.word_decoder import shown

    language = built.model.eval().language
    batch, prefix = loud(built, (0, 1, 3, 4))
    written = language.generate(prefix, batch, GREEDY)
    with torch.no_grad():
        ids = torch.zeros(4, 1, dtype=torch.long)
        for _ in range(GREEDY.max_new_tokens):
            hidden = language.model.hidden(ids, shown(prefix, batch))
            ids = torch.cat([ids, language.model.head(hidden[:, -1:]).argmax(-1)], 1)
    rows = [list(itertools.takewhile(bool, row)) for row in ids[:, 1:].tolist()]
    assert written == [" ".join(language.tokenizer.convert_ids_to_tokens(row)) for row in rows]
    beams = dataclasses.replace(GREEDY, num_beams=3)
    together = language.generate(prefix, batch, beams)
    assert len(set(written)) > 1 and len(set(together)) > 1
    for index, place in enumerate((0, 1, 3, 4)):
        alone, own = loud(built, (place,))
        assert language.generate(own, alone, GREEDY) == [written[index]]
        assert language.generate(own, alone, beams) == [together[index]], "beams see their own film"


def test_as_many_beams_as_words_find_the_largest_sum_of_log_probabilities(built):
    model, batch = built.model.eval(), batch_of(built, (0, 1))
    words = len(model.language.tokenizer)
    wide = dataclasses.replace(GREEDY, num_beams=words, max_new_tokens=2)
    written = model.generate(batch, wide)
    with torch.no_grad():
        seen = shown_of(built, batch)
        for study in range(2):
            own = {name: tensor[study : study + 1].expand(words, *tensor.shape[1:]) for name, tensor in seen.items()}
            start = torch.zeros(words, 1, dtype=torch.long)
            given = torch.cat([start, torch.arange(words)[:, None]], 1)
            scores = model.language.model.head(model.language.model.hidden(given, own)).log_softmax(-1)
            both = scores[:1, 0].T + scores[:, 1]  # [first, second]
            both[0] = -torch.inf
            both[0, 0] = scores[0, 0, 0]  # the end as the first word: nothing follows
            first, second = divmod(int(both.argmax()), words)
            best = model.language.tokenizer.convert_ids_to_tokens([i for i in (first, second) if i])
            assert written[study] == " ".join(best)


def test_guidance_is_the_formula_and_blind_studies_see_nothing(drawn_shards, built):
    model, batch = built.model.eval(), batch_of(built)
    guided = dataclasses.replace(GREEDY, guidance=2.5, guidance_plausibility=0.0, min_new_tokens=3)
    written = model.generate(batch, guided)
    from rrg.language.word_decoder import nothing_of

    with torch.no_grad():
        seen = shown_of(built, batch)
        blind = nothing_of(seen, torch.zeros(4, dtype=torch.bool))
        ids = torch.zeros(4, 1, dtype=torch.long)
        for step in range(guided.max_new_tokens):
            both = [model.language.model.head(model.language.model.hidden(ids, s)[:, -1]).log_softmax(-1) for s in (seen, blind)]
            both[0][:, 0] = -torch.inf if step < 3 else both[0][:, 0]
            scores = both[1] + 2.5 * (both[0] - both[1])
            ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], 1)
    rows = [list(itertools.takewhile(bool, row)) for row in ids[:, 1:].tolist()]
    assert written == [" ".join(model.language.tokenizer.convert_ids_to_tokens(row)) for row in rows]
    assert written != model.generate(batch, dataclasses.replace(guided, guidance=1.0))
    hidden = system(drawn_shards, *DRAWN, "language.blind=0.9", "connector.encoder_dropout=0", "connector.dropout=0")
    language = hidden.model.train().language
    torch.manual_seed(0)
    seen = shown_of(hidden, batch)
    kept = language._hidden_from_some(seen)
    assert 0 < sum(bool(row.any()) for row in kept["memory"]) < 4 or not any(bool(row.any()) for row in kept["memory"])
    assert language.eval()._hidden_from_some(seen) is seen


def test_refusals(drawn_shards, built):
    def refused(said, *overrides):
        with pytest.raises(UserError, match=said) as caught:
            system(drawn_shards, *overrides)
        assert "\n" not in str(caught.value)

    refused(r"language\.stages: \[3, 2, 1\]", "language.stages=[3,2,1]")
    refused(r"language\.prompt", "language.prompt='{image} findings:'")
    refused(r"language\.mode: 'both'", "language.mode=both")
    refused(r"language\.mix: .*holds no tokenizer", "language.mix=nowhere")
    refused(r"language\.max_report_tokens: 70, but the text tower has 64", "language.max_report_tokens=70")
    refused(r"vision\.kind", "vision={kind: resnet, name: random:tiny-resnet}")
    refused(r"connector\.norm: 'layer'", "connector.norm=layer")
    refused(r"vision\.train: 'full' is none of frozen", "vision.train=full")
    refused(r"language\.name: 'openai/RN101' is no file", "language.name=openai/RN101")
    refused(r"language\.blind: 1", "language.blind=1")
    refused("do not divide", "language.heads=5")
    with pytest.raises(UserError, match=r"generate\.max_new_tokens: 65, but the text tower has 64"):
        built.model.generate(batch_of(built), dataclasses.replace(GREEDY, max_new_tokens=65))
    with pytest.raises(UserError, match=r"language\.kind: word_decoder needs connector\.kind: unicrossadapter"):
        built.model.language.loss(Prefix(torch.zeros(4, 2, 32)), batch_of(built))
    with pytest.raises(UserError, match=r"vision\.cache: cached features and augment"):
        load_recipe("tiny/unicrossadapter_iu", ["vision.cache=auto"])


# -- runs --------------------------------------------------------------------------------------------------------------------

SHORT = ["data.workers=0", "train.threads=1", "train.validate_every=0", "train.checkpoint_every=2", "generate.num_beams=2"]


def test_killed_and_taken_up_a_run_ends_bit_for_bit_the_same_and_its_first_losses_are_as_they_were(drawn_shards, tmp_path):
    """Golden: `tests/golden/tiny_unicrossadapter_iu.json`, as when it was written. A change that means to move them writes them
    anew: the `loss` of the first steps of this run."""
    words = ["train", "tiny/unicrossadapter_iu", f"data.shards={drawn_shards}", *SHORT, "train.max_steps=8"]
    log = tmp_path / "log"
    run([*words, f"output={tmp_path / 'whole'}"], log)
    command = Command([*words, f"output={tmp_path / 'killed'}"], log)
    while command.process.is_alive() and max(events(tmp_path / "killed"), default=0) < 3:
        command.process.join(0.02)
    command.kill()
    run([*words, f"output={tmp_path / 'killed'}"], log)
    last = "checkpoints/step_00000008"
    for name in ("trainable.safetensors", "optimizer.safetensors", "state.json"):
        assert (tmp_path / "whole" / last / name).read_bytes() == (tmp_path / "killed" / last / name).read_bytes(), name
    kept = load_file(tmp_path / "whole" / last / "trainable.safetensors")
    assert not any(name.startswith("vision.") or "tower.layers" in name for name in kept), "CLIP is in no checkpoint"
    golden = json.loads((ROOT / "tests" / "golden" / "tiny_unicrossadapter_iu.json").read_text())
    found = events(tmp_path / "whole")
    assert [found[step]["loss"] for step in sorted(found)] == pytest.approx(golden["loss"], rel=2e-4)
    run(["generate", tmp_path / "whole", "--checkpoint", "last"], log)
    run(["export", tmp_path / "whole", "--checkpoint", "last", "--out", tmp_path / "export"], log)
    run(["generate", tmp_path / "export", "--out", tmp_path / "again.jsonl", f"data.shards={drawn_shards}"], log)
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "whole" / "predictions" / "test.jsonl").read_text()


def test_batch_norm_as_published_is_kept_in_checkpoints(drawn_shards, tmp_path):
    words = [
        "train",
        "tiny/unicrossadapter_iu",
        f"data.shards={drawn_shards}",
        *SHORT,
        "train.max_steps=2",
        "connector.norm=batch",
    ]
    run([*words, f"output={tmp_path / 'run'}"], tmp_path / "log")
    kept = load_file(tmp_path / "run" / "checkpoints" / "step_00000002" / "trainable.safetensors")
    assert sum(name.endswith("running_var") for name in kept) == 6


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_are_one(strategy, drawn_shards, tmp_path):
    from tests.strategy.ranks import train_on

    still = ["connector.dropout=0", "connector.encoder_dropout=0", "language.dropout=0", "language.adapter_dropout=0"]
    words = ["tiny/unicrossadapter_iu", f"data.shards={drawn_shards}", *SHORT, *still]
    words += ["train.max_steps=3", "train.micro_batch_size=4", "train.eps=1e-4", "train.clip_value=0.01"]
    train_on(1, [*words, f"output={tmp_path / 'one'}"], tmp_path / "log")
    words += [f"strategy={strategy}", "train.validate_every=1.0", "train.validate_studies=3", "generate.max_new_tokens=6"]
    train_on(2, [*words, f"output={tmp_path / 'two'}"], tmp_path / "log2")
    ours, theirs = events(tmp_path / "two"), events(tmp_path / "one")
    assert [ours[s]["loss"] for s in sorted(ours)] == pytest.approx([theirs[s]["loss"] for s in sorted(theirs)], abs=1e-5)
    held = [load_file(tmp_path / n / "checkpoints/step_00000003/trainable.safetensors") for n in ("one", "two")]
    assert held[0].keys() == held[1].keys()
    for name, tensor in held[0].items():
        torch.testing.assert_close(held[1][name], tensor, rtol=1e-3, atol=1e-4)
