"""Where a language model comes from: folders, earlier stages, one made anew, shapes without weights."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from rrg.config.context import BuildContext
from rrg.config.schema import typed_part
from rrg.errors import UserError
from rrg.language.family import LANGUAGE
from rrg.language.tokenizer import train_tokenizer

TEXTS = ["the lungs are clear .", "the heart is large ."]


def build(context=None, **options):
    torch.manual_seed(0)
    kind = options.setdefault("kind", "causal_lm")
    return LANGUAGE.build(typed_part(LANGUAGE, options, "language", kind), context=context or BuildContext())


def small(context=None, **options):
    context = context or BuildContext(train_texts=lambda: TEXTS)
    sizes = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16, "min_count": 1}
    return build(context, kind="small_llama", **sizes, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved Llama of another author: untied head, float32."""
    target = tmp_path_factory.mktemp("model") / "llm"
    words = train_tokenizer("word", TEXTS, "report :", min_count=1, vocabulary=0)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, eos_token_id=2
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(target)
    words.save_pretrained(target)
    return target


def test_a_folder_is_loaded_frozen_in_the_type_asked_for(folder):
    for dtype in ("float32", "bfloat16", "float16"):
        language = build(name=str(folder), dtype=dtype)
        assert {p.dtype for p in language.parameters()} == {getattr(torch, dtype)}
        assert not any(p.requires_grad for p in language.parameters()) and not language.model.training
        assert not language.train().model.training
    assert language.width == 16 and language.tokenizer.eos_token_id == 2


def test_what_is_trained_has_float32_weights(folder):
    full, lora = (build(name=str(folder), dtype="bfloat16", train=train) for train in ("full", "lora"))
    assert {p.dtype for p in full.parameters()} == {torch.float32} and all(p.requires_grad for p in full.parameters())
    for name, parameter in lora.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16)
    with pytest.raises(UserError, match=r"language\.lora\.targets: 'qproj' matches no Linear; this model has .*q_proj"):
        build(name=str(folder), train="lora", lora={"targets": ["qproj"]})


def test_an_end_symbol_is_needed(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "llm")
    path = tmp_path / "llm" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": None}))
    with pytest.raises(UserError, match="language: this tokenizer has no end symbol"):
        build(name=str(tmp_path / "llm"))


def test_small_models_are_equal_for_equal_seeds_and_texts(tmp_path):
    one, two = small(), small()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    kept = small(BuildContext(run=tmp_path, train_texts=lambda: TEXTS))
    again = small(BuildContext(run=tmp_path))
    assert kept.tokenizer.get_vocab() == again.tokenizer.get_vocab() == one.tokenizer.get_vocab()
    assert one.embedding.num_embeddings == len(one.tokenizer)
    for context in (BuildContext(), BuildContext(train_texts=list)):
        with pytest.raises(UserError, match="from the training reports, and there are none"):
            small(context)


def test_a_stage_that_left_nothing(tmp_path):
    with pytest.raises(
        UserError, match=r"language\.name: 'stage:text': no such stage has left a language model at .*stages/text"
    ):
        build(BuildContext(run=tmp_path), name="stage:text")
    language = small(train="full")
    language.save_pretrained(tmp_path / "stages" / "text" / "language")
    loaded = build(BuildContext(run=tmp_path), name="stage:text", dtype="float32")
    ids = torch.tensor([[4, 5, 6]])
    torch.testing.assert_close(loaded.model(input_ids=ids).logits, language.eval().model(input_ids=ids).logits)


def test_shapes_without_weights():
    language = build(BuildContext(meta=True), name="meta-llama/Llama-2-7b-chat-hf", dtype="float16")
    assert sum(p.numel() for p in language.parameters()) == 6_738_415_616 and language.tokenizer is None
    assert {p.device.type for p in language.parameters()} == {"meta"}
    with pytest.raises(UserError, match="the shape of 'no-one/knows' is not known without its files"):
        build(BuildContext(meta=True), name="no-one/knows")
    assert {p.device.type for p in small(BuildContext(meta=True)).parameters()} == {"meta"}
    with pytest.raises(UserError, match=r"language\.name: empty"):
        build()


def test_a_frozen_model_recomputes_its_activations_where_asked_and_gives_the_same_gradients(folder):
    from rrg.batching.batch import Prefix
    from rrg.batching.collate import Item, collate
    from rrg.batching.tokenise import Tokens

    batch = collate([Item("a", Tokens([4], [5, 6], [7, 8, 2], False)), Item("b", Tokens([4], [6], [7, 2], False))])
    gradients, calls = [], []
    for checkpointing in (False, True):
        language = build(name=str(folder), dtype="float32", gradient_checkpointing=checkpointing).train()
        calls.append(0)

        def count(*_):
            calls[-1] += 1

        language.model.get_decoder().layers[0].input_layernorm.register_forward_hook(count)
        torch.manual_seed(3)
        prefix = torch.randn(2, 3, 16, requires_grad=True)
        language.loss(Prefix(prefix), batch).nll.sum().backward()
        gradients.append(prefix.grad)
        assert all(p.grad is None for p in language.parameters())
        assert not any(module.training for module in language.model.modules() if isinstance(module, torch.nn.Dropout))
    assert gradients[0].abs().sum() > 0 and calls == [1, 2]
    torch.testing.assert_close(*gradients)
