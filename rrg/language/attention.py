"""Which attention a language model computes with, and sequences packed end to end for the one that needs no padding."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rrg.errors import UserError

FLASH, SDPA, EAGER = "flash_attention_2", "sdpa", "eager"
HALF = ("bfloat16", "float16")


class AttentionChoice(NamedTuple):
    """transformers' name of an attention implementation, and the reason for it in words."""

    name: str
    why: str


def choose_attention(setting: str, dtype: str) -> AttentionChoice:
    """What `language.attention` comes to on this machine for weights of `dtype`.

    `auto` is flash-attn where it is installed beside a GPU, whose kernels know 16-bit types only, and PyTorch's SDPA elsewhere.

    Raises:
        UserError: flash_attention_2 is asked for and cannot run.
    """
    if setting not in ("auto", FLASH):
        return AttentionChoice(setting, f"language.attention={setting}")
    obstacle = _flash_obstacle(dtype)
    if obstacle is None:
        return AttentionChoice(FLASH, "flash-attn is installed; sequences are packed")
    if setting == FLASH:
        raise UserError(f"language.attention: {FLASH} cannot run here: {obstacle}; write auto or sdpa")
    return AttentionChoice(SDPA, obstacle)


def attention_of(config: Any, setting: str, dtype: str) -> str:
    """`choose_attention` for the model of `config`: under `auto`, the first of flash-attn, SDPA and eager that its family offers.

    Raises:
        UserError: flash_attention_2 is asked for and cannot run.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    chosen = choose_attention(setting, dtype).name
    if setting != "auto" or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return chosen
    family = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if chosen == FLASH and not getattr(family, "_supports_flash_attn", False):
        chosen = SDPA
    return chosen if chosen == FLASH or getattr(family, "_supports_sdpa", False) else EAGER


def _flash_obstacle(dtype: str) -> str | None:
    from transformers.utils import is_flash_attn_2_available

    if not torch.cuda.is_available():
        return "there is no GPU"
    if not is_flash_attn_2_available():
        return "flash-attn is not installed"
    if dtype not in HALF:
        return f"flash-attn has no kernel for {dtype}"
    return None


def packed_hidden(decoder: Any, embeds_bth: Tensor, mask_bt: Tensor) -> Tensor:
    """Last hidden states [B, T, H] of a causal decoder that sees the masked-in tokens of all rows end to end, as one row.

    Positions restart at every row, and each token attends to its own row only: with flash-attn by cumulative lengths (no padded
    work), with other implementations by a block-diagonal mask that transformers derives from the positions. Padding comes back 0.
    """
    lengths = mask_bt.sum(1, dtype=torch.int32)
    ends = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    longest = int(lengths.max())
    positions = (mask_bt.cumsum(1) - 1)[mask_bt][None]
    hidden = decoder(
        inputs_embeds=embeds_bth[mask_bt][None],
        position_ids=positions,
        use_cache=False,
        # Said once here, so that no layer has to look for the ends in the positions.
        cu_seq_lens_q=ends,
        cu_seq_lens_k=ends,
        max_length_q=longest,
        max_length_k=longest,
    ).last_hidden_state[0]
    return hidden.new_zeros(*mask_bt.shape, hidden.shape[-1]).masked_scatter(mask_bt[..., None], hidden)
