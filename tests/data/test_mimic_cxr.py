"""MIMIC-CXR-JPG's layout: order and choice of films, priors, labels, exclusions, and damage of every file."""

from __future__ import annotations

import dataclasses
import json
import zipfile

import pytest
import simplejpeg
from dicom_films import dicom
from mimic_tree import CASES, METADATA_COLUMNS, REPORT, Case, write_reports, write_table, write_tree

from rrg.data.prepare.films import Film, choose_films
from rrg.data.prepare.mimic_cxr import MimicChoices, MimicFiles, read_mimic_cxr
from rrg.data.prepare.mimic_reports import ReportArchive, ReportError
from rrg.errors import UserError
from rrg.shards.writer import ImagePolicy, build_shards


def by_id(collection):
    return {source.study.id: source.study for source in collection.studies}


def refused(call, *arguments, **named) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **named)
    message = str(caught.value)
    assert "\n" not in message and "lungs are clear" not in message
    return message


@pytest.mark.parametrize("reports", ["zip", "folder", "nested"])
@pytest.mark.parametrize("packed", [False, True])
def test_layouts_agree(tmp_path, reports, packed):
    collection = read_mimic_cxr(write_tree(tmp_path, reports=reports, packed=packed))
    studies = by_id(collection)
    assert list(studies) == ["s50000001", "s50000002", "s51000003", "s52000004"]
    assert [study.split for study in studies.values()] == ["train", "train", "val", "test"]
    first = studies["s50000001"]
    assert first.patient == "p10000001"
    assert [(view.source, view.projection, view.plane) for view in first.views] == [
        ("a3", "PA", "frontal"),
        ("a1", "LATERAL", "lateral"),
    ]
    assert first.sections.findings == "The lungs are clear."
    assert first.labels == {"Edema": 1, "Fracture": -1}
    assert first.acquired == "2180-05-06T21:30:14.531"
    assert studies["s52000004"].views[0].projection == "PA"  # from the view code, where ViewPosition is blank
    assert not collection.excluded
    assert collection.source["counts"]["films_left_out"] == 1


def test_reports_elsewhere(tmp_path):
    root = write_tree(tmp_path / "jpg", reports="none")
    assert "no report found" in refused(read_mimic_cxr, root)
    (tmp_path / "txt").mkdir()
    write_reports(tmp_path / "txt", CASES, "zip")
    write_reports(tmp_path / "txt", CASES, "nested")
    archive = tmp_path / "txt" / "mimic-cxr-reports.zip"
    assert len(read_mimic_cxr(MimicFiles(root, reports=archive)).studies) == 4
    assert len(read_mimic_cxr(MimicFiles(root, reports=tmp_path / "txt")).studies) == 4
    assert len(read_mimic_cxr(MimicFiles(root, reports=tmp_path / "txt" / "files")).studies) == 4
    assert "no reports at" in refused(read_mimic_cxr, MimicFiles(root, reports=tmp_path / "nowhere"))


def test_prior_is_the_nearest_strictly_earlier_study(tmp_path):
    films = [((f"f{number}", "PA"),) for number in range(6)]
    cases = (
        Case(10000001, 50000005, date="21800508", time="930", films=films[0]),  # 00:09:30
        Case(10000001, 50000001, date="21800506", time="0.25", films=films[1]),
        Case(10000001, 50000003, date="21800506", time="120000", films=films[2]),
        Case(10000001, 50000002, date="21800506", time="120000.0", films=films[3]),  # the same moment
        Case(10000001, 50000009, date="", time="", films=films[4]),
        Case(10000002, 50000000, date="21700101", films=films[5]),
    )
    studies = by_id(read_mimic_cxr(write_tree(tmp_path, cases)))
    assert studies["s50000001"].prior is None and studies["s50000000"].prior is None
    assert studies["s50000002"].prior == studies["s50000003"].prior == "s50000001"
    assert studies["s50000005"].prior == "s50000003"
    assert studies["s50000005"].prior_days == pytest.approx(1.5066, abs=1e-4)
    assert studies["s50000009"].prior is None and studies["s50000009"].acquired is None


