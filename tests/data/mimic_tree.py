"""A small tree in the layout of MIMIC-CXR-JPG, with real JPEG films, for tests to damage."""

from __future__ import annotations

import csv
import gzip
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import simplejpeg

from rrg.data.study import OBSERVATIONS

METADATA_COLUMNS = [
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
    "Columns",
    "StudyDate",
    "StudyTime",
    "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
]
REPORT = "            FINAL REPORT\n INDICATION:  Cough.\n \n FINDINGS:  The lungs are clear.\n \n IMPRESSION:  Normal.\n"


@dataclass
class Case:
    """One study; `films` are (dicom id, ViewPosition)."""

    subject: int
    study: int
    split: str = "train"
    films: tuple[tuple[str, str], ...] = (("aa", "PA"),)
    date: str = "21800506"
    time: str = "213014.531"
    report: str | bytes | None = REPORT
    labels: dict[str, str] = field(default_factory=dict)
    view_code: str = ""


CASES = (
    Case(10000001, 50000001, films=(("a1", "LATERAL"), ("a2", "AP"), ("a3", "PA")), labels={"Edema": "1.0", "Fracture": "-1.0"}),
    Case(10000001, 50000002, date="21800508", time="93014", films=(("b1", "AP"),)),
    Case(11000002, 51000003, split="validate", films=(("c1", "LL"),), labels={"No Finding": "1.0", "Pneumonia": "0.0"}),
    Case(12000003, 52000004, split="test", films=(("d1", ""),), view_code="postero-anterior"),
)


def jpeg(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 20, 1), dtype=np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=90, colorspace="GRAY", colorsubsampling="Gray")


def write_table(root: Path, name: str, header: list[str], rows: list[list[str]], packed: bool = False) -> Path:
    path = root / f"mimic-cxr-2.0.0-{name}.csv{'.gz' if packed else ''}"
    with gzip.open(path, "wt", newline="") if packed else path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_tree(root: Path, cases=CASES, *, reports: str = "zip", packed: bool = False, labels: str = "chexpert") -> Path:
    """Write the tree; `reports` is zip, folder, nested (beside the films) or none."""
    root.mkdir(parents=True, exist_ok=True)
    metadata, splits, labelled = [], [], []
    for case in cases:
        folder = root / "files" / f"p{str(case.subject)[:2]}" / f"p{case.subject}" / f"s{case.study}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, (dicom, view) in enumerate(case.films):
            (folder / f"{dicom}.jpg").write_bytes(jpeg(case.study + number))
            shape = ["CHEST (PA AND LAT)", view, "24", "20", case.date, case.time, "CHEST", case.view_code, "Erect"]
            metadata.append([dicom, str(case.subject), str(case.study), *shape])
            splits.append([dicom, str(case.study), str(case.subject), case.split])
        labelled.append([str(case.subject), str(case.study), *(case.labels.get(name, "") for name in sorted(OBSERVATIONS))])
    write_table(root, "metadata", METADATA_COLUMNS, metadata, packed)
    write_table(root, "split", ["dicom_id", "study_id", "subject_id", "split"], splits, packed)
    if labels:
        write_table(root, labels, ["subject_id", "study_id", *sorted(OBSERVATIONS)], labelled, packed)
    write_reports(root, cases, reports)
    return root


def write_reports(root: Path, cases, kind: str) -> None:
    texts = {
        f"files/p{str(case.subject)[:2]}/p{case.subject}/s{case.study}.txt": case.report
        for case in cases
        if case.report is not None
    }
    if kind == "zip":
        with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
    elif kind != "none":
        base = root / "mimic-cxr-reports" if kind == "folder" else root
        for name, text in texts.items():
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            (base / name).write_bytes(text if isinstance(text, bytes) else text.encode())
