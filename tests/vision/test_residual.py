"""Residual networks: normalisation that does not depend on the batch, from scratch and pretrained."""

from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from rrg.errors import UserError
from rrg.vision.adapters import apply_lora
from rrg.vision.architectures import ARCHITECTURES
from rrg.vision.encoders import build_encoder
from rrg.vision.residual import StillBatchNorm, group_normalised


def tiny(**options):
    torch.manual_seed(0)
    return build_encoder("resnet", "random:tiny-resnet", image_size=32, **options)


def published(folder: Path):
    torch.manual_seed(1)
    model = transformers.ResNetForImageClassification(transformers.ResNetConfig(**ARCHITECTURES["tiny-resnet"][1]))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    model.save_pretrained(folder)
    return model.resnet.eval()


def test_a_film_s_tokens_do_not_depend_on_its_batch_in_either_mode():
    encoder, x = tiny(), torch.randn(3, 3, 32, 32)
    for mode in (True, False):
        encoder.train(mode)
        torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]), rtol=1e-4, atol=1e-5)
    assert not list(encoder.named_buffers()) and not any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())


def test_tokens_are_the_last_map_row_by_row(tmp_path):
    backbone = published(tmp_path)
    encoder = build_encoder("resnet", str(tmp_path), image_size=64).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = backbone(x).last_hidden_state  # [2, 16, 8, 8]
        torch.testing.assert_close(encoder(x), expected.flatten(2).transpose(1, 2))
        pooled = build_encoder("resnet", str(tmp_path), image_size=64, tokens="global").eval()(x)
        torch.testing.assert_close(pooled[:, 0], expected.mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert encoder.tokens == 64 and encoder.width == 16


def test_a_pretrained_network_keeps_its_statistics_and_they_are_in_its_digest(tmp_path):
    published(tmp_path)
    encoder = build_encoder("resnet", str(tmp_path), image_size=64).train()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    encoder(torch.randn(4, 3, 64, 64)).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(isinstance(module, StillBatchNorm) and not module.training for module in norms)
    digest = encoder.digest()
    norms[0].running_mean += 1
    assert encoder.digest() != digest


def test_groups_divide_any_number_of_channels():
    for channels in (1, 7, 8, 12, 33):
        network = group_normalised(nn.Sequential(nn.Conv2d(3, channels, 1), nn.BatchNorm2d(channels)))
        assert network(torch.randn(2, 3, 4, 4)).shape == (2, channels, 4, 4)


def test_what_a_residual_network_has_not_is_refused():
    with pytest.raises(UserError, match="multiple of 8"):
        build_encoder("resnet", "random:tiny-resnet", image_size=30)
    with pytest.raises(UserError, match="no class token"):
        tiny(tokens="all")
    with pytest.raises(UserError, match="no targets"):
        apply_lora(tiny(), r=2, alpha=2)
