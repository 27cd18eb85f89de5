"""Shards in a bucket, from a server that speaks S3: credentials and address come from the environment alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from synthetic_studies import build, make_studies

from rrg.errors import UserError
from rrg.shards import patience
from rrg.shards.reader import Sample, ShardSet
from rrg.shards.reading import Reading
from rrg.shards.verify import verify_shards

pytest.importorskip("s3fs", reason="s3:// needs the package s3fs")
pytest.importorskip("moto.server", reason="needs moto's S3 server")
import boto3
from moto.server import ThreadedMotoServer

BUCKET = "films"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("s3")
    build(root / "shards", make_studies(root / "films", 20, splits=("train", "val", "train", "test")))
    return root / "shards"


@pytest.fixture(scope="module")
def endpoint(folder):
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint, folder, monkeypatch) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.01)
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    for path in folder.iterdir():
        if path.is_file():
            client.upload_file(str(path), BUCKET, f"chest/{path.name}")
    return f"s3://{BUCKET}/chest"


@pytest.fixture
def reading(tmp_path) -> Reading:
    return Reading(str(tmp_path / "cache"), timeout=120, retries=1, block_bytes=8192)


@pytest.fixture(scope="module")
def clean(folder) -> list[Sample]:
    split = ShardSet(folder, "train")
    return [split.read(index) for index in range(len(split))]


def as_it_is(sample: Sample) -> Sample:
    return sample


class Films:
    def __init__(self, split: ShardSet) -> None:
        self.split = split

    def __getitem__(self, index: int) -> Sample:
        return self.split.read(index)


def test_a_bucket_reads_as_the_folder_does(bucket, reading, clean, folder):
    split = ShardSet(bucket, "train", reading)
    order = random.Random(2).sample(range(len(clean)), len(clean))
    assert [split.read(index) for index in order] == [clean[index] for index in order]
    assert split.traffic.sequential_fraction > 0.9 and split.traffic.failures == 0
    direct = ShardSet(bucket, "train", Reading(cache_bytes=0, timeout=120, retries=1))
    assert [direct.study(index) for index in order] == [clean[index].study for index in order]
    report = verify_shards(bucket)
    assert report.ok and not report.notes  # a bucket can be listed


def test_forked_workers_of_a_bucket(bucket, reading, clean):
    from torch.utils.data import DataLoader

    split = ShardSet(bucket, "train", reading)
    assert split.read(0) == clean[0]  # the parent's event loop and connections are there now
    order = list(range(len(clean)))
    loader = DataLoader(
        Films(split), batch_size=None, sampler=order, num_workers=2, multiprocessing_context="fork", collate_fn=as_it_is
    )
    for _ in range(2):
        assert list(loader) == clean
        assert split.read(3) == clean[3]


def test_what_is_not_there_is_one_line(bucket, reading, folder):
    with pytest.raises(UserError, match=r"no folder of shards at s3://films/none: there is no s3://films/none/manifest\.json"):
        ShardSet("s3://films/none", "train", reading)
    with pytest.raises(UserError, match="s3://nobucket-here/x"):
        ShardSet("s3://nobucket-here/x", "train", reading)
    boto3.client("s3").delete_object(Bucket=BUCKET, Key="chest/train-000001.tar")
    with pytest.raises(UserError, match=r"s3://films/chest/train-000001\.tar is missing"):
        ShardSet(bucket, "train", reading)
    assert any("train-000001.tar: missing" in difference for difference in verify_shards(bucket).differences)


def test_a_shard_cut_short_in_the_bucket(bucket, reading, folder):
    data = (folder / "train-000000.tar").read_bytes()
    boto3.client("s3").put_object(Bucket=BUCKET, Key="chest/train-000000.tar", Body=data[:5000])
    with pytest.raises(UserError, match=f"train-000000.tar has 5000 bytes, the manifest says {len(data)}"):
        ShardSet(bucket, "train", reading)


def test_without_credentials(bucket, reading, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"s3://films/chest/manifest\.json cannot be read: access refused"):
        ShardSet(bucket, "train", reading)


def test_nobody_listens_at_the_endpoint(bucket, reading, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"s3://films/chest/manifest\.json cannot be read"):
        ShardSet(bucket, "train", Reading(reading.cache_dir, timeout=1, retries=1))
