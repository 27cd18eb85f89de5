"""Published sizes, without a download."""

from __future__ import annotations

import pytest

from rrg.errors import UserError
from rrg.vision.architectures import ARCHITECTURES, FIELDS, architecture_of
from rrg.vision.encoders import build_encoder

# Parameters without a classification head. DINOv2 without the mask token that only pre-training reads (published + width).
PUBLISHED = {
    "microsoft/swin-tiny-patch4-window7-224": (27_519_354, 49, 768),
    "microsoft/swin-base-patch4-window7-224": (86_743_224, 49, 1024),
    "microsoft/swin-base-patch4-window12-384": (86_878_584, 144, 1024),
    "google/vit-base-patch16-224": (85_798_656, 196, 768),
    "facebook/dinov2-small": (22_056_576 - 384, 256, 384),
    "facebook/dinov2-base": (86_580_480 - 768, 256, 768),
    "facebook/dinov2-large": (304_368_640 - 1024, 256, 1024),
    "openai/clip-vit-large-patch14-336": (303_507_456, 576, 1024),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name: str) -> None:
    kind = ARCHITECTURES[name][0]
    pooled = build_encoder(kind, name, tokens="global" if kind == "clip" else "patches", device="meta")
    count, tokens, width = PUBLISHED[name]
    assert sum(parameter.numel() for parameter in pooled.parameters()) == count
    assert all(parameter.is_meta for parameter in pooled.parameters())
    patches = build_encoder(kind, name, device="meta")
    assert (patches.tokens, patches.width) == (tokens, width)


def test_every_kind_has_a_tiny_one_and_known_fields() -> None:
    for kind, fields in FIELDS.items():
        encoder = build_encoder(kind, f"random:tiny-{kind}")
        assert all(hasattr(encoder.backbone.config, field) for field in fields)


def test_a_name_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match=r"vision\.kind=dinov2"):
        architecture_of("facebook/dinov2-base", "vit")
    with pytest.raises(UserError, match="swin-base"):
        architecture_of("microsoft/swin-bse-patch4-window7-224", "swin")
