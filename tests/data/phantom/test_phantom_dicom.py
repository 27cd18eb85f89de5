"""The DICOM flavour of the cohort: same studies, same films, and shards that agree with those of the JPEG flavour."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile

import numpy as np
import pytest
import simplejpeg
from pydicom import dcmread

from rrg.cli import main
from rrg.data.dicom import read_dicom
from rrg.data.prepare.phantom import write_cohort
from rrg.data.prepare.phantom.dicom_film import dicom
from rrg.data.prepare.phantom.patient import studies
from rrg.errors import UserError


def films(shards):
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                yield name, tar.extractfile(name).read()


def prepare(folder, form, *words):
    options = ["--studies", "24", "--seed", "6", "--size", "96", "--workers", "1", "--format", form]
    return main(["prepare", "phantom", "--out", str(folder / form), *options, *words])


def test_both_flavours_give_the_same_shards(tmp_path):
    for form in ("jpg", "dicom"):
        assert prepare(tmp_path, form, "--shards", str(tmp_path / f"{form}-shards"), "--views", "all") == 0
    jpg, dicom = ([*films(tmp_path / f"{form}-shards")] for form in ("jpg", "dicom"))
    assert [name for name, _ in jpg] == [name for name, _ in dicom]
    worst = 0.0
    for (name, theirs), (_, ours) in zip(jpg, dicom, strict=True):
        if name.endswith(".json"):
            assert theirs == ours
        else:
            pair = [simplejpeg.decode_jpeg(data, "GRAY").astype(float) for data in (theirs, ours)]
            worst = max(worst, float(np.abs(pair[0] - pair[1]).mean()))
    assert worst < 3.5  # grey levels: the noise that JPEG of quality 92 takes out of the one and not of the other
    manifests = [json.loads((tmp_path / f"{form}-shards" / "manifest.json").read_bytes()) for form in ("jpg", "dicom")]
    assert [manifest["source"]["name"] for manifest in manifests] == ["mimic-cxr-jpg", "mimic-cxr"]
    assert manifests[0]["splits"] == manifests[1]["splits"]


def test_films_are_stored_in_four_ways(tmp_path):
    assert prepare(tmp_path, "dicom") == 0
    records = [dcmread(path) for path in tmp_path.rglob("*.dcm")]
    assert len(records) > 24 and not list(tmp_path.rglob("*.jpg"))
    assert {
        (r.PhotometricInterpretation, r.PixelRepresentation, r.file_meta.TransferSyntaxUID.is_compressed) for r in records
    } == {
        ("MONOCHROME2", 0, False),
        ("MONOCHROME1", 0, False),
        ("MONOCHROME2", 0, True),
        ("MONOCHROME2", 1, False),
    }
    assert {r.BitsStored for r in records} == {12}


def test_a_folder_holds_one_flavour(tmp_path):
    assert prepare(tmp_path, "dicom") == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.dcm")}
    assert prepare(tmp_path, "dicom") == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.dcm")} == before
    with pytest.raises(UserError, match="asked: format=jpg"):
        write_cohort(tmp_path / "dicom", 24, 6, 96)
    with pytest.raises(UserError, match="--format 'png'"):
        write_cohort(tmp_path / "other", 24, 6, 96, form="png")


def test_equalized_tones_are_those_of_another_plan(tmp_path, capsys):
    assert prepare(tmp_path, "dicom") == 0
    words = ["prepare", "mimic-cxr", "--root", str(tmp_path / "dicom"), "--out", str(tmp_path / "shards"), "--workers", "1"]
    assert main([*words, "--tones", "equalized"]) == 0
    assert json.loads((tmp_path / "shards" / "manifest.json").read_bytes())["image_policy"]["tones"] == "equalized"
    sources = {path.stem: read_dicom(path.read_bytes(), "equalized").astype(float) for path in tmp_path.rglob("*.dcm")}
    for name, data in films(tmp_path / "shards"):
        if name.endswith(".json"):
            views = json.loads(data)["views"]
        else:
            film = simplejpeg.decode_jpeg(data, "GRAY")[..., 0]
            assert np.abs(film - sources[views[int(name.split(".")[1])]["source"]]).mean() < 4
    assert main(words) == 2
    assert 'image_policy.tones: there "equalized", now null' in capsys.readouterr().err
    assert main([*words, "--tones", "bright"]) == 2
    assert "tones 'bright' are not known" in capsys.readouterr().err


def test_stored_values_are_exact(tmp_path):
    """The window maps stored values to grey levels exactly, so every way of storing gives the levels that were drawn."""
    truth = next(studies(1, 1, 64))
    film = truth.films[0]
    pixels = np.arange(film.rows * film.columns, dtype=np.uint32).reshape(film.rows, film.columns).astype(np.uint8)
    for seed in range(4):
        data = dicom(pixels, truth, dataclasses.replace(film, seed=seed))
        assert np.array_equal(read_dicom(data), pixels)
        assert dcmread(io.BytesIO(data)).ViewPosition == film.view
