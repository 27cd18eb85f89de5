"""Frozen, low-rank and full training of an encoder."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from rrg.errors import UserError
from rrg.vision.adapters import LORA_TARGETS, apply_lora, freeze, merge_lora, train_fully, unfreeze
from rrg.vision.architectures import KINDS
from rrg.vision.encoders import VisionEncoder, build_encoder


def tiny(kind: str = "swin", **options: Any) -> VisionEncoder:
    torch.manual_seed(0)
    return build_encoder(kind, f"random:tiny-{kind}", **options)


def films(encoder: VisionEncoder) -> torch.Tensor:
    size = encoder.preprocessing.size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def learn(encoder: VisionEncoder, steps: int = 3) -> None:
    encoder.train()
    optimizer = torch.optim.AdamW(trained(encoder).values(), lr=0.05)
    for _ in range(steps):
        encoder(films(encoder)).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    encoder.eval()


def test_published_delta_trains_770048_parameters() -> None:
    encoder = build_encoder("swin", "microsoft/swin-base-patch4-window7-224", device="meta")
    apply_lora(encoder)
    assert sum(parameter.numel() for parameter in trained(encoder).values()) == 770_048
    assert sum(p.numel() for name, p in encoder.named_parameters() if ".lora_" not in name) == 86_743_224


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "resnet"])
def test_delta_starts_as_shallow_learns_and_merges(kind: str) -> None:
    encoder = freeze(tiny(kind))
    before, base = encoder(films(encoder)), encoder.base_digest()
    apply_lora(encoder, r=4, alpha=8)
    encoder.eval()
    assert torch.equal(encoder(films(encoder)), before)
    assert trained(encoder) and all(".lora_" in name for name in trained(encoder))
    targets = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained(encoder)}
    assert targets == set(LORA_TARGETS[kind])
    learn(encoder)
    after = encoder(films(encoder))
    assert not torch.allclose(after, before)
    assert encoder.base_digest() == base != encoder.digest()
    exact = copy.deepcopy(encoder).double()
    expected = exact(films(encoder))
    merge_lora(exact)
    assert torch.allclose(exact(films(encoder)), expected, atol=1e-10)
    merge_lora(encoder)
    assert torch.allclose(encoder(films(encoder)), after, atol=1e-3)  # cosine attention magnifies rounding
    assert set(encoder.state_dict()) == set(tiny(kind).state_dict())
    assert encoder.base_digest() != base


def test_first_step_leaves_a_without_gradient_and_the_base_without_any() -> None:
    encoder = tiny()
    apply_lora(encoder, r=2)
    encoder(films(encoder)).square().mean().backward()
    for name, parameter in encoder.named_parameters():
        if "lora_A" in name:
            assert parameter.grad is not None and not parameter.grad.any()
        elif "lora_B" in name:
            assert parameter.grad is not None and parameter.grad.any()
        else:
            assert parameter.grad is None


def test_adapters_stay_float32_beside_a_half_precision_base() -> None:
    encoder = tiny("dinov2", dtype="bfloat16")
    apply_lora(encoder, r=2)
    assert {parameter.dtype for parameter in trained(encoder).values()} == {torch.float32}
    learn(encoder, steps=1)
    assert encoder(films(encoder)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": ["query"]}, "q_proj"),
        ({"targets": ["q_proj", "nothing"]}, "nothing"),
        ({"targets": []}, "no targets"),
        ({"targets": ["layernorm"]}, "linear"),
        ({"r": 0}, "r=0"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_wrong_adapters_are_refused_and_change_nothing(options: dict[str, Any], said: str) -> None:
    encoder = tiny()
    digest = encoder.digest()
    with pytest.raises(UserError, match=said):
        apply_lora(encoder, **options)
    assert encoder.digest() == digest


def test_twice_is_refused() -> None:
    encoder = tiny()
    apply_lora(encoder)
    with pytest.raises(UserError, match="already"):
        apply_lora(encoder)


class Parent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vision = freeze(tiny())
        self.head = nn.Dropout(0.5)


@pytest.mark.parametrize("copied", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_frozen_stays_in_eval_mode_under_a_training_parent(copied: Any) -> None:
    """Swin's drop-path is 0.1: in train mode two passes differ."""
    parent = copied(Parent())
    assert parent.train() is parent
    assert parent.head.training and not any(module.training for module in parent.vision.modules())
    x = films(parent.vision)
    outputs = [parent.vision(x) for _ in range(4)]
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert not outputs[0].requires_grad
    unfreeze(parent.vision)
    parent.train()
    assert all(module.training for module in parent.vision.modules())


def test_deep_mode_trains_everything() -> None:
    encoder = freeze(tiny())
    train_fully(encoder)
    assert len(trained(encoder)) == len(list(encoder.parameters()))
    encoder.train()
    assert encoder.backbone.training


def test_lora_after_freeze_has_active_dropout() -> None:
    encoder = freeze(tiny())
    apply_lora(encoder, dropout=0.5)
    encoder.train()
    assert any(isinstance(module, nn.Dropout) and module.p == 0.5 and module.training for module in encoder.modules())
