"""Shapes of the published language models, so that they can be built on the meta device without a download."""

from __future__ import annotations

from typing import Any

# name → (transformers config class, its arguments). Embedded and published names; sizes are the model cards'.
_LLAMA_2_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "meta-llama/Llama-2-7b-chat-hf": ("LlamaConfig", _LLAMA_2_7B),
    "lmsys/vicuna-7b-v1.5": ("LlamaConfig", _LLAMA_2_7B),
    "embedded:smollm2-135m": (
        "LlamaConfig",
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
        },
    ),
}


def published_config(name: str) -> Any:
    """The transformers configuration of a published model, or None where its shape is not in the table."""
    import transformers

    if name not in ARCHITECTURES:
        return None
    cls, arguments = ARCHITECTURES[name]
    return getattr(transformers, cls)(**arguments)
