"""Gla-AI4BioMed as a recipe (spec gla §10): counts, sequence, what each stage trains, writing. Stitching: tests/batching."""

import dataclasses
import itertools

import pytest
import torch
import yaml

from rrg.batching.batch import Prefix
from rrg.batching.feed import SplitFeed
from rrg.config.context import BuildContext
from rrg.config.explain import told
from rrg.connector.weights import save_connector
from rrg.language.decoding import Decoding
from rrg.model import build_model
from rrg.recipe import load_recipe
from rrg.stages import stage_recipe
from rrg.system import System, open_split
from rrg.train.optim import rate_factor
from rrg.train.repeats import left_out, repeats
from tests.batching.test_stitching import sample
from tests.ngram_inputs import rewritten
from tests.processes import ROOT

PROJECTOR, LORA = 20_979_712, 319_815_680


def both_stages(shards, folder, *overrides):
    """(projector stage, LoRA stage that starts from it) of the tiny twin."""
    loaded = load_recipe("tiny/gla_ai4biomed_rrg24", [f"data.shards={shards}", "data.workers=0", *overrides])
    align = stage_recipe(loaded, "align").value
    first = System.build(align, folder, open_split(align, "train"))
    (folder / "stages" / "align").mkdir(parents=True)
    save_connector(first.model.connector, folder / "stages" / "align" / "connector.safetensors")
    return first, System.build(loaded.value, folder, open_split(align, "train"))


@pytest.fixture(scope="module")
def stages(drawn_shards, tmp_path_factory):
    return both_stages(drawn_shards, tmp_path_factory.mktemp("run"))


def batch_of(built, indices=(0, 1, 2, 3)):
    shards = open_split(built.recipe, "train")
    share = SplitFeed(built.films(shards), built.tokeniser, [list(indices)])[0]
    assert share.error is None and not share.damaged
    return share.batches[0]


def trained(model):
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


# -- the published system ----------------------------------------------------------------------------------------------------


def test_trained_parameters_at_published_sizes_without_any_file():
    loaded = load_recipe("recipes/gla_ai4biomed_rrg24")
    assert load_recipe("recipes/gla_ai4biomed_mimic").value.language == loaded.value.language
    align = build_model(stage_recipe(loaded, "align").value, BuildContext(meta=True))
    assert sum(trained(align).values()) == PROJECTOR and all(name.startswith("connector.") for name in trained(align))
    model = build_model(loaded.value, BuildContext(meta=True))
    assert all("lora_" in name and name.startswith("language.") for name in trained(model))
    H, F, r, layers = 4096, 11008, 128, 32
    assert sum(trained(model).values()) == layers * r * (8 * H + 3 * (H + F)) == LORA
    assert len(trained(model)) == 2 * 7 * layers, "every Linear of a layer, and no head"
    assert sum(p.numel() for p in model.connector.parameters()) == 1024 * H + H + H * H + H == PROJECTOR
    assert sum(p.numel() for name, p in model.language.named_parameters() if "lora_" not in name) == 6_738_415_616
    encoder = model.vision
    assert (encoder.tokens, encoder.width, encoder.preprocessing.size) == (576, 1024, 336)
    assert len(encoder.backbone.encoder.layers) == 23 and isinstance(encoder.backbone.post_layernorm, torch.nn.Identity)
    assert (
        encoder.preprocessing.resize == "pad"
        and encoder.preprocessing.fill == 0
        and encoder.backbone.config.hidden_act == "quick_gelu"
    )
    model.connector.requires_grad_(True)
    assert sum(trained(model).values()) == PROJECTOR + LORA, "train_projector_stage2 is connector.train=full"


def test_published_settings():
    loaded = load_recipe("gla_ai4biomed_rrg24")
    for recipe in (loaded.value, stage_recipe(loaded, "align").value):
        train = recipe.train
        assert (train.lr, train.batch_size, train.weight_decay, train.betas) == (2e-5, 16, 0, [0.9, 0.999])
        assert (train.schedule.kind, train.schedule.warmup_ratio, train.schedule.floor) == ("cosine", 0.03, 0)
        assert recipe.data.films.views == "ranked" and recipe.data.films.most == 4 and recipe.data.films.stitch
        assert recipe.data.cleaning == "whitespace" and train.select == {"loss": -1.0}
    assert (stage_recipe(loaded, "align").value.train.epochs, loaded.value.train.epochs) == (1, 3)
    writing = loaded.value.generate
    assert (writing.num_beams, writing.no_repeat_ngram_size, writing.length_penalty, writing.max_new_tokens) == (2, 3, 1, 256)
    assert (writing.min_new_tokens, writing.repetition_penalty, writing.do_sample) == (0, 1, False)
    llava = load_recipe("gla_ai4biomed_rrg24", ["stages.align.train.lr=1e-3", "stages.align.language.template=plain"])
    align = stage_recipe(llava, "align").value
    assert align.train.lr == 1e-3 and align.language.whole_prompt == "{image}" and llava.value.train.lr == 2e-5


