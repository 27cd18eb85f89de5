"""The cohort on disk: layout, determinism, restarts, refusals."""

import csv
import gzip
import hashlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rrg.data.prepare.mimic_cxr import MimicChoices, read_mimic_cxr
from rrg.data.prepare.phantom import read_truth, truth_labels, write_cohort
from rrg.data.prepare.phantom.patient import split_of, visit_count
from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError

STUDIES, SEED, SIZE = 26, 5, 80


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    text = gzip.decompress((folder / f"mimic-cxr-2.0.0-{name}.csv.gz").read_bytes()).decode()
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort") / "phantom"
    calls = []
    summary = write_cohort(out, STUDIES, SEED, SIZE, progress=lambda done, total: calls.append((done, total)))
    return out, summary, calls


def test_the_top_of_the_tree_is_that_of_mimic_cxr_jpg(cohort):
    out, summary, _ = cohort
    assert sorted(path.name for path in out.iterdir()) == [
        "cohort.json",
        "files",
        "mimic-cxr-2.0.0-chexpert.csv.gz",
        "mimic-cxr-2.0.0-metadata.csv.gz",
        "mimic-cxr-2.0.0-split.csv.gz",
        "truth.jsonl",
    ]
    assert json.loads((out / "cohort.json").read_text()) == {"version": 1, "studies": STUDIES, "seed": SEED, "size": SIZE}
    first = out / "files" / "p10" / "p10000001"
    assert (first / "s50000001.txt").is_file()
    assert [path.suffix for path in (first / "s50000001").iterdir()] == [".jpg"] * len(list((first / "s50000001").iterdir()))
    assert summary.studies == STUDIES == len(list(out.glob("files/p10/p*/s*.txt")))
    assert summary.films == summary.written == len(list(out.rglob("*.jpg"))) and summary.kept == 0


def test_tables_have_the_columns_of_the_original(cohort):
    out = cohort[0]
    assert list(rows(out, "split")[0]) == ["dicom_id", "study_id", "subject_id", "split"]
    assert list(rows(out, "metadata")[0])[:7] == [
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "Rows",
        "Columns",
    ]
    chexpert = rows(out, "chexpert")
    assert list(chexpert[0]) == ["subject_id", "study_id", *sorted(OBSERVATIONS)]
    assert {value for row in chexpert for name, value in row.items() if name in OBSERVATIONS} <= {"1.0", "0.0", "-1.0", ""}


def test_tables_are_free_of_time_stamps(cohort):
    for path in cohort[0].glob("*.gz"):
        assert path.read_bytes()[4:8] == b"\0\0\0\0"


def test_every_film_of_the_table_is_a_gray_jpeg_of_the_stated_size(cohort):
    out = cohort[0]
    metadata = rows(out, "metadata")
    for row in metadata:
        path = out / "files" / "p10" / f"p{row['subject_id']}" / f"s{row['study_id']}" / f"{row['dicom_id']}.jpg"
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "L")
            assert image.size == (int(row["Columns"]), int(row["Rows"]))
            assert min(image.size) == SIZE
    assert len({row["dicom_id"] for row in metadata}) == len(metadata) == len(rows(out, "split"))
    assert {row["ViewPosition"] for row in metadata} == {"PA", "AP", "LATERAL"}


def test_splits_are_disjoint_in_patients_and_none_is_empty(cohort):
    splits: dict[str, set[str]] = {}
    for row in rows(cohort[0], "split"):
        splits.setdefault(row["split"], set()).add(row["subject_id"])
    assert set(splits) == {"train", "validate", "test"}
    assert not splits["train"] & splits["test"] and not splits["train"] & splits["validate"]
    assert not splits["test"] & splits["validate"]


def test_split_shares_and_visits_of_many_patients():
    splits = [split_of(number) for number in range(1000)]
    assert (splits.count("train"), splits.count("validate"), splits.count("test")) == (800, 100, 100)
    counts = [visit_count(3, number) for number in range(300)]
    assert set(counts) == {1, 2, 3, 4}


def test_the_smallest_cohort_has_every_split_whatever_the_seed(tmp_path):
    for seed in range(3):
        summary = write_cohort(tmp_path / str(seed), 10, seed, 64)
        assert set(summary.splits) == {"train", "validate", "test"} and sum(summary.splits.values()) == 10


def test_truth_lines_agree_with_the_label_table(cohort):
    out = cohort[0]
    truths = list(read_truth(out / "truth.jsonl"))
    lines = [json.loads(line) for line in (out / "truth.jsonl").read_text().splitlines()]
    for truth, line, row in zip(truths, lines, rows(out, "chexpert"), strict=True):
        labels = truth_labels(truth)
        assert labels == truth_labels(line) and set(labels) == set(OBSERVATIONS)
        for name in OBSERVATIONS:
            assert row[name] == "" or float(row[name]) == labels[name]
            assert row[name] != "" or labels[name] == 0  # whatever is present is stated


