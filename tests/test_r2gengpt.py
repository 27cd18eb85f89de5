"""The checks of the R2GenGPT specification (spec r2gengpt §9), on tiny random weights and on the meta device."""

import pytest
import torch

from rrg.batching.batch import Batch, Prefix
from rrg.batching.feed import SplitFeed
from rrg.config.context import BuildContext
from rrg.errors import UserError
from rrg.language.admission import admit
from rrg.language.decoding import Decoding
from rrg.model import build_model
from rrg.recipe import load_recipe
from rrg.system import System, open_split
from rrg.vision.adapters import merge_lora


def tiny(drawn_shards, *overrides):
    return load_recipe("tiny/r2gengpt_iu", [f"data.shards={drawn_shards}", "data.workers=0", *overrides]).value


def system(drawn_shards, *overrides):
    recipe = tiny(drawn_shards, *overrides)
    return System.build(recipe, None, open_split(recipe, "train"))


def batch_of(built, indices=(0, 1, 2, 3)):
    shards = open_split(built.recipe, "train")
    share = SplitFeed(built.films(shards), built.tokeniser, [list(indices)])[0]
    assert share.error is None and not share.damaged
    return share.batches[0]


def total_loss(model, batch):
    return sum(value for value, _ in model(batch).values())


@pytest.mark.parametrize("recipe,count", [("r2gengpt", 4_206_592), ("r2gengpt_delta", 4_976_640), ("r2gengpt_deep", 90_949_816)])
@pytest.mark.parametrize("data", ["iu", "mimic"])
def test_trained_parameters_at_published_sizes(recipe, count, data):
    model = build_model(load_recipe(f"{recipe}_{data}").value, BuildContext(meta=True))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count
    assert sum(p.numel() for p in model.language.parameters()) == 6_738_415_616
    base = sum(p.numel() for name, p in model.vision.named_parameters() if "lora_" not in name)
    assert base == 86_743_224
    assert all(p.device.type == "meta" for p in model.parameters())


@pytest.mark.parametrize("width,hidden", [(8, 12), (24, 64)])
def test_count_formulas_hold_at_any_size(drawn_shards, width, hidden):
    architecture = f"vision.architecture={{embed_dim: {width}, depths: [1, 1], num_heads: [2, 4], window_size: 4, patch_size: 4}}"
    size = f"language.hidden_size={hidden}"
    C = 2 * width

    def trained(*overrides):
        model = system(drawn_shards, architecture, size, "language.heads=2", *overrides).model
        return sum(p.numel() for p in model.parameters() if p.requires_grad), model

    shallow, model = trained()
    assert shallow == C * hidden + 3 * hidden
    delta, _ = trained("vision.train=lora", "vision.lora.r=3")
    assert delta - shallow == 4 * 3 * (width + C)
    deep, _ = trained("vision.train=full")
    assert deep - shallow == sum(p.numel() for p in model.vision.parameters())


def test_gradients_reach_what_is_trained_and_nothing_else(drawn_shards):
    for regime in ("frozen", "lora"):
        model = system(drawn_shards, f"vision.train={regime}").model
        model.train()
        total_loss(model, batch_of(system(drawn_shards))).backward()
        for name, parameter in model.named_parameters():
            trained = name.startswith("connector.") or "lora_" in name
            assert (parameter.grad is not None) == trained, name
            if "lora_A" in name:  # B is zero at the start
                assert not parameter.grad.any(), name
            elif trained:
                assert parameter.grad.any(), name


def test_frozen_parts_stay_in_evaluation_mode(drawn_shards):
    model = system(drawn_shards).model.train()
    assert not any(m.training for m in (*model.vision.modules(), *model.language.model.modules()))
    assert model.connector.training


