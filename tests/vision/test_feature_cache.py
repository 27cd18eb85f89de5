"""Cached features: equal to the encoder's, exactly once over ranks, restartable, and never another encoder's."""

from __future__ import annotations

import dataclasses
import io
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rrg.batching.film_policy import FilmPolicy
from rrg.batching.images import Augmentation, prepare_film
from rrg.batching.pictures import prepare_pictures
from rrg.data.study import Sections, Study, View
from rrg.errors import UserError
from rrg.shards.images import ImagePolicy
from rrg.shards.plan import SourceStudy
from rrg.shards.reader import DamagedSample, ShardSet
from rrg.shards.writer import build_shards
from rrg.vision.adapters import freeze
from rrg.vision.encoders import VisionEncoder, build_encoder
from rrg.vision.feature_build import build_features
from rrg.vision.feature_cache import CacheIdentity, FeatureCache, refuse_augmentation

STUDIES = 23
DAMAGED = 9


def tiny(seed: int = 0, **options: object) -> VisionEncoder:
    torch.manual_seed(seed)
    return freeze(build_encoder("dinov2", "random:tiny-dinov2", **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Twenty-three studies of one to three films in shards of five, one of which does not decode though its bytes are whole."""
    folder = tmp_path_factory.mktemp("shards")
    generator = np.random.default_rng(0)
    studies = []
    for number in range(STUDIES):
        paths = []
        for view in range(1 + number % 3):
            path = folder / f"{number}-{view}.jpg"
            buffer = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (40, 33 + number), dtype=np.uint8)).save(buffer, "JPEG", quality=90)
            path.write_bytes(buffer.getvalue())
            paths.append(str(path))
        study = Study(f"s{number:03d}", f"p{number}", "train", tuple(View("") for _ in paths), Sections(findings="clear ."))
        studies.append(SourceStudy(study, tuple(paths)))
    build_shards(
        folder / "out",
        studies,
        source={"name": "test"},
        policy=ImagePolicy(),
        parser_version="1",
        studies_per_shard=5,
    )
    return Broken(folder / "out", "train")


class Broken(ShardSet):
    """A shard set one film of which was cut short before it was packed (the packer itself refuses such films)."""

    def read(self, index: int):  # type: ignore[no-untyped-def]
        sample = super().read(index)
        if index == DAMAGED:
            images = (*sample.images[:-1], sample.images[-1][:-60])
            return dataclasses.replace(sample, images=images)
        return sample


def expected(encoder: VisionEncoder, shards: ShardSet, index: int) -> torch.Tensor:
    films = torch.stack([prepare_film(data, encoder.preprocessing) for data in shards.read(index).images])
    with torch.no_grad():
        return encoder(films).to(torch.bfloat16)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def files_only(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("options", [{}, {"grid": 2}, {"tokens": "global"}, {"layer": -2}])
def test_features_are_the_encoder_s(options: dict[str, object], shards: ShardSet, tmp_path: Path) -> None:
    encoder = tiny(**options)
    told: list[tuple[int, int]] = []
    report = build_features(encoder, shards, tmp_path, arithmetic="float32", batch_size=4, progress=lambda *at: told.append(at))
    assert told[0] == (0, 23) and told == sorted(told) and {(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)} < set(told)
    assert (report.shards, report.kept) == (5, 0)
    assert report.films == sum(1 + number % 3 for number in range(STUDIES)) - (1 + DAMAGED % 3)
    cache = FeatureCache(tmp_path, shards, CacheIdentity.of(encoder, "float32"))
    assert len(cache) == STUDIES and cache.shape == (encoder.tokens, encoder.width)
    for index in range(STUDIES):
        if index == DAMAGED:
            continue
        found = cache.get(index)
        assert found.dtype == torch.bfloat16 and found.shape == (1 + index % 3, *cache.shape)
        assert torch.allclose(found.float(), expected(encoder, shards, index).float(), atol=0.02)
        assert found.untyped_storage().nbytes() == found.numel() * 2  # a worker sends no more than the study


def test_damaged_studies_are_recorded_with_their_reason(shards: ShardSet, tmp_path: Path) -> None:
    encoder = tiny()
    report = build_features(encoder, shards, tmp_path)
    again = build_features(encoder, shards, tmp_path)
    assert (again.shards, again.kept, again.films) == (5, 5, report.films)
    cache = FeatureCache(tmp_path, shards, CacheIdentity.of(encoder))
    assert list(cache.damaged) == [DAMAGED]
    for damage in (*report.damaged, *again.damaged):
        assert (damage.study, damage.shard) == ("s009", "train-000001.tar")
    with pytest.raises(DamagedSample) as caught:
        cache.get(DAMAGED)
    assert caught.value.member == "s009.0.jpg" and caught.value.reason
    for index in (-1, STUDIES):
        with pytest.raises(IndexError):
            cache.get(index)


def test_ranks_share_the_shards_and_the_files_do_not_depend_on_them(shards: ShardSet, tmp_path: Path) -> None:
    encoder = tiny()
    build_features(encoder, shards, tmp_path / "one", batch_size=3)
    parts = [build_features(encoder, shards, tmp_path / "many", batch_size=3, rank=rank, world=7, workers=1) for rank in range(7)]
    assert [part.shards for part in parts] == [1, 1, 1, 1, 1, 0, 0]
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_unfinished_caches_are_refused_and_finished_later(shards: ShardSet, tmp_path: Path) -> None:
    encoder = tiny()
    identity = CacheIdentity.of(encoder)
    with pytest.raises(UserError, match="build them first"):
        FeatureCache(tmp_path, shards, identity)
    build_features(encoder, shards, tmp_path, rank=1, world=3)
    with pytest.raises(UserError, match=r"lacks the features of 3 of 5 shards, first train-000000\.tar"):
        FeatureCache(tmp_path, shards, identity)
    one = next(tmp_path.glob("train-000001*.safetensors"))
    one.write_bytes(one.read_bytes()[:-10])
    report = build_features(encoder, shards, tmp_path)
    assert (report.shards, report.kept) == (5, 1)
    FeatureCache(tmp_path, shards, identity)


def _build(encoder: VisionEncoder, shards: ShardSet, folder: Path) -> None:
    torch.set_num_threads(1)
    build_features(encoder, shards, folder, batch_size=1, workers=1, progress=lambda *at: time.sleep(0.05))


def test_killed_anywhere_and_built_again(shards: ShardSet, tmp_path: Path) -> None:
    encoder = tiny()
    build_features(encoder, shards, tmp_path / "whole", batch_size=1)
    wanted = files(tmp_path / "whole")
    folder = tmp_path / "killed"
    for wait in (0.01, 0.03, 0.06, 0.1, 0.15):
        process = multiprocessing.get_context("fork").Process(target=_build, args=(encoder, shards, folder))
        process.start()
        time.sleep(wait)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        for name, data in files(folder).items() if folder.exists() else ():
            assert name.endswith(".part") or data == wanted[name]
    build_features(encoder, shards, folder, batch_size=1)
    assert {name: data for name, data in files(folder).items() if not name.endswith(".part")} == wanted


def test_leftovers_of_killed_builds_go_after_an_hour(shards: ShardSet, tmp_path: Path) -> None:
    old, young = tmp_path / ".train.1.part", tmp_path / ".train.2.part"
    for path in (old, young):
        path.write_bytes(b"")
    os.utime(old, (1, 1))
    build_features(tiny(), shards, tmp_path, rank=9, world=10)
    assert not old.exists() and young.exists()


def test_another_encoder_or_preprocessing_is_refused_by_name(shards: ShardSet, tmp_path: Path) -> None:
    build_features(tiny(), shards, tmp_path)
    before = files(tmp_path)
    changed = tiny()
    changed.preprocessing = dataclasses.replace(changed.preprocessing, mean=(0.5, 0.5, 0.5))
    for encoder, arithmetic, said in (
        (tiny(seed=1), "bfloat16", "encoder weights is"),
        (tiny(grid=2), "bfloat16", "tokens.grid is None, not 2"),
        (tiny(resize="pad"), "bfloat16", "preprocessing.resize is squash, not pad"),
        (changed, "bfloat16", "preprocessing.mean is"),
        (tiny(), "float32", "arithmetic is bfloat16, not float32"),
    ):
        with pytest.raises(UserError) as caught:
            FeatureCache(tmp_path, shards, CacheIdentity.of(encoder, arithmetic))
        assert said in str(caught.value) and "vision.cache" in str(caught.value)
        with pytest.raises(UserError):
            build_features(encoder, shards, tmp_path, arithmetic=arithmetic)
    assert files(tmp_path) == before
    (tmp_path / "cache.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        FeatureCache(tmp_path, shards, CacheIdentity.of(tiny()))


@pytest.mark.parametrize(
    "policy", [FilmPolicy(most=1), FilmPolicy("ranked", 2), FilmPolicy("stored", 4, stitch=True)], ids=["one", "two", "stitched"]
)
def test_only_the_pictures_of_the_policy_are_computed(policy: FilmPolicy, shards: ShardSet, tmp_path: Path) -> None:
    encoder = tiny(resize="pad")
    seen: list[int] = []
    encoder.register_forward_hook(lambda module, films, out: seen.append(len(films[0])))
    report = build_features(encoder, shards, tmp_path, films=policy, batch_size=4, arithmetic="float32")
    identity = CacheIdentity.of(encoder, "float32", policy)
    cache = FeatureCache(tmp_path, shards, identity)
    readable = [index for index in range(STUDIES) if index not in cache.damaged]
    shown = {index: len(policy.kinds(shards.study(index).views)) for index in readable}
    assert sum(seen) == report.films == sum(shown.values()) < sum(1 + index % 3 for index in readable)
    for index in readable:
        pictures = prepare_pictures(shards.read(index), "", policy, encoder.preprocessing)
        with torch.no_grad():
            wanted = encoder(pictures).to(torch.bfloat16)
        assert cache.get(index).shape == wanted.shape and torch.allclose(cache.get(index).float(), wanted.float(), atol=0.02)
    for other in (FilmPolicy(), FilmPolicy("frontal", policy.most, policy.stitch), FilmPolicy(policy.views, 3, policy.stitch)):
        with pytest.raises(UserError, match=r"films\.(views|most|stitch) is"):
            FeatureCache(tmp_path, shards, CacheIdentity.of(encoder, "float32", other))


def test_bytes_that_cannot_be_had_now_leave_nothing_in_the_cache(shards: ShardSet, tmp_path: Path) -> None:
    """A server that fails today may answer tomorrow: such a study is not damaged for good."""

    class Away(Broken):
        def read(self, index: int):  # type: ignore[no-untyped-def]
            if index == 7:
                raise DamagedSample("s007", "train-000001.tar", "s007.json", "cannot be read: timed out", unreadable=True)
            return super().read(index)

    away, encoder = Away(shards.root, "train"), tiny()
    with pytest.raises(UserError, match=r"s007.*timed out.*train-000001\.tar are not written, run the same command again"):
        build_features(encoder, away, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    build_features(encoder, shards, tmp_path)
    build_features(encoder, shards, tmp_path / "whole")
    assert files(tmp_path / "whole") == files_only(tmp_path)


def test_a_trained_encoder_and_augmentation_are_refused(shards: ShardSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    with pytest.raises(UserError, match=r"vision\.train=frozen"):
        build_features(build_encoder("vit", "random:tiny-vit"), shards, tmp_path)
    assert not list(tmp_path.iterdir())
    refuse_augmentation(Augmentation())
    with pytest.raises(UserError, match="augment"):
        refuse_augmentation(Augmentation(flip=0.1))


def _digest(job: tuple[FeatureCache, int]) -> bytes:
    return job[0].get(job[1]).view(torch.int16).numpy().tobytes()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_in_other_processes(method: str, shards: ShardSet, tmp_path: Path) -> None:
    encoder = tiny()
    build_features(encoder, shards, tmp_path)
    cache = FeatureCache(tmp_path, shards, CacheIdentity.of(encoder))
    wanted = [index for index in range(STUDIES) if index != DAMAGED]
    ours = [_digest((cache, index)) for index in wanted]  # files are open here before the fork
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(_digest, [(cache, index) for index in wanted]) == ours
    assert [_digest((pickle.loads(pickle.dumps(cache)), index)) for index in wanted] == ours  # noqa: S301


def test_a_lost_file_is_said_at_the_read(shards: ShardSet, tmp_path: Path) -> None:
    encoder = tiny()
    build_features(encoder, shards, tmp_path)
    cache = FeatureCache(tmp_path, shards, CacheIdentity.of(encoder))
    next(tmp_path.glob("train-000000*.safetensors")).unlink()
    with pytest.raises(UserError, match="build the features again"):
        cache.get(0)


def test_a_shard_that_changes_is_computed_again(shards: ShardSet, tmp_path: Path) -> None:
    encoder = tiny()
    build_features(encoder, shards, tmp_path)
    entries = shards.manifest.shards
    other = dataclasses.replace(entries[2], sha256="f" * 64)
    shards.manifest = dataclasses.replace(shards.manifest, shards=(*entries[:2], other, *entries[3:]))
    try:
        with pytest.raises(UserError, match=r"1 of 5 shards, first train-000002\.tar"):
            FeatureCache(tmp_path, shards, CacheIdentity.of(encoder))
        assert build_features(encoder, shards, tmp_path).kept == 4
    finally:
        shards.manifest = dataclasses.replace(shards.manifest, shards=entries)