def test_workers_change_no_byte(cohort, tmp_path):
    write_cohort(tmp_path / "two", STUDIES, SEED, SIZE, workers=2)
    assert contents(tmp_path / "two") == contents(cohort[0])


def test_a_smaller_cohort_is_the_beginning_of_a_larger_one(cohort, tmp_path):
    write_cohort(tmp_path / "small", 13, SEED, SIZE)
    large = contents(cohort[0] / "files")
    assert contents(tmp_path / "small" / "files").items() <= large.items()
    small = (tmp_path / "small" / "truth.jsonl").read_text()
    assert (cohort[0] / "truth.jsonl").read_text().startswith(small)


def test_another_seed_draws_other_films(cohort, tmp_path):
    write_cohort(tmp_path / "other", 10, SEED + 1, SIZE)
    assert not set(contents(tmp_path / "other").values()) & set(contents(cohort[0] / "files").values())


def test_progress_ends_at_the_number_of_studies(cohort):
    calls = cohort[2]
    assert calls[-1] == (STUDIES, STUDIES) and [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_killed_run_is_carried_on_to_the_same_bytes(cohort, tmp_path):
    out = tmp_path / "killed"
    script = (
        "import os, signal, sys; from pathlib import Path; from rrg.data.prepare.phantom import write_cohort\n"
        "stop = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done > 9 else None\n"
        f"write_cohort(Path(sys.argv[1]), {STUDIES}, {SEED}, {SIZE}, progress=stop)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(out)], check=False)
    assert done.returncode == -signal.SIGKILL and not (out / "truth.jsonl").exists()
    films = sorted(out.rglob("*.jpg"))
    films[0].write_bytes(films[0].read_bytes()[:-20])  # as a disk without room would leave it
    films[1].with_name(f".{films[1].name}.tmp").write_bytes(b"half")
    films[1].unlink()
    summary = write_cohort(out, STUDIES, SEED, SIZE)
    assert summary.kept == len(films) - 2 and summary.written == summary.films - summary.kept
    assert contents(out) == contents(cohort[0])


def test_a_finished_cohort_is_left_as_it_is(cohort):
    out = cohort[0]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    summary = write_cohort(out, STUDIES, SEED, SIZE)
    assert (summary.written, summary.kept) == (0, summary.films)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")} == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"studies": 9}, "studies is 9.*at least 10"),
        ({"seed": -1}, "seed is -1"),
        ({"size": 63}, "size is 63.*64 to 2048"),
        ({"size": 5000}, "size is 5000"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_parameters_out_of_range(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        write_cohort(**{"out": tmp_path / "x", "studies": 10, "seed": 1, "size": 64} | change)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("change", [{"seed": 6}, {"studies": 30}, {"size": 96}])
def test_cohorts_are_not_mixed(cohort, change):
    asked = {"studies": STUDIES, "seed": SEED, "size": SIZE} | change
    with pytest.raises(UserError, match=f"other parameters.*{next(iter(change))}="):
        write_cohort(cohort[0], **asked)


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(UserError, match="holds other files"):
        write_cohort(tmp_path, 10, 1, 64)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("there", ["not json", "[]", "3"])
def test_a_damaged_parameter_file_is_refused(tmp_path, there):
    (tmp_path / "cohort.json").write_text(there)
    with pytest.raises(UserError, match=r"cohort\.json"):
        write_cohort(tmp_path, 10, 1, 64)


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write_cohort(tmp_path / "taken", 10, 1, 64)
    with pytest.raises(UserError, match="cannot be written"):
        write_cohort(tmp_path / "taken" / "below", 10, 1, 64)


def test_a_damaged_truth_file_names_the_line(cohort, tmp_path):
    good = (cohort[0] / "truth.jsonl").read_text().splitlines()[0]
    (tmp_path / "truth.jsonl").write_text(f"{good}\n{good[:50]}\n")
    with pytest.raises(UserError, match="line 2"):
        list(read_truth(tmp_path / "truth.jsonl"))


def test_the_tree_reads_as_mimic_cxr(cohort):
    collection = read_mimic_cxr(cohort[0], MimicChoices())
    truths = {truth.study: truth for truth in read_truth(cohort[0] / "truth.jsonl")}
    assert len(collection.studies) == STUDIES
    for source in collection.studies:
        study = source.study
        truth = truths[study.id.removeprefix("s")]
        assert study.split == {"validate": "val"}.get(truth.split, truth.split)
        assert [view.plane for view in study.views] == ["frontal", "lateral"][: len(truth.films)]
        positive = {name for name, value in truth_labels(truth).items() if value == 1}
        assert positive == {name for name, value in study.labels.items() if value == 1}
        assert study.sections.findings and study.sections.impression
        assert (study.prior is not None) == (truth.number > 0)
