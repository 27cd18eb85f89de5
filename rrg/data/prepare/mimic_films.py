"""Which films of MIMIC-CXR lie on disk, and in which of its two forms: JPEG (MIMIC-CXR-JPG) or DICOM (MIMIC-CXR)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from rrg.data.prepare.catalogue import CataloguedStudy
from rrg.errors import UserError

FORMATS = {"auto": "what the tree holds", "jpg": "MIMIC-CXR-JPG", "dicom": "MIMIC-CXR"}

_LISTERS, _LISTED_AHEAD = 8, 512
# In the order of preference: a .jpg beside a .png of the same name is the one that is taken.
_SUFFIXES = {"jpg": (".jpg", ".jpeg", ".png"), "dicom": (".dcm",)}


def listed(files: Path, studies: Iterable[CataloguedStudy]) -> Iterator[tuple[CataloguedStudy, list[str]]]:
    """Each study with the names in its folder. Listing waits for the disk, so several folders wait at once."""

    def names(study: CataloguedStudy) -> list[str]:
        try:
            return sorted(os.listdir(folder_of(files, study)))  # noqa: PTH208 - names only
        except (FileNotFoundError, NotADirectoryError):
            return []

    rest = iter(studies)
    with ThreadPoolExecutor(_LISTERS) as pool:
        while part := list(islice(rest, _LISTED_AHEAD)):
            yield from zip(part, pool.map(names, part), strict=True)


def folder_of(files: Path, study: CataloguedStudy) -> str:
    """`files/p10/p10000001/s50000001`."""
    return f"{files}/{study.patient[:3]}/{study.patient}/{study.study}"


class FilmFinder:
    """Finds films by name in the form that was asked for, or, with `auto`, in the one form that the tree holds."""

    def __init__(self, files: Path, asked: str) -> None:
        self._files, self._asked = files, asked
        self._seen: dict[str, str] = {}  # form -> the first folder that holds it

    @property
    def form(self) -> str:
        """`jpg` or `dicom`: what was asked for, else what was found first; `jpg` where nothing was."""
        return self._asked if self._asked != "auto" else next(iter(self._seen), "jpg")

    def find(self, study: CataloguedStudy, names: Sequence[str]) -> dict[str, str]:
        """Paths of a study's films by name without suffix. Raises UserError where `auto` meets both forms in one tree."""
        folder = folder_of(self._files, study)
        found = {form: self._named(names, suffixes) for form, suffixes in _SUFFIXES.items()}
        for form, films in found.items():
            if films and self._asked == "auto":
                self._seen.setdefault(form, folder)
        if len(self._seen) > 1:
            raise UserError(
                f"{self._files} holds JPEG films (as {self._seen['jpg']}) and DICOM films (as {self._seen['dicom']}): say which "
                "to read with --format jpg or --format dicom"
            )
        return {film: f"{folder}/{name}" for film, name in found[self.form].items()}

    def others(self, names: Sequence[str]) -> bool:
        """Whether a folder holds films in the other form."""
        return bool(self._named(names, _SUFFIXES["jpg" if self.form == "dicom" else "dicom"]))

    @staticmethod
    def _named(names: Sequence[str], suffixes: Sequence[str]) -> dict[str, str]:
        films: dict[str, str] = {}
        for suffix in suffixes:
            for name in names:
                if name.lower().endswith(suffix):
                    films.setdefault(name[: -len(suffix)], name)
        return films
