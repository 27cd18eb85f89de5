"""R2Gen's mimic_annotation.json: splits and reports from it, films and times from the rest."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mimic_tree import CASES, Case, write_tree

from rrg.data.prepare.mimic_annotation import read_mimic_annotation
from rrg.data.prepare.mimic_cxr import MimicChoices, MimicFiles, read_mimic_cxr
from rrg.errors import UserError

REPORT = "the lungs are clear ."


def record(case: Case, film: str, split: str, **other) -> dict:
    study, subject = case.study, case.subject
    path = f"p{str(subject)[:2]}/p{subject}/s{study}/{film}.jpg"
    return {"id": film, "study_id": study, "subject_id": subject, "report": REPORT, "image_path": [path], "split": split} | other


RECORDS = {
    "train": [record(CASES[0], "a1", "train"), record(CASES[0], "a3", "train")],
    "val": [record(CASES[2], "c1", "val")],
    "test": [record(CASES[3], "d1", "test")],
}


def write(path, records=None):
    path.write_text(json.dumps(RECORDS if records is None else records))
    return path


def refused(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        read_mimic_cxr(*arguments)
    assert "\n" not in str(caught.value) and "lungs are clear" not in str(caught.value)
    return str(caught.value)


def test_splits_and_reports_come_from_the_annotation(tmp_path):
    root = write_tree(tmp_path / "tree", reports="none")
    (root / "mimic-cxr-2.0.0-split.csv").unlink()
    collection = read_mimic_cxr(MimicFiles(root, annotation=write(tmp_path / "annotation.json")))
    studies = {source.study.id: source.study for source in collection.studies}
    assert [(study.id, study.split) for study in studies.values()] == [
        ("s50000001", "train"),
        ("s51000003", "val"),
        ("s52000004", "test"),
    ]
    first = studies["s50000001"]
    assert (first.sections.findings, first.sections.impression) == (REPORT, "")
    assert [(view.source, view.projection) for view in first.views] == [("a3", "PA"), ("a1", "LATERAL")]  # a2 is not listed
    assert first.labels == {"Edema": 1, "Fracture": -1} and first.acquired is not None
    assert [(entry.study, entry.reason) for entry in collection.excluded] == [("s50000002", "not in the annotation file")]
    assert collection.source["layout"] == "r2gen" and "annotation.json" in collection.source["tables_sha256"]


def test_other_sections_from_the_reports(tmp_path):
    root = write_tree(tmp_path / "tree")
    files = MimicFiles(root, reports=root / "mimic-cxr-reports.zip", annotation=write(tmp_path / "annotation.json"))
    sections = read_mimic_cxr(files).studies[0].study.sections
    assert (sections.findings, sections.impression, sections.indication) == (REPORT, "Normal.", "Cough.")


def test_without_any_table(tmp_path):
    """R2Gen's own folder: images below images/, and annotation.json."""
    root = write_tree(tmp_path / "tree", reports="none")
    for path in root.glob("*.csv"):
        path.unlink()
    annotation = write(tmp_path / "annotation.json")
    for place in (root, root / "files"):
        files = MimicFiles(place, annotation=annotation)
        assert "--views single or --views all" in refused(files)
        studies = [source.study for source in read_mimic_cxr(files, MimicChoices(views="all")).studies]
        assert [len(study.views) for study in studies] == [2, 1, 1]
        assert all(view.projection == "" for study in studies for view in study.views)


def test_folder_names_stand_for_missing_ids(tmp_path):
    records = {
        split: [{key: value for key, value in item.items() if key not in ("study_id", "subject_id")} for item in items]
        for split, items in RECORDS.items()
    }
    found = list(read_mimic_annotation(write(tmp_path / "a.json", records)))
    assert [(item.study, item.patient, item.films) for item in found][:2] == [
        ("s50000001", "p10000001", ("a1",)),
        ("s50000001", "p10000001", ("a3",)),
    ]


def test_long_files_are_read_in_pieces(tmp_path):
    chance = np.random.default_rng(1)
    items = [record(CASES[0], f"f{number}", "train", report="word " * int(chance.integers(1, 400))) for number in range(900)]
    for indent in (None, 1):
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"train": items, "val": [], "test": []}, indent=indent))
        assert [(item.films[0], item.report) for item in read_mimic_annotation(path)] == [
            (item["id"], item["report"]) for item in items
        ]


OTHER = record(CASES[0], "a3", "train")
BAD = {
    "patient": (OTHER | {"subject_id": 5}, "of another study"),
    "study": (OTHER | {"study_id": 5}, "of another study"),
    "word": (OTHER | {"study_id": "x"}, "study_id is 'x', not a number"),
    "split": (OTHER | {"split": "test"}, "is 'test' but the record stands under 'train'"),
    "report": (OTHER | {"report": 5}, "key 'report'"),
    "other report": (OTHER | {"report": "another"}, "another patient or report in a record above"),
    "paths": (OTHER | {"image_path": []}, "key 'image_path'"),
    "traversal": (OTHER | {"image_path": ["../p10/p10000001/s50000001/a3.jpg"]}, "is not of the form"),
    "absolute": (OTHER | {"image_path": ["/etc/passwd"]}, "is not of the form"),
    "suffix": (OTHER | {"image_path": ["p10/p10000001/s50000001/a3.exe"]}, "is not of the form"),
    "list": ([1], "not an object"),
}


@pytest.mark.parametrize(("item", "told"), BAD.values(), ids=BAD)
def test_records_that_contradict(tmp_path, item, told):
    root = write_tree(tmp_path / "tree")
    records = RECORDS | {"train": [RECORDS["train"][0], item]}
    assert told in refused(MimicFiles(root, annotation=write(tmp_path / "a.json", records)))


def test_a_study_in_two_splits(tmp_path):
    root = write_tree(tmp_path / "tree")
    records = RECORDS | {"test": [record(CASES[0], "a1", "test")]}
    assert "in another split above" in refused(MimicFiles(root, annotation=write(tmp_path / "a.json", records)))
    records = RECORDS | {"test": [record(CASES[1], "b1", "test")]}
    said = refused(MimicFiles(root, annotation=write(tmp_path / "a.json", records)))
    assert "patient p10000001 is in two splits, train and test" in said


NO_ANNOTATIONS = ["", "[]", "{", '{"train": [', '{"train": [{"id"', '{"train": [1, 2', '{"train": []', '{"train": [}']
NO_ANNOTATIONS += ['{"holdout": []}', "x" * 3_000_000, '{"train": [], "train": []}', '{"train": []} more', '{"val": []}']
NO_ANNOTATIONS += ['{"train": [' + "[" * 100_000, '{"train": ["' + "a" * 3_000_000]


@pytest.mark.parametrize("text", NO_ANNOTATIONS, ids=[f"{text[:12]}-{len(text)}" for text in NO_ANNOTATIONS])
def test_files_that_are_none(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError) as caught:
        list(read_mimic_annotation(tmp_path / "a.json"))
    assert len(str(caught.value)) < 600


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.json").write_bytes(json.dumps(RECORDS).encode("utf-16"))
    with pytest.raises(UserError, match="not UTF-8"):
        list(read_mimic_annotation(tmp_path / "a.json"))
    with pytest.raises(UserError, match="no annotation file"):
        list(read_mimic_annotation(tmp_path / "none.json"))
