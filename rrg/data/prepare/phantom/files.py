"""Where a cohort's files lie, and how they get there: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from rrg.data.prepare.phantom.truth import Film, StudyTruth
from rrg.errors import UserError

END_OF_JPEG = b"\xff\xd9"


def patient_folder(root: Path, subject: str) -> Path:
    """`files/p10/p10000001`."""
    return root / "files" / f"p{subject[:2]}" / f"p{subject}"


def film_path(root: Path, truth: StudyTruth, film: Film, suffix: str = ".jpg") -> Path:
    """`files/p10/p10000001/s50000001/<dicom>.jpg`."""
    return patient_folder(root, truth.subject) / f"s{truth.study}" / f"{film.dicom}{suffix}"


def report_path(root: Path, truth: StudyTruth) -> Path:
    """`files/p10/p10000001/s50000001.txt`."""
    return patient_folder(root, truth.subject) / f"s{truth.study}.txt"


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, flush it to disk, rename. Raises UserError where the folder or the disk does not allow it.

    The temporary name is always the same, so what a killed run left behind is replaced by the next one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name a folder you may write to, with room left") from None


def is_whole(path: Path) -> bool:
    """Whether `path` is there and complete: a JPEG up to its end marker, anything else not empty."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if path.suffix != ".jpg":
                return size > 0
            file.seek(max(0, size - len(END_OF_JPEG)))
            return file.read() == END_OF_JPEG
    except OSError:
        return False