def test_warm_up_as_a_share_of_all_steps():
    schedule = load_recipe("gla_ai4biomed_rrg24").value.train.schedule
    rates = [rate_factor(schedule, step, 101, 50, 2e-5) for step in range(101)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1]) and rates == [*rates[:4], *sorted(rates[4:], reverse=True)]
    assert rates[100] < 1e-3


def test_one_recipe_makes_two_models_that_share_nothing():
    findings, impression = (load_recipe("gla_ai4biomed_rrg24", [f"data.section={s}"]).value for s in ("findings", "impression"))
    assert findings.output != impression.output, "each has a run directory, and so a projector, of its own"
    for recipe, section in ((findings, "findings"), (impression, "impression")):
        assert recipe.score.protocol == f"rrg24_{section}" and f"of the {section} in the radiology" in recipe.language.prompt
    assert {row.key for row in told(findings, impression)} == {
        *("name", "output", "data.section", "language.prompt", "score.protocol"),
    }


def test_the_board_is_the_mean_of_five():
    entries = yaml.safe_load((ROOT / "rrg" / "metrics" / "published" / "rrg24.yaml").read_text())["entries"].values()
    ranked = [entry for entry in entries if "overall" in entry["note"]]
    assert len(ranked) == 8
    for entry in ranked:
        overall = float(entry["note"].split("overall ")[1].split()[0])
        assert 100 * sum(entry["metrics"].values()) / 5 == pytest.approx(overall, abs=0.0101)


def test_five_films_become_one_picture_for_clip():
    from rrg.batching.pictures import prepare_pictures
    from rrg.vision.family import VISION

    recipe = load_recipe("gla_ai4biomed_rrg24").value
    preprocessing = VISION.build(recipe.vision, context=BuildContext(meta=True)).preprocessing
    shapes = [(200, 110), (310, 70), (90, 250), (170, 170), (400, 400)]
    words = ["PA", "AP", "LATERAL", "LL", ""]
    pictures = [prepare_pictures(sample(*shapes[:n], words=words[:n]), "t", recipe.data.films, preprocessing) for n in (5, 4)]
    assert pictures[0].shape == (1, 3, 336, 336) and torch.equal(*pictures)


# -- what is trained ---------------------------------------------------------------------------------------------------------


def test_gradients_reach_the_projector_and_then_lora_and_nothing_else(stages, drawn_shards, tmp_path):
    both = both_stages(drawn_shards, tmp_path, "connector.train=full")[1]
    for built, parts in ((stages[0], {"connector"}), (stages[1], {"lora"}), (both, {"connector", "lora"})):
        model = built.model.train()
        assert built.recipe.language.gradient_checkpointing
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at the start, when nothing would reach A
                torch.nn.init.normal_(parameter, std=0.02)
        sum(value for value, _ in model(batch_of(built)).values()).backward()
        for name, parameter in model.named_parameters():
            part = "lora" if "lora_" in name else name.split(".")[0]
            assert (parameter.grad is not None and bool(parameter.grad.any())) == (part in parts), name
            if "lora_B" in name:
                torch.nn.init.zeros_(parameter)
        model.zero_grad()
        assert model.connector.training == ("connector" in parts)


def test_lora_starts_as_the_aligned_model(stages):
    batch = batch_of(stages[0])
    losses = [built.model.eval()(batch)["report"][0] for built in stages]
    assert torch.equal(*losses)
    assert stages[1].model.start.keys() == {"connector.weights"} and not stages[0].model.start


def test_folding_is_exact_and_unfolding_is_bit_for_bit(stages):
    import copy

    from rrg.language.lora import folded

    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, None)):
        language = copy.deepcopy(stages[1].model.language.model).to(dtype).eval()
        for name, parameter in language.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        ids = torch.tensor([[4, 5, 6, 7]])
        held = {name: tensor.clone() for name, tensor in language.state_dict().items()}
        adapted = language(input_ids=ids).logits
        with folded(language):
            moved = {name for name, tensor in language.state_dict().items() if not torch.equal(tensor, held[name])}
            merged = language(input_ids=ids).logits
        assert moved == {name for name in held if ".base_layer." in name} and len(moved) == 2 * 7
        if tolerance:
            torch.testing.assert_close(merged, adapted, rtol=tolerance, atol=tolerance)
        assert all(torch.equal(tensor, held[name]) for name, tensor in language.state_dict().items())
        assert torch.equal(language(input_ids=ids).logits, adapted)


def test_weights_come_back_where_saving_fails(stages):
    from rrg.language.lora import folded

    language = stages[1].model.language.model
    held = {name: tensor.clone() for name, tensor in language.state_dict().items()}
    with pytest.raises(OSError, match="full"), folded(language):
        raise OSError("full")
    assert all(torch.equal(tensor, held[name]) for name, tensor in language.state_dict().items())


# -- sequence and writing ----------------------------------------------------------------------------------------------------