def test_prior_skips_what_is_left_out(tmp_path):
    films = [((f"f{number}", "PA"),) for number in range(3)]
    cases = (
        Case(10000001, 50000001, date="21800501", films=films[0]),
        Case(10000001, 50000002, date="21800502", films=films[1], report=None),
        Case(10000001, 50000003, date="21800503", films=films[2]),
    )
    studies = by_id(read_mimic_cxr(write_tree(tmp_path, cases)))
    assert (studies["s50000003"].prior, studies["s50000003"].prior_days) == ("s50000001", 2.0)


def test_exclusions_are_listed_with_reasons(tmp_path):
    cases = (
        *CASES,
        Case(13000000, 53000001, films=(("e1", "PA"),), report=None),
        Case(13000000, 53000002, films=(("e2", "PA"),), report="  \n"),
        Case(13000000, 53000003, films=(("e3", "PA"),), report="IMPRESSION: Normal."),
        Case(13000000, 53000004, films=(("e4", "SWIMMERS"),)),
        Case(13000000, 53000005, films=(("e5", "PA"), ("e6", "LL"))),
        Case(13000000, 53000006, films=(("e7", "PA"),)),
    )
    root = write_tree(tmp_path, cases)
    (root / "files/p13/p13000000/s53000005/e6.jpg").unlink()
    (root / "files/p13/p13000000/s53000006/e7.jpg").unlink()
    collection = read_mimic_cxr(root)
    assert len(collection.studies) == 4
    assert {entry.study: entry.reason for entry in collection.excluded} == {
        "s53000001": "no report",
        "s53000002": "no report",
        "s53000003": "no findings section",
        "s53000004": "no film of a known frontal or lateral projection",
        "s53000005": "a film of the metadata table is not on disk",
        "s53000006": "no film on disk",
    }
    loose = read_mimic_cxr(root, MimicChoices(section="any", views="single"))
    assert {entry.study for entry in loose.excluded} == {"s53000001", "s53000002", "s53000005", "s53000006"}
    assert by_id(loose)["s53000003"].sections.impression == "Normal."
    both = read_mimic_cxr(root, MimicChoices(section="both"))
    assert len(both.studies) == 4


def test_choices(tmp_path):
    root = write_tree(tmp_path)
    views = {
        policy: [view.source for view in by_id(read_mimic_cxr(root, MimicChoices(views=policy)))["s50000001"].views]
        for policy in ("single", "frontal_lateral", "all")
    }
    assert views == {"single": ["a3"], "frontal_lateral": ["a3", "a1"], "all": ["a3", "a2", "a1"]}
    assert len(by_id(read_mimic_cxr(root, MimicChoices(views="all", max_views=2)))["s50000001"].views) == 2
    assert "did you mean 'frontal_lateral'" in refused(MimicChoices, views="frontal-lateral")
    assert "--section" in refused(MimicChoices, section="finding")
    assert "--max-views 0" in refused(MimicChoices, max_views=0)


def test_order_of_films_does_not_depend_on_the_table():
    films = [
        Film("z", ""),
        Film("l2", "LL"),
        Film("l1", "LATERAL"),
        Film("x", "AP AXIAL"),
        Film("a", "AP"),
        Film("p2", "PA"),
        Film("p1", "PA"),
    ]
    for shuffled in (films, films[::-1], sorted(films, key=lambda film: film.name)):
        assert [film.name for film in choose_films(shuffled, "all")] == ["p1", "p2", "a", "x", "l1", "l2", "z"]
    assert choose_films([Film("z", "")], "frontal_lateral") == []
    assert [film.name for film in choose_films([Film("z", "")], "single")] == ["z"]


def test_labels_from_negbio_or_none(tmp_path):
    root = write_tree(tmp_path, labels="negbio")
    assert by_id(read_mimic_cxr(root))["s50000001"].labels == {"Edema": 1, "Fracture": -1}
    assert by_id(read_mimic_cxr(root, MimicChoices(labels="none")))["s50000001"].labels == {}
    assert "mimic-cxr-2.0.0-chexpert.csv" in refused(read_mimic_cxr, root, MimicChoices(labels="chexpert"))


def test_same_data_give_the_same_source_anywhere(tmp_path):
    one, two = write_tree(tmp_path / "one"), write_tree(tmp_path / "two")
    first, second = read_mimic_cxr(one), read_mimic_cxr(two)
    for collection in (first, second):
        assert str(tmp_path) not in json.dumps(
            {key: value for key, value in collection.source.items() if key != "reports_sha256"}
        )
    assert [source.study for source in first.studies] == [source.study for source in second.studies]
    assert first.source["tables_sha256"] == second.source["tables_sha256"]


