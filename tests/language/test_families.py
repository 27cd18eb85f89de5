"""Any causal language model: tiny random ones of many families against a plain pass of the library's own model."""

import dataclasses
import re

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rrg.batching.batch import Prefix
from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.config.schema import typed_part
from rrg.errors import UserError
from rrg.language.decoding import Decoding
from rrg.language.family import LANGUAGE
from rrg.language.lora import folded
from rrg.language.tokenizer import train_tokenizer

TEXTS = ["the lungs are clear .", "the heart is large and round . no effusion seen on this film"]
WORDS = train_tokenizer("word", TEXTS, "report :", min_count=1, vocabulary=0)
IDS = {"vocab_size": len(WORDS) + 3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {
    **IDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT = {**IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
OPT = {**{k: v for k, v in SIZES.items() if not k.startswith(("intermediate", "num_key"))}, "ffn_dim": 48}
HEADS = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6}
# name -> (model_type, arguments). Windows of six tokens are shorter than every sequence here.
FAMILIES = {
    "llama": ("llama", SIZES),
    "mistral, windowed": ("mistral", {**SIZES, "sliding_window": 6}),
    "qwen2, biased": ("qwen2", SIZES),
    "qwen3, tied": ("qwen3", {**SIZES, "head_dim": 8, "tie_word_embeddings": True}),
    "gemma": ("gemma", {**SIZES, "head_dim": 8}),
    "gemma2, capped": ("gemma2", {**SIZES, **HEADS, "final_logit_softcapping": 2.0}),
    "gemma3": ("gemma3_text", {**SIZES, **HEADS}),
    "gpt2": ("gpt2", GPT),
    "gpt-neox": ("gpt_neox", SIZES),
    "gpt-j, biased head": ("gptj", {**GPT, "rotary_dim": 4}),
    "phi, biased head": ("phi", SIZES),
    "phi3": ("phi3", SIZES),
    "opt": ("opt", {**OPT, "word_embed_proj_dim": 32}),
    "opt, narrow embeddings": ("opt", {**OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "bloom": ("bloom", {**IDS, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon, alibi": ("falcon", {**SIZES, "alibi": True}),
    "cohere, scaled logits": ("cohere", {**SIZES, "logit_scale": 0.3}),
    "granite, divided logits": ("granite", {**SIZES, "logits_scaling": 3.0, "embedding_multiplier": 4.0}),
    "mixtral": ("mixtral", {**SIZES, "num_local_experts": 4}),
    "lfm2, convolutions": ("lfm2", {**SIZES, "layer_types": ["conv", "full_attention"]}),
    "mamba": ("mamba", {**IDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
}
REFUSED = {
    "bert": ("bert", SIZES, "BertLMHeadModel lets later tokens reach earlier ones, so it is no causal language model"),
    "rwkv": (
        "rwkv",
        {**IDS, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": 64},
        "RwkvForCausalLM reads the padding before a prompt, so studies could not be written together",
    ),
    "gpt": ("openai-gpt", GPT, "OpenAIGPTLMHeadModel takes no input embeddings, so there is no place for a film"),
    "t5": ("t5", {}, "cannot be loaded (Unrecognized configuration class"),
}
WRITING = Decoding(num_beams=1, repetition_penalty=1.0, length_penalty=1.0, min_new_tokens=4, max_new_tokens=6)
# Prompts and reports of different lengths: padding before and behind.
ITEMS = [
    Item("a", Tokens([4], [5, 6], [7, 8, 9, 2], False)),
    Item("b", Tokens([4, 6, 7], [6], [7, 2], False)),
    Item("c", Tokens([], [6, 9, 10, 5], [4, 11, 12, 13, 14, 2], False)),
]


def saved(kind, arguments, folder):
    """A random model of the family, far from uniform, with a tokenizer."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **arguments)
    made = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.2) if parameter.dim() > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
    made.save_pretrained(folder)
    WORDS.save_pretrained(folder)
    return folder


def build(folder, **options):
    torch.manual_seed(0)
    options = {"kind": "causal_lm", "name": str(folder), "dtype": "float32", **options}
    return LANGUAGE.build(typed_part(LANGUAGE, options, "language", "causal_lm"), context=BuildContext())


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    kind, arguments = FAMILIES[request.param]
    folder = saved(kind, arguments, tmp_path_factory.mktemp("family") / "model")
    language = build(folder)
    prefix = torch.randn(3, 5, language.width, generator=torch.Generator().manual_seed(2)) * 0.5
    return folder, language, prefix


def by_hand(language, prefix):
    """The loss rows study by study, from the logits of one plain pass over each."""
    rows = []
    for index, item in enumerate(ITEMS):
        ids = torch.tensor([[1, *item.tokens.before]]), torch.tensor([[*item.tokens.after, *item.tokens.report]])
        embedding = language.model.get_input_embeddings()
        embeds = torch.cat([embedding(ids[0]), prefix[index : index + 1], embedding(ids[1])], 1)
        length = len(item.tokens.report)
        logits = language.model(inputs_embeds=embeds, use_cache=False).logits[0, -length - 1 : -1].float()
        rows.append(torch.nn.functional.cross_entropy(logits, torch.tensor(item.tokens.report), reduction="none"))
    return torch.cat(rows)


@torch.no_grad()
def test_the_loss_is_that_of_a_plain_pass(family):
    _, language, prefix = family
    assert prefix.shape[2] == language.model.get_input_embeddings()(torch.tensor([1])).shape[1]
    torch.testing.assert_close(language.loss(Prefix(prefix), collate(ITEMS)).nll, by_hand(language, prefix), rtol=1e-4, atol=1e-5)


def test_studies_written_together_are_those_written_one_by_one(family):
    _, language, prefix = family
    guidance = [] if getattr(language.model, "_is_stateful", False) else [{"guidance": 1.5}]
    for settings in ({}, {"num_beams": 2}, *guidance):
        decoding = dataclasses.replace(WRITING, **settings)
        together = language.generate(Prefix(prefix), collate(ITEMS), decoding)
        alone = [language.generate(Prefix(prefix[i : i + 1]), collate([item]), decoding)[0] for i, item in enumerate(ITEMS)]
        assert together == alone and any(together), settings
    if not guidance:
        with pytest.raises(UserError, match=r"generate\.guidance: .* recurrent state.* write guidance: 1.0"):
            language.generate(Prefix(prefix), collate(ITEMS), dataclasses.replace(WRITING, guidance=1.5))


def test_lora_on_every_linear_folds_unfolds_and_is_saved(family, tmp_path):
    folder, language, prefix = family
    options = {"r": 2, "alpha": 4, "dropout": 0.0, "targets": ["all-linear"]}
    if language.model.config.model_type == "mamba":
        with pytest.raises(UserError, match=r"language\.lora\.targets: .*'out_proj' is incompatible with Mamba"):
            build(folder, train="lora", lora=options)
        options["targets"] = ["in_proj", "x_proj"]
    adapted = build(folder, train="lora", lora=options).eval()
    batch = collate(ITEMS)
    torch.testing.assert_close(adapted.loss(Prefix(prefix), batch).nll, language.loss(Prefix(prefix), batch).nll)
    for name, parameter in adapted.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.loss(Prefix(prefix), batch).nll.sum().backward()
    assert all(bool(p.grad.any()) for p in adapted.parameters() if p.requires_grad)
    with torch.no_grad():
        before = adapted.loss(Prefix(prefix), batch).nll
        with folded(adapted.model):
            merged = adapted.loss(Prefix(prefix), batch).nll
        assert torch.equal(adapted.loss(Prefix(prefix), batch).nll, before)
        torch.testing.assert_close(merged, before, rtol=1e-4, atol=5e-5)
        assert not torch.allclose(before, language.loss(Prefix(prefix), batch).nll, atol=1e-2)
        adapted.save_pretrained(tmp_path / "merged")
        torch.testing.assert_close(build(tmp_path / "merged").loss(Prefix(prefix), batch).nll, before, rtol=1e-4, atol=5e-5)


def test_gradients_are_the_same_with_recomputed_activations(family):
    folder, _, prefix = family
    gradients = []
    for recomputed in (False, True):
        start = prefix.clone().requires_grad_()
        language = build(folder, gradient_checkpointing=recomputed).train()
        language.loss(Prefix(start), collate(ITEMS)).nll.sum().backward()
        gradients.append(start.grad)
    assert bool(gradients[0].any())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_a_prefix_at_the_scale_of_the_embeddings(family):
    _, language, _ = family
    given = language.embed(torch.arange(IDS["vocab_size"])).float().std()
    assert language.embedding_std == pytest.approx(float(given), rel=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_families_that_cannot_be_served_are_refused_with_the_reason(name, tmp_path):
    kind, arguments, reason = REFUSED[name]
    if kind == "t5":
        AutoConfig.for_model(kind).save_pretrained(tmp_path)
        WORDS.save_pretrained(tmp_path)
    else:
        saved(kind, arguments, tmp_path)
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        build(tmp_path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("language.name: ")


def test_a_head_that_does_more_than_the_loss_knows_is_refused(tmp_path, monkeypatch):
    from transformers import LlamaForCausalLM

    folder = saved("llama", SIZES, tmp_path)
    plain = LlamaForCausalLM.forward

    def twice(self, *arguments, inputs_embeds=None, **more):
        output = plain(self, *arguments, inputs_embeds=inputs_embeds, **more)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", twice)
    with pytest.raises(UserError, match="computes its logits in a way the report loss does not know"):
        build(folder)
