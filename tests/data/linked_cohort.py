"""A MIMIC-CXR-JPG tree of many phantom studies in minutes: every report is its own, films are hard links to a few drawn ones."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from rrg.data.prepare.phantom import tables
from rrg.data.prepare.phantom.cohort import plan
from rrg.data.prepare.phantom.files import film_path
from rrg.data.prepare.phantom.film import draw, jpeg
from rrg.data.prepare.phantom.patient import studies as studies_of
from rrg.data.prepare.phantom.report import write_report
from rrg.data.prepare.phantom.truth import StudyTruth, generator

SIZE = 64


def write_linked_cohort(root: Path, studies: int, seed: int = 3, drawn: int = 60) -> Path:
    """`studies` studies below `root`; only the films of the first `drawn` are drawn."""
    films: list[Path] = []
    metadata, splits, labels = [], [], []
    root.mkdir(parents=True)
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as reports:
        for patient, count in plan(seed, studies):
            prior: StudyTruth | None = None
            for truth in studies_of(seed, patient, SIZE, count):
                report = write_report(truth, prior, generator(seed, patient, truth.number, 2))
                reports.writestr(f"files/p{truth.subject[:2]}/p{truth.subject}/s{truth.study}.txt", report.text)
                for film in truth.films:
                    _place(film_path(root, truth, film), truth, film, films, drawn)
                metadata += tables.metadata_rows(truth)
                splits += tables.split_rows(truth)
                labels.append(tables.chexpert_row(truth, report.labels))
                prior = truth
    (root / tables.METADATA).write_bytes(tables.table(tables.METADATA_COLUMNS, metadata))
    (root / tables.SPLIT).write_bytes(tables.table(tables.SPLIT_COLUMNS, splits))
    (root / tables.CHEXPERT).write_bytes(tables.table(tables.CHEXPERT_COLUMNS, labels))
    return root


def _place(path: Path, truth: StudyTruth, film, films: list[Path], drawn: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(films) < drawn:
        path.write_bytes(jpeg(draw(truth, film)))
        films.append(path)
    else:
        os.link(films[int(film.dicom[:8], 16) % drawn], path)