def test_features_stand_where_the_picture_is_and_only_the_report_is_supervised(stages):
    built = stages[0]
    batch, language = batch_of(built), built.model.language
    N, H = built.model.vision.tokens, language.width
    marks = torch.eye(H).repeat(-(-N // H), 1)[:N].expand(4, N, H)
    embeds, mask = language.sequence(Prefix(marks), batch, report=True)
    nb, na, length = batch.before_ids.shape[1], batch.after_ids.shape[1], batch.report_ids.shape[1]
    assert embeds.shape[1] == (1 + nb + 1 + na + length) - 1 + N == mask.shape[1], "L - 1 + N"
    assert torch.equal(embeds[:, 1 + nb : 1 + nb + N], marks)
    assert torch.equal(embeds[:, 0], language.embed(torch.tensor([language.tokenizer.bos_token_id] * 4)))
    assert language.tokenizer.bos_token_id not in torch.cat([batch.before_ids, batch.after_ids], 1)
    output = language.loss(Prefix(marks), batch)
    assert output.tokens == batch.tokens == int(batch.report_mask.sum()), "no row of prompt or picture counts"
    shards = open_split(built.recipe, "train")
    for index, (ids, kept) in enumerate(zip(batch.report_ids, batch.report_mask, strict=True)):
        words = built.tokeniser.clean(shards.study(index)).split()
        assert ids[kept].tolist() == [*language.tokenizer.convert_tokens_to_ids(words), language.tokenizer.eos_token_id]


def written_ids(language, prefix, batch, decoding):
    shown = dataclasses.replace(decoding)
    language._text = lambda ids, end: [*itertools.takewhile(lambda i: i != end, ids)] + ([end] if end in ids else [])
    try:
        return language.generate(prefix, batch, shown)
    finally:
        del language._text


def test_no_three_grams_repeat_and_beams_see_their_own_picture(stages):
    built = stages[1]
    model = built.model.eval()
    batch = batch_of(built)
    prefix = model.prefix(batch)[1]
    recipe = built.recipe.generate
    beams = Decoding(**{f.name: getattr(recipe, f.name) for f in dataclasses.fields(Decoding)})
    beams.max_new_tokens = 24
    together = written_ids(model.language, prefix, batch, beams)
    for row in together:
        grams = list(zip(row, row[1:], row[2:], strict=False))
        assert len(grams) == len(set(grams)) and len(row) <= 24
    loud = Prefix(prefix.embeds * torch.tensor([1.0, 5.0, -5.0, 20.0])[:, None, None])
    together = written_ids(model.language, loud, batch, beams)
    for index in range(4):
        alone = batch_of(built, (index,))
        assert written_ids(model.language, Prefix(loud.embeds[index : index + 1]), alone, beams) == [together[index]]
    one = dataclasses.replace(beams, num_beams=1)
    greedy = dataclasses.replace(one, no_repeat_ngram_size=0, max_new_tokens=5)
    embeds, _ = model.language.sequence(prefix, batch, report=False)
    ids = torch.zeros(4, 0, dtype=torch.long)
    with torch.no_grad():
        for _ in range(5):
            row = model.language.model(inputs_embeds=torch.cat([embeds, model.language.embed(ids)], 1)).logits[:, -1].argmax(-1)
            ids = torch.cat([ids, row[:, None]], 1)
    end = model.language.tokenizer.eos_token_id
    wanted = [row[: row.index(end) + 1] if end in row else row for row in ids.tolist()]
    assert written_ids(model.language, prefix, batch, greedy) == wanted


def test_writing_stops_at_the_end_symbol(stages):
    model = stages[1].model.eval()
    batch, end = batch_of(stages[1]), model.language.tokenizer.eos_token_id
    prefix = model.prefix(batch)[1]

    def always_end(module, inputs, output):
        output[..., end] += 1e4
        return output

    hook = model.language.model.get_output_embeddings().register_forward_hook(always_end)
    try:
        decoding = Decoding(num_beams=2, repetition_penalty=1.0, length_penalty=1.0, min_new_tokens=0, max_new_tokens=9)
        assert written_ids(model.language, prefix, batch, decoding) == [[end]] * 4
    finally:
        hook.remove()


def test_studies_without_the_section_are_left_out_and_counted(drawn_shards, tmp_path):
    def half(study):
        return (
            study
            if int(study.id[1:]) % 2
            else dataclasses.replace(study, sections=dataclasses.replace(study.sections, findings=""))
        )

    shards = rewritten(drawn_shards, tmp_path, half)
    recipe = load_recipe("tiny/gla_ai4biomed_rrg24", [f"data.shards={shards}"]).value
    split = open_split(recipe, "train")
    assert left_out(split, recipe) == 12
    assert [split.ids[i] for i, times in enumerate(repeats(split, recipe)) if times] == [s for s in split.ids if int(s[1:]) % 2]
    kept = load_recipe("tiny/gla_ai4biomed_rrg24", [f"data.shards={shards}", "data.empty_reports=keep"]).value
    assert left_out(split, kept) == 0 and repeats(split, kept) is None
    other = load_recipe("tiny/gla_ai4biomed_rrg24", [f"data.shards={shards}", "data.section=impression"]).value
    assert left_out(split, other) == 0, "each model reads the studies that have its section"
