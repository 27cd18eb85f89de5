"""The CSV tables of MIMIC-CXR-JPG 2.0.0, column for column, gzipped without a time stamp so that equal rows give equal bytes."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence

from rrg.data.prepare.phantom.truth import Film, StudyTruth
from rrg.data.study import OBSERVATIONS

SPLIT = "mimic-cxr-2.0.0-split.csv.gz"
METADATA = "mimic-cxr-2.0.0-metadata.csv.gz"
CHEXPERT = "mimic-cxr-2.0.0-chexpert.csv.gz"

SPLIT_COLUMNS = ("dicom_id", "study_id", "subject_id", "split")
METADATA_COLUMNS = (
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
)
CHEXPERT_COLUMNS = ("subject_id", "study_id", *sorted(OBSERVATIONS))

VIEW_MEANING = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral"}


def split_rows(truth: StudyTruth) -> list[tuple[str, ...]]:
    """One row per film."""
    return [(film.dicom, truth.study, truth.subject, truth.split) for film in truth.films]


def metadata_rows(truth: StudyTruth) -> list[tuple[str, ...]]:
    """One row per film."""
    return [_metadata(truth, film) for film in truth.films]


def chexpert_row(truth: StudyTruth, labels: dict[str, int]) -> tuple[str, ...]:
    """One row per study: 1.0, 0.0, -1.0 or blank."""
    values = (f"{labels[name]:.1f}" if name in labels else "" for name in sorted(OBSERVATIONS))
    return (truth.subject, truth.study, *values)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A gzipped CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return gzip.compress(text.getvalue().encode(), 9, mtime=0)


def procedure(truth: StudyTruth) -> str:
    """The examination's name as a hospital system writes it."""
    views = [film.view for film in truth.films]
    if "LATERAL" in views:
        return "CHEST (PA AND LAT)"
    return "CHEST (PORTABLE AP)" if views[0] == "AP" else "CHEST (PA)"


def _metadata(truth: StudyTruth, film: Film) -> tuple[str, ...]:
    name = procedure(truth)
    size = (str(film.rows), str(film.columns))
    posture = "Recumbent" if film.view == "AP" else "Erect"
    when = (truth.date, f"{truth.time}.000")
    return (film.dicom, truth.subject, truth.study, name, film.view, *size, *when, name, VIEW_MEANING[film.view], posture)