def test_shards_of_the_tree(tmp_path):
    collection = read_mimic_cxr(write_tree(tmp_path / "tree"))
    manifest = build_shards(
        tmp_path / "out",
        collection.studies,
        source=collection.source,
        policy=ImagePolicy(),
        parser_version="1",
        excluded=collection.excluded,
    )
    assert {name: (split.studies, split.images) for name, split in manifest.splits.items()} == {
        "train": (2, 3),
        "val": (1, 1),
        "test": (1, 1),
    }


def test_missing_parts(tmp_path):
    assert "no folder" in refused(read_mimic_cxr, tmp_path)
    root = write_tree(tmp_path / "tree")
    (root / "mimic-cxr-2.0.0-split.csv").unlink()
    assert "no mimic-cxr-2.0.0-split.csv or .csv.gz" in refused(read_mimic_cxr, root)


def as_dicom(root, folders="files/*/*/*", keep=False):
    """The JPEG films of some studies as DICOM files, beside them or in their place."""
    for film in sorted(root.glob(f"{folders}/*.jpg")):
        pixels = simplejpeg.decode_jpeg(film.read_bytes(), "GRAY")[..., 0]
        film.with_suffix(".dcm").write_bytes(dicom(pixels, bits=8, WindowCenter=128, WindowWidth=256))
        if not keep:
            film.unlink()
    return root


def test_dicom_tree(tmp_path):
    jpg, dcm = read_mimic_cxr(write_tree(tmp_path / "jpg")), read_mimic_cxr(as_dicom(write_tree(tmp_path / "dcm")))
    assert (jpg.source["name"], dcm.source["name"]) == ("mimic-cxr-jpg", "mimic-cxr")
    assert [source.study for source in jpg.studies] == [source.study for source in dcm.studies]
    assert all(path.endswith(".dcm") for source in dcm.studies for path in source.images)
    assert len(read_mimic_cxr(tmp_path / "dcm", MimicChoices(format="dicom")).studies) == 4
    said = refused(read_mimic_cxr, tmp_path / "dcm", MimicChoices(format="jpg"))
    assert "left out: 4 x no film on disk in the format asked for" in said


@pytest.mark.parametrize(("folders", "keep"), [("files/p10/*/s50000002", False), ("files/p12/*/*", True)])
def test_a_tree_of_both_forms_is_decided_by_the_user(tmp_path, folders, keep):
    root = as_dicom(write_tree(tmp_path), folders, keep)
    assert "say which to read with --format jpg or --format dicom" in refused(read_mimic_cxr, root)
    jpg, dcm = (read_mimic_cxr(root, MimicChoices(format=form)) for form in ("jpg", "dicom"))
    assert len(jpg.studies) == (4 if keep else 3) and len(dcm.studies) == 1
    assert {entry.reason for entry in dcm.excluded} == {"no film on disk in the format asked for"}
    assert "--format 'dcm' is not known" in refused(MimicChoices, format="dcm")


def test_tables_elsewhere(tmp_path):
    root = as_dicom(write_tree(tmp_path / "dcm"))
    (tmp_path / "tables").mkdir()
    for path in root.glob("*.csv"):
        path.rename(tmp_path / "tables" / path.name)
    assert "--tables names their folder" in refused(read_mimic_cxr, root)
    assert "no folder" in refused(read_mimic_cxr, MimicFiles(root, tables=tmp_path / "nowhere"))
    assert len(read_mimic_cxr(MimicFiles(root, tables=tmp_path / "tables")).studies) == 4


