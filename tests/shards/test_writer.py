"""Shards are reproducible to the byte, readable by anyone, and refuse what cannot be right."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import webdataset as wds
from synthetic_studies import build, contents, jpeg, make_studies

from rrg.data.study import Sections, Study, View
from rrg.errors import UserError
from rrg.shards.images import ImagePolicy, prepare_film, prepared_size
from rrg.shards.index import parse_index
from rrg.shards.manifest import Manifest, index_name
from rrg.shards.plan import SourceStudy, stored_study
from rrg.shards.verify import verify_shards
from rrg.shards.writer import Excluded

GOLDEN_FILM = (np.add.outer(np.arange(40), np.arange(30)) * 3).astype(np.uint8)
GOLDEN_FILM_SHA256 = "aa42d836c974d3e4e0298ba25dba9f306bbad1841f989490df0fa79e755b5ea1"
GOLDEN_TAR_SHA256 = "e312e6a3a88aeb7770b822cc0411d197440bd2d0901f79f70427179885a98b09"


def change(source: SourceStudy, **fields) -> SourceStudy:
    return dataclasses.replace(source, study=dataclasses.replace(source.study, **fields))


def test_same_bytes_for_any_number_of_workers(tmp_path, studies):
    seen: list[tuple[int, int]] = []
    one = build(tmp_path / "one", studies, policy=ImagePolicy(32), progress=lambda done, total: seen.append((done, total)))
    two = build(tmp_path / "two", studies, policy=ImagePolicy(32), workers=2)
    assert one == two
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert seen[-1] == (30, 30)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_same_bytes_wherever_the_films_lie(tmp_path):
    """Nothing in the folder depends on the paths, times or owners of this machine."""
    first = make_studies(tmp_path / "here", 9)
    second = make_studies(tmp_path / "elsewhere" / "films", 9)
    for source in second:
        for path in source.images:
            os.utime(path, (1, 1))
    build(tmp_path / "a", first)
    build(tmp_path / "b", second)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_golden_bytes_of_a_tar(tmp_path):
    """Films that keep their bytes: the tar depends on no codec, so its hash may never change."""
    film = tmp_path / "f.jpg"
    film.write_bytes(jpeg(GOLDEN_FILM))
    assert hashlib.sha256(film.read_bytes()).hexdigest() == GOLDEN_FILM_SHA256, "another JPEG encoder: renew these values"
    study = Study("golden", "p", "train", (View("0.jpg", "PA"),), Sections("Lungs are clear."), {"No Finding": 1})
    manifest = build(tmp_path / "out", [SourceStudy(study, (str(film),))])
    assert manifest.shards[0].sha256 == GOLDEN_TAR_SHA256


def test_plain_webdataset_reads_it(shards, studies):
    for split in ("train", "val", "test"):
        paths = sorted(str(path) for path in shards.glob(f"{split}-*.tar"))
        samples = list(wds.WebDataset(paths, shardshuffle=False))
        given = [source for source in studies if source.study.split == split]
        assert [sample["__key__"] for sample in samples] == [source.study.id for source in given]
        for sample, source in zip(samples, given, strict=True):
            assert Study.from_json(sample["json"]) == stored_study(source)
            for view, path in enumerate(source.images):
                assert sample[f"{view}.jpg"] == prepare_film(Path(path).read_bytes(), ImagePolicy())


def test_members_are_in_order_and_anonymous(tmp_path):
    (study,) = make_studies(tmp_path / "films", 1)
    many = dataclasses.replace(study, images=study.images * 12)
    many = change(many, views=study.study.views * 12, id="x" * 128)
    build(tmp_path / "out", [many])
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["x" * 128 + ".json"] + [f"{'x' * 128}.{view}.jpg" for view in range(12)]
    assert {(m.mtime, m.uid, m.gid, m.mode, m.isreg()) for m in members} == {(0, 0, 0, 0o444, True)}
    assert verify_shards(tmp_path / "out").ok


def test_index_says_where_and_what(shards):
    manifest = Manifest.from_json((shards / "manifest.json").read_bytes())
    for shard in manifest.shards:
        tar = (shards / shard.name).read_bytes()
        assert (len(tar), hashlib.sha256(tar).hexdigest()) == (shard.bytes, shard.sha256)
        header, lines = parse_index((shards / index_name(shard.name)).read_bytes())
        assert (header.bytes, header.studies, header.images) == (shard.bytes, shard.studies, shard.images)
        for line in lines:
            place = line.members["json"]
            study = Study.from_json(tar[place.offset : place.offset + place.size])
            assert (study.id, study.patient, len(study.views)) == (line.id, line.patient, line.views)
            assert line.words["findings"] == len(study.sections.findings.split())
            assert line.labels == study.labels
            assert [view.image for view in study.views] == [f"{k}.jpg" for k in range(line.views)]


def test_manifest_counts(shards, studies):
    manifest = Manifest.from_json((shards / "manifest.json").read_bytes())
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.patients_disjoint
    for split, entry in manifest.splits.items():
        given = [source for source in studies if source.study.split == split]
        assert entry.studies == len(given)
        assert entry.images == sum(len(source.images) for source in given)
        assert entry.patients == len({source.study.patient for source in given})
    assert {s.name for s in manifest.shards} == {path.name for path in shards.glob("*.tar")}


def test_reduced_films_have_their_exact_size(tmp_path, studies):
    build(tmp_path / "small", studies, policy=ImagePolicy(24))
    build(tmp_path / "whole", studies)
    for path in (tmp_path / "whole").glob("*.tar"):
        with tarfile.open(path) as whole, tarfile.open(tmp_path / "small" / path.name) as small:
            for a, b in zip(whole.getmembers(), small.getmembers(), strict=True):
                if a.name.endswith(".jpg"):
                    before = simplejpeg.decode_jpeg_header(whole.extractfile(a).read())
                    after = simplejpeg.decode_jpeg_header(small.extractfile(b).read())
                    assert after[:2] == prepared_size(*before[:2], 24)


def test_real_films(tmp_path, real_studies):
    manifest = build(tmp_path / "out", real_studies, studies_per_shard=64, workers=2)
    assert {split: entry.studies for split, entry in manifest.splits.items()} == {"train": 80, "val": 20, "test": 20}
    report = verify_shards(tmp_path / "out")
    assert (report.differences, report.images) == ([], 240)
    sample = next(iter(wds.WebDataset(str(tmp_path / "out" / "train-000000.tar"), shardshuffle=False)))
    assert sample["0.jpg"] == Path(real_studies[0].images[0]).read_bytes()


def test_films_by_url(tmp_path, studies):
    urls = [dataclasses.replace(s, images=tuple(f"file://{path}" for path in s.images)) for s in studies]
    a = build(tmp_path / "a", studies)
    b = build(tmp_path / "b", urls)
    assert [shard.sha256 for shard in a.shards] == [shard.sha256 for shard in b.shards]


# --- what is refused ---------------------------------------------------------------------------------------------------------


def test_refuses_no_studies(tmp_path):
    with pytest.raises(UserError, match="no studies"):
        build(tmp_path / "out", [])
    assert not (tmp_path / "out").exists()


def test_refuses_an_id_twice(tmp_path, studies):
    with pytest.raises(UserError, match=r"1 study ids occur twice: study-0003"):
        build(tmp_path / "out", [*studies, studies[3]])


def test_refuses_a_patient_in_two_splits(tmp_path, studies):
    with pytest.raises(UserError, match=r"patients are in two splits: p0\b"):
        build(tmp_path / "out", [*studies[:5], change(studies[1], id="other", split="test")])


def test_refuses_films_that_are_not_one_per_view(tmp_path, studies):
    with pytest.raises(UserError, match="one film per view: study-0001"):
        build(tmp_path / "out", [studies[0], dataclasses.replace(studies[1], images=studies[1].images[:1])])
    with pytest.raises(UserError, match="no film"):
        build(tmp_path / "out", [dataclasses.replace(change(studies[1], views=()), images=())])


def test_refuses_a_missing_film_before_any_work(tmp_path, studies):
    Path(studies[29].images[0]).unlink()
    with pytest.raises(UserError, match=rf"study-0029, {studies[29].images[0]}"):
        build(tmp_path / "out", studies)
    assert not (tmp_path / "out").exists()
    Path(studies[2].images[0]).unlink()
    with pytest.raises(UserError, match="2 image files are missing, the first: study study-0002"):
        build(tmp_path / "out", studies)


def test_refuses_a_missing_url(tmp_path, studies):
    gone = dataclasses.replace(studies[0], images=("file:///no/such/film.jpg",))
    with pytest.raises(UserError, match=r"study-0000: cannot read file:///no/such/film.jpg"):
        build(tmp_path / "out", [gone])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"policy": ImagePolicy(16)}, "image_policy.size: there null, now 16"),
        ({"policy": ImagePolicy(quality=80)}, "image_policy.quality: there 95, now 80"),
        ({"parser_version": "2"}, 'parser_version: there "1", now "2"'),
        ({"studies_per_shard": 5}, "studies_per_shard: there 4, now 5"),
        ({"source": {"kind": "other"}}, 'source.kind: there "synthetic", now "other"'),
        ({"source": {"kind": "synthetic", "more": 1}}, "source.more: there null, now 1"),
    ],
)
def test_refuses_the_folder_of_another_plan(shards, studies, options, told):
    before = contents(shards)
    with pytest.raises(UserError) as caught:
        build(shards, studies, **options)
    assert told in str(caught.value)
    assert "choose another output folder" in str(caught.value)
    assert contents(shards) == before


def test_refuses_the_folder_of_other_studies(shards, studies):
    with pytest.raises(UserError, match=r"studies\.test: there 6, now 4"):
        build(shards, [s for s in studies if s.study.id not in {"study-0006", "study-0007"}])
    with pytest.raises(UserError, match="the text, labels, views or order"):
        build(shards, [change(studies[0], acquired="2101-01-01"), *studies[1:]])


def test_refuses_a_folder_of_foreign_tars(tmp_path, studies):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.tar").write_bytes(b"x")
    with pytest.raises(UserError, match="holds tar files"):
        build(tmp_path / "out", studies)


def test_refuses_a_folder_that_is_a_file(tmp_path, studies):
    (tmp_path / "out").write_text("x")
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(UserError, match="cannot write shards into"):
            build(out, studies)


def test_refuses_two_writers(shards, studies):
    folder = os.open(shards, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run"):
            build(shards, studies)
    finally:
        os.close(folder)
    build(shards, studies)


@pytest.mark.parametrize("options", [{"workers": 0}, {"studies_per_shard": 0}, {"source": {"a": object()}}])
def test_refuses_options_that_make_no_sense(tmp_path, studies, options):
    with pytest.raises(UserError):
        build(tmp_path / "out", studies, **options)


def test_says_that_the_disk_is_full(tmp_path):
    """A limit on the size of files gives the same error path as a disk without space."""
    studies = make_studies(tmp_path / "films", 4, side=200)
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(UserError, match="cannot write shards into"):
            build(out, studies)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert [path.name for path in out.iterdir()] == ["plan.json"]
    build(out, studies)
    assert verify_shards(out).ok


# --- damaged films and carrying on -------------------------------------------------------------------------------------------


def cut(path: str) -> bytes:
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])
    return data


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_film_stops_the_run_by_name(tmp_path, studies, workers):
    cut(studies[7].images[1])
    with pytest.raises(UserError, match=r"study-0007, image 1 \(s7_1\.\w+\): damaged") as caught:
        build(tmp_path / "out", studies, workers=workers)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert studies[7].study.sections.findings not in str(caught.value)


def test_damaged_studies_within_the_budget_are_left_out_and_listed(tmp_path, studies):
    for number in (0, 7):
        cut(studies[number].images[0])
    given = [Excluded("unseen", "no findings")]
    manifest = build(tmp_path / "out", studies, max_damaged=2, excluded=given)
    listed = [json.loads(line) for line in (tmp_path / "out" / "excluded.jsonl").read_text().splitlines()]
    assert [item["study"] for item in listed] == ["unseen", "study-0000", "study-0007"]
    assert all("damaged" in item["reason"] for item in listed[1:])
    assert manifest.excluded == 3
    assert sum(entry.studies for entry in manifest.splits.values()) == 28
    assert verify_shards(tmp_path / "out").ok
    # Carrying on, with any number of workers, ends with the same folder; a smaller budget refuses.
    before = contents(tmp_path / "out")
    build(tmp_path / "out", studies, max_damaged=2, excluded=given, workers=2)
    assert contents(tmp_path / "out") == before
    with pytest.raises(UserError, match="2 studies have a damaged film, 1 allowed"):
        build(tmp_path / "out", studies, max_damaged=1)


def test_a_shard_of_damaged_studies_only(tmp_path, studies):
    for source in studies[:1]:
        cut(source.images[0])
    manifest = build(tmp_path / "out", studies, studies_per_shard=1, max_damaged=1)
    assert manifest.shards[0].studies == 0
    assert verify_shards(tmp_path / "out").ok


@pytest.mark.parametrize("same_size", [False, True])
def test_a_mended_film_comes_back(tmp_path, studies, same_size):
    build(tmp_path / "whole", studies)
    path = studies[7].images[1]
    data = Path(path).read_bytes()
    Path(path).write_bytes(bytes(len(data)) if same_size else data[:100])
    with pytest.raises(UserError, match="study-0007"):
        build(tmp_path / "out", studies)
    build(tmp_path / "out", studies, max_damaged=1)
    Path(path).write_bytes(data)
    build(tmp_path / "out", studies)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_finished_shards_are_not_written_again(tmp_path, shards, studies):
    before = {path.name: path.stat().st_mtime_ns for path in shards.iterdir()}
    build(shards, studies, workers=2)
    assert {path.name: path.stat().st_mtime_ns for path in shards.iterdir()} == before


@pytest.mark.parametrize("name", ["train-000001.tar", "train-000001.index.jsonl", "manifest.json", "excluded.jsonl"])
@pytest.mark.parametrize("fate", ["gone", "cut", "empty"])
def test_what_is_missing_is_written_again(shards, studies, name, fate):
    before = contents(shards)
    data = (shards / name).read_bytes()
    (shards / name).unlink()
    if fate != "gone":
        (shards / name).write_bytes(data[: len(data) // 2] if fate == "cut" else b"")
    (shards / ".train-000001.tar.99.part").write_bytes(b"left by a killed run")
    if (name, fate) == ("train-000001.index.jsonl", "cut"):
        (shards / name).write_bytes(data[:40])
    build(shards, studies)
    assert contents(shards) == before


def test_reading_needs_neither_torch_nor_webdataset(tmp_path):
    code = (
        "import sys, rrg.shards.writer, rrg.shards.reader, rrg.shards.verify, rrg.shards.ledger, rrg.shards.quarantine;"
        "assert not {'torch', 'webdataset'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