def test_delta_starts_as_shallow_and_merges_exactly(drawn_shards):
    shallow, delta = system(drawn_shards).model.eval(), system(drawn_shards, "vision.train=lora").model.eval()
    delta.connector.load_state_dict(shallow.connector.state_dict())
    batch = batch_of(system(drawn_shards))
    torch.testing.assert_close(delta.prefix(batch)[1].embeds, shallow.prefix(batch)[1].embeds, rtol=0, atol=0)
    for name, parameter in delta.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted = delta.prefix(batch)[1].embeds
    assert not torch.allclose(adapted, shallow.prefix(batch)[1].embeds, atol=1e-3)
    merge_lora(delta.vision)
    torch.testing.assert_close(delta.prefix(batch)[1].embeds, adapted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens,images", [("patches", 64), ("global", 1)])
def test_sequence_length_and_supervised_tokens(drawn_shards, tokens, images):
    built = system(drawn_shards, f"vision.tokens={tokens}", "language.max_report_tokens=12")
    batch, model = batch_of(built), built.model
    prefix = model.prefix(batch)[1]
    embeds, mask = model.language.sequence(prefix, batch, report=True)
    nb, na, length = batch.before_ids.shape[1], batch.after_ids.shape[1], batch.report_ids.shape[1]
    assert prefix.embeds.shape[1] == images
    assert embeds.shape[1] == mask.shape[1] == 1 + nb + images + na + length
    assert batch.tokens == sum(
        min(len(built.tokeniser.clean(open_split(built.recipe, "train").study(i)).split()) + 1, 12) for i in range(4)
    )


def test_identical_views_equal_one_view_and_order_of_views_does_not_matter(drawn_shards):
    built = system(drawn_shards)
    batch = batch_of(built, (1, 2))
    assert batch.view_mask.all()
    prefix = built.model.prefix(batch)[1].embeds
    batch.pixel_values = batch.pixel_values.flip(1)
    torch.testing.assert_close(built.model.prefix(batch)[1].embeds, prefix)
    batch.pixel_values[:, 1] = batch.pixel_values[:, 0]
    both = built.model.prefix(batch)[1].embeds
    batch.pixel_values, batch.view_mask = batch.pixel_values[:, :1], batch.view_mask[:, :1]
    torch.testing.assert_close(built.model.prefix(batch)[1].embeds, both)


def test_an_absent_view_is_masked_not_averaged_in(drawn_shards):
    built = system(drawn_shards)
    mixed = batch_of(built, (0, 1))  # study 0 has one film, study 1 two
    assert mixed.view_mask.tolist() == [[True, False], [True, True]]
    alone = batch_of(built, (0,))
    torch.testing.assert_close(built.model.prefix(mixed)[1].embeds[0], built.model.prefix(alone)[1].embeds[0])


def test_concatenated_views_mask_what_is_absent_from_the_loss(drawn_shards):
    built = system(drawn_shards, "connector.views=concat")
    mixed, alone = batch_of(built, (0, 1)), batch_of(built, (0,))
    prefix = built.model.prefix(mixed)[1]
    assert prefix.embeds.shape[1] == 2 * 64 and prefix.mask.sum().item() == 3 * 64
    nll = built.model.language.loss(prefix, mixed).nll[: alone.tokens]
    torch.testing.assert_close(nll, built.model.language.loss(built.model.prefix(alone)[1], alone).nll, rtol=1e-4, atol=1e-4)


def test_truncation_leaves_no_end_symbol(drawn_shards):
    built = system(drawn_shards, "language.max_report_tokens=11")
    batch = batch_of(built, range(8))
    end = built.model.language.tokenizer.eos_token_id
    for ids, mask in zip(batch.report_ids, batch.report_mask, strict=True):
        real = ids[mask].tolist()
        assert real.count(end) == (1 if len(real) < 11 or real[-1] == end else 0)
        assert end not in real[:-1]
    assert 0 < batch.truncated < 8


def test_loss_equals_the_likelihood_computed_by_hand(drawn_shards):
    built = system(drawn_shards)
    batch, language = batch_of(built), built.model.language
    prefix = built.model.prefix(batch)[1]
    embeds, mask = language.sequence(prefix, batch, report=True)
    logits = language.model(inputs_embeds=embeds, attention_mask=mask.long()).logits.log_softmax(-1)
    start = embeds.shape[1] - batch.report_ids.shape[1]
    by_hand = [
        -logits[b, start - 1 + j, batch.report_ids[b, j]]
        for b in range(len(batch))
        for j in range(batch.report_ids.shape[1])
        if batch.report_mask[b, j]
    ]
    torch.testing.assert_close(language.loss(prefix, batch).nll, torch.stack(by_hand), rtol=1e-4, atol=1e-5)
    assert built.model.objectives["report"].count(batch) == len(by_hand)


def test_prompts_with_study_text_pad_left_and_keep_the_loss(drawn_shards):
    prompt = "language.prompt='given {indication} see {image} report of {indication} :'"
    built = system(drawn_shards, prompt)
    together = batch_of(built, (0, 1, 2))
    assert not together.before_mask.all() or not together.after_mask.all() or together.before_ids.shape[1] > 2
    language = built.model.language
    nll = language.loss(built.model.prefix(together)[1], together).nll
    place = 0
    for index in range(3):
        alone = batch_of(built, (index,))
        expected = language.loss(built.model.prefix(alone)[1], alone).nll
        torch.testing.assert_close(nll[place : place + alone.tokens], expected, rtol=1e-4, atol=1e-4)
        place += alone.tokens


def test_greedy_generation_is_argmax_decoding_and_lengths_are_kept(drawn_shards):
    built = system(drawn_shards)
    batch, language = batch_of(built), built.model.language.eval()
    prefix = built.model.prefix(batch)[1]
    greedy = Decoding(num_beams=1, repetition_penalty=1.0, length_penalty=1.0, min_new_tokens=0, max_new_tokens=9)
    texts = language.generate(prefix, batch, greedy)
    embeds, _ = language.sequence(prefix, batch, report=False)
    ids = torch.zeros(len(batch), 0, dtype=torch.long)
    for _ in range(9):
        row = language.model(inputs_embeds=torch.cat([embeds, language.embed(ids)], 1)).logits[:, -1].argmax(-1)
        ids = torch.cat([ids, row[:, None]], 1)
    assert texts == [language._text(row, language.tokenizer.eos_token_id) for row in ids.tolist()]

    beams = Decoding(num_beams=3, min_new_tokens=5, max_new_tokens=7)
    for text in language.generate(prefix, batch, beams):
        assert len(text.split()) <= 7


def test_the_head_refuses_families_whose_logits_it_does_not_know(drawn_shards):
    built = system(drawn_shards)
    built.model.language.head.scale = 3.0
    with pytest.raises(UserError, match="logits"):
        admit(built.model.language.model, built.model.language.head)


def test_label_rows_are_selected_before_the_head(drawn_shards):
    built = system(drawn_shards)
    batch = batch_of(built)
    seen = []
    rows = built.model.language.head.rows
    built.model.language.head.rows = lambda hidden, labels: seen.append(hidden.shape) or rows(hidden, labels)
    built.model.language.loss(built.model.prefix(batch)[1], batch)
    assert seen == [(batch.tokens, built.model.language.width)]


def test_lora_on_the_language_model_merges_when_it_is_saved(drawn_shards, tmp_path):
    from transformers import AutoModelForCausalLM

    built = system(drawn_shards, "language.train=lora", "language.lora.r=2")
    language = built.model.language.eval()
    for name, parameter in language.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    ids = torch.tensor([[5, 6, 7]])
    expected = language.model(input_ids=ids).logits
    language.save_pretrained(tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(loaded(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert language.model.get_output_embeddings().weight.data_ptr() == language.embedding.weight.data_ptr()


def test_word_slot_shows_report_words_and_refuses_films(drawn_shards):
    overrides = ("vision.kind=none", "connector.kind=words", "connector.slots=5", "connector.noise=0", "connector.keep=1")
    built = system(drawn_shards, *overrides, "train.validate_reports=false")
    batch = batch_of(built)
    embeds = built.model.prefix(batch)[1].embeds
    table = built.model.language.embedding.weight
    for row, ids, mask in zip(embeds, batch.report_ids, batch.report_mask, strict=True):
        nearest = torch.cdist(row[row.any(-1)], table).argmin(-1)
        assert set(nearest.tolist()) <= set(ids[mask].tolist())
    with pytest.raises(UserError, match=r"vision\.kind: none"):
        built.model.connector(torch.zeros(1, 1, 1, 1), batch)


def test_prefix_scale_follows_the_embedding_table(drawn_shards):
    built = system(drawn_shards, "connector.prefix_scale=embedding")
    std = built.model.language.embedding.weight.std().item()
    assert built.model.connector.norm.weight[0].item() == pytest.approx(std)
    prefix = built.model.prefix(batch_of(built))[1].embeds
    assert prefix.std().item() == pytest.approx(std, rel=0.2)


def test_global_batches_do_not_depend_on_padding(drawn_shards):
    """A study's loss is the same alone and beside a longer report."""
    built = system(drawn_shards)
    both, alone = batch_of(built, (0, 7)), batch_of(built, (0,))
    together = built.model.language.loss(built.model.prefix(both)[1], both).nll[: alone.tokens]
    single = built.model.language.loss(built.model.prefix(alone)[1], alone).nll
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


def test_batch_and_prefix_move_between_devices(drawn_shards):
    batch = batch_of(system(drawn_shards))
    assert isinstance(batch.to("cpu"), Batch) and batch.to("meta").report_ids.device.type == "meta"
    assert Prefix(torch.zeros(1, 1, 1)).mask is None


def test_a_language_model_with_dropout_is_checked_without_it(drawn_shards):
    built = system(drawn_shards, "language.train=full", "language.dropout=0.5")
    assert built.model.train().language.model.training