def edit(root, table, old, new):
    path = root / f"mimic-cxr-2.0.0-{table}.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("split", "validate", "holdout", "split.csv:6: split 'holdout' is none of"),
        (
            "split",
            "a2,50000001,10000001,train",
            "a2,50000001,10000001,test",
            "study s50000001 is in train above and in test here",
        ),
        ("split", "50000002,10000001,train", "50000002,10000001,test", "patient p10000001 is in two splits, train and test"),
        ("split", "a1,50000001,", "a1,fifty,", "study_id is 'fifty', not a number"),
        ("split", "a1,50000001,", "a1,50000009,", "lists study s50000009, the metadata table does not"),
        ("split", "dicom_id,study_id", "dicom,study_id", "column 'dicom_id' is missing; it has dicom, study_id"),
        ("split", "a1,50000001,10000001,train", "a1,50000001", "split.csv:2: 2 fields where the header has 4"),
        ("metadata", "ViewPosition", "View", "column 'ViewPosition' is missing"),
        ("metadata", "21800506", "2180-05-06", "is no moment"),
        ("metadata", "213014.531", "996014", "is no moment"),
        ("metadata", "213014.531", "213014.x", "is no moment"),
        ("metadata", "a2,10000001", "a2,10000002", "study s50000001 belongs to patient p10000001 above and to p10000002 here"),
        ("metadata", "a1,10000001", "../../a1,10000001", "is no file name"),
        ("chexpert", "1.0", "2.0", "label Edema is '2.0'"),
        ("chexpert", "-1.0", "nan", "label Fracture is 'nan'"),
        ("chexpert", "51000003", "50000001", "study s50000001 has labels twice"),
        ("chexpert", "Edema", "Oedema", "column 'Edema' is missing"),
    ],
)
def test_damaged_tables(tmp_path, table, old, new, message):
    root = write_tree(tmp_path)
    edit(root, table, old, new)
    assert message in refused(read_mimic_cxr, root)


def test_gzip_and_encoding(tmp_path):
    root = write_tree(tmp_path, packed=True)
    path = root / "mimic-cxr-2.0.0-metadata.csv.gz"
    whole = path.read_bytes()
    for data in (whole[:-12], b"no gzip at all", whole[:20] + b"\x00" * 30 + whole[50:]):
        path.write_bytes(data)
        assert "damaged gzip file" in refused(read_mimic_cxr, root)
    path.unlink()
    path.with_suffix("").write_bytes(b"dicom_id,study_id,subject_id,ViewPosition,StudyDate,StudyTime\n\xff\xfe")
    assert "damaged CSV file" in refused(read_mimic_cxr, root)
    path.with_suffix("").write_bytes(b"")
    assert "no header line" in refused(read_mimic_cxr, root)


@pytest.mark.parametrize("name", ["../p10/p10000001/s50000001.txt", "/p10/p10000001/s50000001.txt", "files\\..\\x.txt"])
def test_zip_member_names_are_checked(tmp_path, name):
    path = tmp_path / "reports.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, REPORT)
    assert "points outside the archive" in refused(ReportArchive, path)


def test_damaged_zip(tmp_path):
    root = write_tree(tmp_path)
    path = root / "mimic-cxr-reports.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "not a whole zip file" in refused(read_mimic_cxr, root)
    path.write_bytes(whole[:80] + bytes(byte ^ 0x55 for byte in whole[80:110]) + whole[110:])
    assert "1 studies have a damaged report, 0 allowed: s50000001, it cannot be unpacked" in refused(read_mimic_cxr, root)
    collection = read_mimic_cxr(root, max_damaged=1)
    assert (len(collection.studies), collection.damaged) == (3, 1)
    assert [(entry.study, entry.reason.partition(":")[0]) for entry in collection.excluded] == [("s50000001", "damaged report")]


def test_zip_with_other_members_and_prefix(tmp_path):
    path = tmp_path / "reports.zip"
    member = "mimic-cxr-reports/files/p10/p10000001/s50000001.txt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimic-cxr-reports/README", "x")
        archive.writestr(f"__MACOSX/{member}", "x")
        archive.writestr(member, REPORT)
    reports = ReportArchive(path)
    assert reports.read("s50000001", "p10000001") == REPORT
    assert reports.read("s50000001", "p10000009") is None
    assert reports.read("s50000002", "p10000001") is None
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/p10/p10000001/s50000001.txt", "again")
    assert "has two reports" in refused(ReportArchive, path)


def test_enormous_report_is_refused(tmp_path):
    path = tmp_path / "reports.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p10/p10000001/s50000001.txt", b"a" * (64 << 20))
    with pytest.raises(ReportError, match="which is no report"):
        ReportArchive(path).read("s50000001", "p10000001")


