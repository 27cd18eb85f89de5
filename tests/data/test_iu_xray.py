"""R2Gen's annotation layout: the real Open-i copy, and every way to get it wrong."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path

import pytest
from mimic_tree import jpeg

from rrg.data.prepare.iu_xray import read_iu_xray
from rrg.data.prepare.openi_reports import read_openi_reports
from rrg.errors import UserError
from rrg.shards.writer import Excluded, ImagePolicy, build_shards

SHARED = Path(os.environ.get("RRG_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))

SECRET = "Secret patient text"


def record(study: str, split: str, **other):
    paths = [f"{study}/0.jpg", f"{study}/1.jpg"]
    return {"id": study, "report": SECRET, "image_path": paths, "split": split} | other


@pytest.fixture
def annotation():
    return {
        "train": [record("CXR1_IM-0001", "train", views=["frontal", "lateral"]), record("CXR2_IM-0002", "train")],
        "val": [record("CXR3", "val", source_images=["x", "y"])],
        "test": [record("CXR4_IM-0004-1001", "test")],
    }


def write(folder: Path, annotation, images=True) -> tuple[Path, Path]:
    path = folder / "annotation.json"
    path.write_text(annotation if isinstance(annotation, str) else json.dumps(annotation))
    (folder / "images").mkdir(exist_ok=True)
    if images:
        for study in ("CXR1_IM-0001", "CXR2_IM-0002", "CXR3", "CXR4_IM-0004-1001"):
            (folder / "images" / study).mkdir()
            for number in (0, 1):
                (folder / "images" / study / f"{number}.jpg").write_bytes(jpeg(number))
    return path, folder / "images"


def refused(folder: Path, annotation, reports=None, images=True) -> str:
    path, root = write(folder, annotation, images)
    with pytest.raises(UserError) as caught:
        read_iu_xray(path, root, reports)
    message = str(caught.value)
    assert "\n" not in message and SECRET not in message
    return message


def test_layout(tmp_path, annotation):
    studies = [source.study for source in read_iu_xray(*write(tmp_path, annotation)).studies]
    assert [(study.id, study.patient, study.split) for study in studies] == [
        ("CXR1_IM-0001", "CXR1", "train"),
        ("CXR2_IM-0002", "CXR2", "train"),
        ("CXR3", "CXR3", "val"),
        ("CXR4_IM-0004-1001", "CXR4", "test"),
    ]
    assert [view.plane for view in studies[0].views] == ["frontal", "lateral"]
    assert [view.projection for view in studies[1].views] == ["", ""]
    assert [view.source for view in studies[2].views] == ["x", "y"]
    assert studies[0].views[0].source == "CXR1_IM-0001/0.jpg"
    assert studies[0].sections.findings == SECRET


def test_source_names_no_folder(tmp_path, annotation):
    source = read_iu_xray(*write(tmp_path, annotation)).source
    assert str(tmp_path) not in json.dumps(source)


def test_empty_report_is_left_out_and_listed(tmp_path, annotation):
    annotation["train"][1]["report"] = " \n"
    collection = read_iu_xray(*write(tmp_path, annotation))
    assert len(collection.studies) == 3
    assert collection.excluded == [Excluded("CXR2_IM-0002", "empty report")]


def test_reports_add_sections_and_labels(tmp_path, annotation):
    lines = [
        {"id": "CXR1", "indication": "Cough.", "comparison": None, "impression": "Normal.", "findings": SECRET},
        {"id": "CXR3", "chexpert_labels_of_findings": {"Edema": 1, "Fracture": 0, "Pneumonia": -1, "Lung Lesion": None}},
        {"id": "CXR4", "chexpert_labels_of_findings": None, "indication": "line\u2028separator"},
    ]
    path = tmp_path / "reports.jsonl"
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n")
    collection = read_iu_xray(*write(tmp_path, annotation), path)
    first, second, third, fourth = (source.study for source in collection.studies)
    assert (first.sections.indication, first.sections.comparison, first.sections.impression) == ("Cough.", "", "Normal.")
    assert second.sections.impression == "" and second.labels == {}
    assert third.labels == {"Edema": 1, "Fracture": 0, "Pneumonia": -1}
    assert fourth.sections.indication == "line\u2028separator"
    assert collection.source["counts"] == {"report_row_missing": 1, "without_labels": 2, "findings_differ": 2}


def test_files_that_are_no_annotation(tmp_path):
    with pytest.raises(UserError, match="no annotation file"):
        read_iu_xray(tmp_path / "none.json", tmp_path)
    with pytest.raises(UserError, match="no image folder"):
        read_iu_xray(tmp_path / "none.json", tmp_path / "none")
    path = tmp_path / "annotation.json"
    for content, message in (
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"train": [', "not JSON .*line 1 column"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "holds a list"),
        (b'{"train": [], "valid": [], "test": []}', "'valid' is no split; did you mean 'val'"),
        (b'{"train": [], "val": []}', "'test' is missing"),
        (b'{"train": [], "val": {}, "test": []}', "'val' is missing or no list"),
        (b'{"train": [], "val": [], "test": []}', "no study is left"),
        (b'{"train": [{"id": "CXR1", "report": "\\ud800"}], "val": [], "test": []}', "half a character"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_iu_xray(path, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, r"train\[0\]: key 'id'"),
        ({"id": 7}, "key 'id'"),
        ({"id": "P7_IM"}, "CXR number"),
        ({"id": "CXR7.IM"}, "study id|CXR number"),
        ({"report": None}, r"train\[0\] \(CXR1_IM-0001\): key 'report'"),
        ({"split": "test"}, "key 'split' says 'test'"),
        ({"image_path": []}, "key 'image_path'"),
        ({"image_path": "0.jpg"}, "not a list of strings"),
        ({"image_path": [1]}, "not a list of strings"),
        ({"views": ["frontal"]}, "'views' has 1 entries for 2 images"),
        ({"source_images": ["x", "y", "z"]}, "'source_images' has 3 entries"),
        ({"image_path": ["../secret.jpg"]}, "not inside the image folder"),
        ({"image_path": ["a/../../secret.jpg"]}, "not inside the image folder"),
        ({"image_path": ["/etc/passwd"]}, "not inside the image folder"),
        ({"image_path": ["..\\secret.jpg"]}, "not inside the image folder"),
        ({"image_path": [""]}, "not inside the image folder"),
        ({"image_path": ["CXR1_IM-0001/0.png"]}, r"study CXR1_IM-0001: no image .*0\.png \(its folder holds 0\.jpg\); --images"),
        ({"image_path": ["nowhere/0.jpg"]}, "no image .*nowhere"),
    ],
)
def test_wrong_records(tmp_path, annotation, change, message):
    if "image_path" in change:
        del annotation["train"][0]["views"]
    annotation["train"][0] |= change
    assert re.search(message, refused(tmp_path, annotation))


def test_study_twice_and_patient_in_two_splits(tmp_path, annotation):
    twice = copy.deepcopy(annotation)
    twice["train"].append(twice["train"][0])
    assert "study CXR1_IM-0001 is listed twice" in refused(tmp_path, twice)
    annotation["val"].append(record("CXR1_IM-0009", "val", image_path=["CXR3/0.jpg"]))
    assert "patient CXR1 is in two splits, train and val (study CXR1_IM-0009)" in refused(tmp_path, annotation, images=False)


def test_record_that_is_no_object(tmp_path, annotation):
    annotation["test"].append("CXR9")
    assert "test[1]: not an object" in refused(tmp_path, annotation)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":1: not JSON"),
        ("[]", ":1: not an object"),
        ('{"id": 1}', "string 'id'"),
        ('{"id": "CXR1", "impression": 3}', r"\(CXR1\): key 'impression'"),
        ('{"id": "CXR1", "chexpert_labels_of_findings": [1]}', "not an object of observation"),
        ('{"id": "CXR1", "chexpert_labels_of_findings": {"Oedema": 1}}', "did you mean 'Edema'"),
        ('{"id": "CXR1", "chexpert_labels_of_findings": {"Edema": 2}}', "write 1, 0, -1 or null"),
        ('{"id": "CXR1", "chexpert_labels_of_findings": {"Edema": true}}', "write 1, 0, -1 or null"),
        ('{"id": "CXR1"}\n{"id": "CXR1"}', ":2: id 'CXR1' is given twice"),
    ],
)
def test_wrong_reports(tmp_path, line, message):
    path = tmp_path / "reports.jsonl"
    path.write_text(line)
    with pytest.raises(UserError, match=message):
        read_openi_reports(path)


def test_open_i_copy(tmp_path):
    openi = SHARED / "data" / "openi"
    if not openi.is_dir():
        pytest.skip(f"no Open-i copy under {SHARED}")
    collection = read_iu_xray(openi / "annotation.json", openi / "images", openi / "reports.jsonl")
    splits = [source.study.split for source in collection.studies]
    assert {name: splits.count(name) for name in set(splits)} == {"train": 2069, "val": 296, "test": 295}
    assert all(len(source.images) == 2 for source in collection.studies) and not collection.excluded
    assert collection.source["counts"]["report_row_missing"] == 0
    positive = sum(study.study.labels.get("Cardiomegaly") == 1 for study in collection.studies)
    assert 100 < positive < 600
    manifest = build_shards(
        tmp_path / "out",
        collection.studies[:40],
        source=collection.source,
        policy=ImagePolicy(64),
        parser_version="1",
        studies_per_shard=32,
    )
    assert manifest.splits["train"].images == 80
