"""The choice of attention with and without flash-attn, and packed sequences against padded ones."""

import pytest
import torch
import transformers.utils
from transformers import LlamaConfig, LlamaForCausalLM

from rrg.errors import UserError
from rrg.language.attention import choose_attention, packed_hidden


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU; flash-attn's presence is what the returned function says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return lambda present: monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: present)


def test_without_a_gpu_or_the_library_sdpa_is_chosen_with_the_reason(monkeypatch, gpu):
    gpu(False)
    assert choose_attention("auto", "bfloat16") == ("sdpa", "flash-attn is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_attention("auto", "bfloat16") == ("sdpa", "there is no GPU")


def test_with_the_library_it_is_chosen_for_16_bit_weights(gpu):
    gpu(True)
    for dtype in ("bfloat16", "float16"):
        assert choose_attention("auto", dtype).name == "flash_attention_2"
        assert choose_attention("flash_attention_2", dtype).name == "flash_attention_2"
    assert choose_attention("auto", "float32") == ("sdpa", "flash-attn has no kernel for float32")


def test_what_is_asked_for_by_name_is_taken_or_refused(gpu):
    gpu(True)
    assert choose_attention("sdpa", "bfloat16").name == "sdpa" and choose_attention("eager", "float32").name == "eager"
    with pytest.raises(UserError, match="no kernel for float32; write auto or sdpa"):
        choose_attention("flash_attention_2", "float32")
    gpu(False)
    with pytest.raises(UserError, match="flash-attn is not installed"):
        choose_attention("flash_attention_2", "bfloat16")


def llama(implementation="sdpa"):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    config._attn_implementation = implementation
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_packed_rows_have_the_hidden_states_and_gradients_of_padded_ones(implementation):
    decoder = llama(implementation).get_decoder()
    # Right padding, a hole in the middle, a whole row, a single token.
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    results = []
    for packed in (True, False):
        embeds = torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        if packed:
            hidden = packed_hidden(decoder, embeds, mask)
        else:
            positions = mask.cumsum(1).sub(1).clamp_min(0)
            hidden = decoder(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state
        hidden[mask].square().sum().backward()
        results.append((hidden[mask].detach(), embeds.grad[mask]))
        assert not packed or not hidden[~mask].any()
    for packed, padded in zip(*results, strict=True):
        torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-6)


def test_a_models_report_loss_is_the_same_packed(drawn_shards, monkeypatch):
    """The whole path of a training step, with holes before the report, as it runs where flash-attn is chosen."""
    from rrg.language.causal import CausalLanguage
    from tests.test_r2gengpt import batch_of, system

    built = system(drawn_shards, "language.prompt='{indication} {image} report :'")
    batch = batch_of(built)
    language, prefix = built.model.language, built.model.prefix(batch)[1]
    padded = language.loss(prefix, batch).nll
    monkeypatch.setattr(CausalLanguage, "packs", property(lambda self: True))
    torch.testing.assert_close(language.loss(prefix, batch).nll, padded, rtol=1e-4, atol=1e-5)
