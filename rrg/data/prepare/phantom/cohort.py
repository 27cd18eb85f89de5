"""Writes a phantom cohort: a folder with the files and tables of MIMIC-CXR-JPG, and the truth beside them.

With the format `dicom` its films are DICOM files, as those of MIMIC-CXR are. Every file is a function of (seed, patient number,
visit number, size, format): the number of workers, the order of work and
interruptions change no byte (for the same versions of numpy and Pillow). The first n studies are the same in every cohort of
one seed and size that has at least n.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rrg.data.dicom import require_dicom
from rrg.data.prepare.phantom import tables
from rrg.data.prepare.phantom.dicom_film import dicom
from rrg.data.prepare.phantom.files import film_path, is_whole, report_path, write_whole
from rrg.data.prepare.phantom.film import draw, jpeg
from rrg.data.prepare.phantom.patient import studies as studies_of
from rrg.data.prepare.phantom.patient import visit_count
from rrg.data.prepare.phantom.report import write_report
from rrg.data.prepare.phantom.truth import StudyTruth, generator, truth_labels
from rrg.errors import UserError, nearest

VERSION = 1  # of the drawing and the wording: another version draws other films from the same seed
FEWEST_STUDIES = 10
SIZES = (64, 2048)
SUFFIXES = {"jpg": ".jpg", "dicom": ".dcm"}  # of films, by format
PARAMETERS, TRUTH = "cohort.json", "truth.jsonl"


@dataclass(frozen=True)
class CohortSummary:
    """What a cohort holds. `written` and `kept` count films: drawn by this call, found complete from an earlier one."""

    out: Path
    patients: int
    studies: int
    films: int
    written: int
    kept: int
    splits: dict[str, int] = field(default_factory=dict)  # studies per split
    positives: dict[str, int] = field(default_factory=dict)  # studies per observation that is present


@dataclass(frozen=True)
class _Job:
    out: Path
    seed: int
    size: int
    patient: int
    most: int  # studies
    format: str


@dataclass(frozen=True)
class _Done:
    studies: tuple[tuple[StudyTruth, dict[str, int]], ...]  # with the labels that the report states
    written: int
    kept: int


def write_cohort(
    out: Path,
    studies: int,
    seed: int,
    size: int = 320,
    workers: int = 1,
    form: str = "jpg",
    progress: Callable[[int, int], None] | None = None,
) -> CohortSummary:
    """Write `studies` synthetic studies below `out`; films have a shorter side of `size` pixels and are of a form of `SUFFIXES`.

    Carries on where an interrupted call with the same parameters stopped. `progress(done, studies)` is called as patients are
    finished. Raises UserError for parameters out of range, a folder that cannot be written or that holds something else.
    """
    _check(studies, seed, size, workers, form)
    parameters: dict[str, int | str] = {"version": VERSION, "studies": studies, "seed": seed, "size": size}
    _claim(out, parameters if form == "jpg" else {**parameters, "format": form})
    jobs = [_Job(out, seed, size, patient, count, form) for patient, count in plan(seed, studies)]
    done: list[_Done] = []
    finished = 0
    with _results(jobs, workers) as results:
        for result in results:
            done.append(result)
            finished += len(result.studies)
            if progress is not None:
                progress(finished, studies)
    everything = [study for result in done for study in result.studies]
    _write_tables(out, everything)
    return _summary(out, done, [truth for truth, _ in everything])


def plan(seed: int, studies: int) -> Iterator[tuple[int, int]]:
    """(patient number, number of studies) in order, until there are `studies` of them; the last patient may be cut short."""
    patient = 0
    while studies > 0:
        count = min(studies, visit_count(seed, patient))
        yield patient, count
        studies, patient = studies - count, patient + 1


def _check(studies: int, seed: int, size: int, workers: int, form: str) -> None:
    if studies < FEWEST_STUDIES:
        raise UserError(f"studies is {studies}: a cohort needs at least {FEWEST_STUDIES}, so that every split has patients")
    if seed < 0:
        raise UserError(f"seed is {seed}: write a whole number from 0 up")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"size is {size}: write the shorter side of a film in pixels, {SIZES[0]} to {SIZES[1]}")
    if workers < 1:
        raise UserError(f"workers is {workers}: write 1 or more processes")
    if form not in SUFFIXES:
        raise UserError(f"--format {form!r} is no form that films are written in; {nearest(form, SUFFIXES)}")
    if form == "dicom":
        require_dicom()


def _claim(out: Path, parameters: Mapping[str, int | str]) -> None:
    """Make `out` this cohort's folder, or find that it already is."""
    mark = out / PARAMETERS
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name a folder for the cohort")
    if mark.is_file():
        _compare(mark, parameters)
    elif out.is_dir() and _holds_something(out):
        raise UserError(f"{out}: holds other files and no {PARAMETERS}; name an empty or a new folder")
    else:
        write_whole(mark, json.dumps(parameters, sort_keys=True).encode() + b"\n")