def test_reports_in_another_encoding_are_read_and_counted(tmp_path):
    odd = dataclasses.replace(CASES[0], report="FINDINGS: The patient\u2019s lungs are cl\u00e9ar.".encode("cp1252"))
    collection = read_mimic_cxr(write_tree(tmp_path, (odd, *CASES[1:])))
    assert by_id(collection)["s50000001"].sections.findings == "The patient\u2019s lungs are cl\u00e9ar."
    assert collection.source["counts"]["reports_not_utf8"] == 1


def test_reports_that_are_no_text_are_damaged(tmp_path):
    wide = dataclasses.replace(CASES[0], report=REPORT.encode("utf-16"))
    noise = dataclasses.replace(CASES[1], report=bytes(range(256)) * 8)
    root = write_tree(tmp_path, (wide, noise, *CASES[2:]), reports="folder")
    folder = root / "mimic-cxr-reports/files/p11/p11000002/s51000003.txt"
    folder.unlink()
    folder.mkdir()
    assert "s50000002, it is not text" in refused(read_mimic_cxr, root)
    collection = read_mimic_cxr(root, max_damaged=2)
    assert by_id(collection)["s50000001"].sections.findings == "The lungs are clear."
    assert {entry.study: entry.reason for entry in collection.excluded} == {
        "s50000002": "damaged report: it is not text",
        "s51000003": "damaged report: it is not a file",
    }


EXCEPTIONS = {
    "text": "# duplicates\n\ns50000002 two films,  one patient\n53999999\n",
    "csv": 'reason,study_id\n"two films,  one patient",50000002\n,s53999999\n',
    "bom": "\ufeffs50000002: two films, one patient\r\ns53999999;\r\n",
}


@pytest.mark.parametrize("text", EXCEPTIONS.values(), ids=EXCEPTIONS)
def test_exceptions_are_left_out_with_their_reason(tmp_path, text):
    root = write_tree(tmp_path / "tree")
    (tmp_path / "list").write_text(text, encoding="utf-8")
    collection = read_mimic_cxr(MimicFiles(root, exceptions=tmp_path / "list"))
    assert [(entry.study, entry.reason) for entry in collection.excluded] == [
        ("s50000002", "on the list of exceptions: two films, one patient")
    ]
    assert collection.source["counts"]["exceptions_not_in_the_collection"] == 1
    assert "list" in collection.source["tables_sha256"]
    (tmp_path / "list").write_text("s50000002\n")
    assert read_mimic_cxr(MimicFiles(root, exceptions=tmp_path / "list")).excluded[0].reason.endswith(": no reason stated")


def test_lists_of_exceptions_that_are_none(tmp_path):
    root = write_tree(tmp_path / "tree")
    for data, told in ((b"the lungs\n", "'the' is no study"), (b"\xff\xfe\x00", "not UTF-8"), (b"study_id\n1,2\n", "2 fields")):
        (tmp_path / "list").write_bytes(data)
        assert told in refused(read_mimic_cxr, MimicFiles(root, exceptions=tmp_path / "list"))
    assert "no list of exceptions" in refused(read_mimic_cxr, MimicFiles(root, exceptions=tmp_path / "none"))


def test_a_film_twice_in_the_metadata_is_refused(tmp_path):
    root = write_tree(tmp_path)
    edit(root, "metadata", "a2,", "a1,")
    assert "film a1 of study s50000001 is listed above already" in refused(read_mimic_cxr, root)


def test_no_study_left_says_why(tmp_path):
    cases = tuple(dataclasses.replace(case, report="IMPRESSION: Normal.") for case in CASES)
    assert "no study is left to write (left out: 4 x no findings section)" in refused(read_mimic_cxr, write_tree(tmp_path, cases))


def test_quoted_line_breaks_in_tables(tmp_path):
    root = write_tree(tmp_path)
    rows = [["a1", "10000001", "50000001", 'two\nlines, "quoted"', "PA", "1", "1", "21800506", "1", "", "", ""]]
    write_table(root, "metadata", METADATA_COLUMNS, rows)
    write_table(root, "split", ["dicom_id", "study_id", "subject_id", "split"], [["a1", "50000001", "10000001", "train"]])
    collection = read_mimic_cxr(root)
    assert [source.study.id for source in collection.studies] == ["s50000001"]
    assert collection.source["counts"]["films_not_in_metadata"] == 2
