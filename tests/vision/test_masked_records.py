"""The ViT of masked record modelling, its streams, masking, decoder, adapters and weights (spec alta §2, §3, §11)."""

import math

import pytest
import torch
from safetensors.torch import save_file

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.data.projections import KINDS
from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.vision.bottleneck import Bottleneck
from rrg.vision.family import VISION
from rrg.vision.image_decoder import normalised_patches, patchify, unpatchify
from rrg.vision.masked_records import MaskedRecordEncoder, MaskedShape
from rrg.vision.masking import draw_masking, gathered_tokens
from rrg.vision.options import Dinov2Options, MrmOptions
from rrg.vision.positions import sincos_positions
from rrg.vision.streams import has_frontal, in_streams

SIZES = {"image_size": 32, "patch_size": 8, "width": 16, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 1}
SIZES |= {"decoder_heads": 2}
DRAWS = torch.tensor([3, 4, 5])


def encoder(adapted=True, missing="release", decodes=True, ratio=0.75):
    torch.manual_seed(1)
    built = MaskedRecordEncoder(MaskedShape(**SIZES), ratio=ratio, missing=missing, decodes=decodes)
    if adapted:
        built.set_adapters()
    return built.eval()


def streams(size=32, seed=0):
    return torch.randn(3, 4, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_positions_are_those_of_masked_autoencoders():
    table = sincos_positions(16, 3)[0]
    assert table.shape == (10, 16) and not table[0].any()
    for row in range(3):
        for column in range(3):
            for half, place in ((0, column), (8, row)):
                angles = [place * 10000 ** -(i / 4) for i in range(4)]
                wanted = [*map(math.sin, angles), *map(math.cos, angles)]
                assert table[1 + 3 * row + column, half : half + 8].tolist() == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_positions(6, 2)


def test_masking_keeps_a_quarter_and_can_be_undone():
    masking = draw_masking(DRAWS, 4, 196, 0.75)
    assert masking.kept.shape == (3, 4, 49) and (masking.hidden.sum(-1) == 147).all()
    x = torch.randn(3, 4, 196, 5)
    seen = gathered_tokens(x, masking.kept)
    holes = torch.full((3, 4, 147, 5), torch.nan)
    back = gathered_tokens(torch.cat([seen, holes], dim=2), masking.restore)
    assert torch.equal(back[~masking.hidden], x[~masking.hidden]) and back[masking.hidden].isnan().all()
    again = draw_masking(DRAWS.flip(0), 4, 196, 0.75)
    assert torch.equal(again.kept.flip(0), masking.kept), "a study's mask does not depend on its company"
    assert not torch.equal(masking.kept[:, 0], masking.kept[:, 1]), "films are masked by themselves"


def test_patches_of_thirty_two_and_back():
    films = torch.randn(2, 3, 448, 448)
    patches = patchify(films, 32)
    assert patches.shape == (2, 196, 3072) and torch.equal(unpatchify(patches, 32), films)
    assert torch.equal(patches[0, 15].reshape(32, 32, 3)[1, 2], films[0, :, 33, 34])
    normal = normalised_patches(patches)
    assert normal.mean(-1).abs().max() < 1e-5 and (normal.var(-1) - 1).abs().max() < 1e-4


def test_shapes_at_the_published_sizes():
    recipe = load_recipe("alta_mimic").value
    facts = {"objectives": frozenset({"masked_image"})}
    built = VISION.build(recipe.vision, context=BuildContext(meta=True, facts=facts))
    assert (built.preprocessing.size, built.preprocessing.shorter) == (448, 512)
    assert (built.evaluation.size, built.evaluation.shorter) == (224, 256)
    assert built.preprocessing.mean == (0.4785,) and built.preprocessing.std == (0.2834,)
    tokens, there = built.tokens(torch.empty(2, 4, 3, 448, 448, device="meta"))
    assert tokens.shape == (2, 4, 196, 768) and there.shape == (2, 4)
    seen = built._blocks(tokens[:, :, :49])
    assert seen.shape == (2, 4, 50, 768) and seen[:, :, 1:].flatten(1, 2).shape == (2, 196, 768)
    assert [block.attn.heads for block in built.blocks] == [12] * 12
    assert [block.attn.heads for block in built.decoder.decoder_blocks] == [6] * 4
    assert built.decoder.decoder_pred.out_features == 3072


def test_adapters_start_as_the_frozen_tower_and_have_the_stated_sizes():
    plain, adapted = encoder(adapted=False), encoder()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    films = streams()
    for left, right in zip(plain(films)[:2], adapted(films)[:2], strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)
    for module in adapted.modules():
        if isinstance(module, Bottleneck):
            D = module.up.out_features
            assert sum(p.numel() for p in module.parameters()) == 2 * D * (D // 4) + D // 4 + D
    assert sum(isinstance(module, Bottleneck) for module in adapted.modules()) == 4
    with torch.no_grad():
        adapted.blocks[0].attn.adapter.up.weight.normal_()
    assert not torch.allclose(plain(films).cls, adapted(films).cls)
    beside = encoder()
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        beside.blocks[0].mlp.adapter.up.weight.normal_()
        inner = beside.blocks[0].mlp
        wanted = inner.fc2(torch.nn.functional.gelu(inner.fc1(x))) + 0.5 * inner.adapter(x)
        torch.testing.assert_close(inner(x), wanted)


def test_trained_parameters_are_a_list_and_follow_the_table():
    for missing, more in (("release", 0), ("learned", 16 * 16)):
        built = encoder(missing=missing)
        trained = {name: p.numel() for name, p in built.named_parameters() if p.requires_grad}
        D, blocks, P = 16, 2, 3 * 16 * 16
        adapters = 2 * blocks * (2 * D * (D // 4) + D // 4 + D)
        norms = (2 * blocks + 1 + 3) * 2 * D
        wanted = adapters + norms + 2 * D + 4 * D + (D * D + D) + (D * P + P) + more
        assert sum(trained.values()) == wanted
        assert not any(word in name for name in trained for word in ("qkv", "proj", "fc", "pos_embed"))


def test_films_do_not_see_each_other():
    built, films = encoder(), streams(64)
    other = films.clone()
    other[:, 2] = torch.randn_like(other[:, 2])
    for draws in (None, DRAWS):
        here, there = (built._blocks(built.tokens(x)[0]) for x in (films, other))
        assert torch.equal(here[:, :2], there[:, :2]) and not torch.allclose(here[:, 2], there[:, 2])
        one, two = built(films, draws), built(other, draws)
        assert not torch.allclose(one.cls, two.cls), "the mean of the class tokens has it"
        if draws is not None:
            assert torch.equal(one.predicted, two.predicted), "the decoder sees the current frontal film alone"


def test_an_absent_film_is_the_missing_token():
    for missing in ("release", "learned"):
        built, films = encoder(missing=missing), streams()
        with torch.no_grad():
            built.missing_token.normal_()
            built.temporal_embedding.normal_()
        films[:, 3] = 0
        tokens, there = built.tokens(films)
        assert there.tolist() == [[True, True, True, False]] * 3
        torch.testing.assert_close(tokens[0, 3], built.missing_token[0] + built.pos_embed[0, 1:])
        x = built._blocks(tokens)[:, :, 0]
        wanted = x.mean(1) if missing == "release" else x[:, :3].mean(1)
        torch.testing.assert_close(built(films).cls, wanted)


def item(study, kinds, days, films):
    return Item(study, Tokens([], [], [1, 2], False), films=films, kinds=kinds, days=days)


def test_a_batch_is_laid_out_in_streams_whatever_stands_behind_its_mask():
    frontal, lateral = KINDS.index("PA"), KINDS.index("lateral")
    films = torch.randn(4, 3, 8, 8)
    items = [
        item("a", (frontal, lateral, 0, lateral), (0, 0, 3, 3), films),
        item("b", (lateral,), (0,), films[:1]),
        item("c", (frontal, frontal), (0, math.inf), films[:2]),
        item("", (), (), torch.zeros(1, 3, 8, 8)),
    ]
    batch = collate(items)
    assert batch.pixel_values is not None
    batch.pixel_values[~batch.view_mask] = 7.0
    laid = in_streams(batch)
    assert torch.equal(laid[0], films) and torch.equal(laid[1, 1], films[0]) and torch.equal(laid[2, 2], films[1])
    for study, stream in ((1, 0), (1, 2), (1, 3), (2, 1), (2, 3), (3, 0), (3, 1)):
        assert not laid[study, stream].any()
    assert has_frontal(batch).tolist() == [True, False, True, False]


def test_the_larger_film_is_the_target_and_the_smaller_is_made_from_it():
    built, large = encoder(), streams(64)
    seen = built(large, DRAWS)
    assert seen.predicted.shape == seen.target.shape == (3, 16, 768) and (seen.hidden.sum(1) == 12).all()
    torch.testing.assert_close(seen.target, normalised_patches(patchify(large[:, 0], 16)))
    small = torch.nn.functional.interpolate(large[:, 0], size=(32, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(built.tokens(large)[0][:, 0], built.tokens(small[:, None])[0][:, 0])
    with pytest.raises(ValueError, match="the decoder's target is 64×64"):
        built(streams(32), DRAWS)
    assert encoder(decodes=False)(streams(32), DRAWS).predicted is None


def published_file(folder, suffix, **changed):
    source = encoder(adapted=False)
    tensors = {name.removeprefix("decoder."): t.clone() for name, t in source.state_dict().items()}
    for name in ("missing_token", "temporal_embedding", "view_embedding"):
        del tensors[name]
    tensors |= {"bert_mlp.weight": torch.zeros(2), "bert_encoder.model.x": torch.zeros(1), **changed}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    path = folder / f"mrm{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save({"model": tensors, "epoch": 3}, path)
    return source, path


def build(path, decodes=True):
    facts = {"objectives": frozenset({"masked_image"} if decodes else ())}
    return VISION.build(MrmOptions(name=str(path), architecture=SIZES), context=BuildContext(facts=facts))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_published_weights_are_loaded(tmp_path, suffix):
    source, path = published_file(tmp_path, suffix)
    for decodes in (True, False):
        built = build(path, decodes)
        state = built.state_dict()
        for name, tensor in source.state_dict().items():
            if decodes or not name.startswith("decoder."):
                assert torch.equal(state[name], tensor), name


def test_weights_that_do_not_fit_are_refused_with_a_list(tmp_path):
    _, path = published_file(tmp_path, ".pth", **{"norm.weight": None, "norm.bias": torch.zeros(3), "extra.w": torch.zeros(1)})
    with pytest.raises(UserError, match=r"1 missing \(norm.weight\); 1 not known \(extra.w\); 1 of another shape \(norm.bias\)"):
        build(path)
    with pytest.raises(UserError, match="no such file"):
        build(tmp_path / "nothing.pth")
    (tmp_path / "junk.pth").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="not a checkpoint of tensors alone"):
        build(tmp_path / "junk.pth")
    torch.save({"model": print}, tmp_path / "code.pth")
    with pytest.raises(UserError, match=r"not a checkpoint of tensors alone"):
        build(tmp_path / "code.pth")
    for sizes, says in (
        ({"depht": 2}, "did you mean 'depth'"),
        ({"heads": 5}, "multiple of its 5 heads"),
        ({"depth": 0}, "no whole"),
    ):
        with pytest.raises(UserError, match=says):
            VISION.build(MrmOptions(name="random", architecture=sizes), context=BuildContext(meta=True))


def test_adapters_in_dinov2_leave_its_output_and_its_digest():
    torch.manual_seed(0)
    plain = VISION.build(Dinov2Options(name="random:tiny-dinov2"), context=BuildContext())
    torch.manual_seed(0)
    adapted = VISION.build(Dinov2Options(name="random:tiny-dinov2", train="adapters", adapted_blocks=1), context=BuildContext())
    adapted.eval()
    size = plain.preprocessing.size
    films = torch.randn(2, 3, size, size)
    assert torch.equal(plain(films), adapted(films)) and plain.digest() == adapted.base_digest() != adapted.digest()
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    last = len(adapted.backbone.encoder.layer) - 1
    assert all(f"layer.{last}." in name or ".layernorm." in name for name in trained) and any("adapter" in n for n in trained)
    with torch.no_grad():
        adapted.backbone.encoder.layer[last].mlp.adapter.up.weight.normal_()
    assert not torch.allclose(plain(films), adapted(films))
    with pytest.raises(UserError, match="adapted_blocks: 9, but this encoder has"):
        VISION.build(
            Dinov2Options(name="random:tiny-dinov2", train="adapters", adapted_blocks=9), context=BuildContext(meta=True)
        )
    with pytest.raises(UserError, match="adapters are for kind dinov2 and mrm"):
        load_recipe("tiny/r2gengpt_iu", ["vision.train=adapters"])