def _holds_something(folder: Path) -> bool:
    try:
        return any(not entry.name.startswith(".") for entry in folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); name a folder of your own") from None


def _compare(mark: Path, parameters: Mapping[str, int | str]) -> None:
    try:
        there = json.loads(mark.read_bytes())
    except (OSError, ValueError):
        raise UserError(f"{mark}: cannot be read as JSON; name a new folder for the cohort") from None
    if there != parameters:
        held = there if isinstance(there, dict) else {}
        names = [name for name in {**parameters, **held} if held.get(name) != parameters.get(name)]
        asked = ", ".join(f"{name}={parameters.get(name, 'jpg')}" for name in names)
        raise UserError(f"{mark}: the cohort there was made with other parameters (asked: {asked}); name a new folder")


@contextmanager
def _results(jobs: Sequence[_Job], workers: int) -> Iterator[Iterator[_Done]]:
    """The results in the order of `jobs`, computed here or by `workers` fresh processes."""
    if workers == 1:
        yield map(_write_patient, jobs)
        return
    # A fresh interpreter per worker: a fork would copy whatever threads and locks the caller holds.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool.map(_write_patient, jobs, chunksize=max(1, min(16, len(jobs) // (4 * workers))))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write_patient(job: _Job) -> _Done:
    done: list[tuple[StudyTruth, dict[str, int]]] = []
    prior: StudyTruth | None = None
    written = kept = 0
    for truth in studies_of(job.seed, job.patient, job.size, job.most):
        report = write_report(truth, prior, generator(job.seed, job.patient, truth.number, 2))
        for film in truth.films:
            path = film_path(job.out, truth, film, SUFFIXES[job.format])
            if is_whole(path):
                kept += 1
                continue
            pixels = draw(truth, film)
            write_whole(path, jpeg(pixels) if job.format == "jpg" else dicom(pixels, truth, film))
            written += 1
        if not is_whole(report_path(job.out, truth)):
            write_whole(report_path(job.out, truth), report.text.encode())
        done.append((truth, report.labels))
        prior = truth
    return _Done(tuple(done), written, kept)


def _write_tables(out: Path, everything: Sequence[tuple[StudyTruth, dict[str, int]]]) -> None:
    """Tables come last: where they are, the cohort is complete."""
    truths = [truth for truth, _ in everything]
    write_whole(out / TRUTH, "".join(truth.to_json() + "\n" for truth in truths).encode())
    metadata = [row for truth in truths for row in tables.metadata_rows(truth)]
    write_whole(out / tables.METADATA, tables.table(tables.METADATA_COLUMNS, metadata))
    labels = [tables.chexpert_row(truth, stated) for truth, stated in everything]
    write_whole(out / tables.CHEXPERT, tables.table(tables.CHEXPERT_COLUMNS, labels))
    splits = [row for truth in truths for row in tables.split_rows(truth)]
    write_whole(out / tables.SPLIT, tables.table(tables.SPLIT_COLUMNS, splits))


def _summary(out: Path, done: Sequence[_Done], truths: Sequence[StudyTruth]) -> CohortSummary:
    present = Counter(name for truth in truths for name, value in truth_labels(truth).items() if value == 1)
    return CohortSummary(
        out=out,
        patients=len(done),
        studies=len(truths),
        films=sum(len(truth.films) for truth in truths),
        written=sum(result.written for result in done),
        kept=sum(result.kept for result in done),
        splits=dict(Counter(truth.split for truth in truths)),
        positives=dict(present),
    )
