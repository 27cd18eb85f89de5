"""The free-text reports of MIMIC-CXR: `mimic-cxr-reports.zip` as it is, or the folder tree that it unpacks to."""

from __future__ import annotations

import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath

from rrg.data.prepare.collection import sha256
from rrg.errors import UserError

ARCHIVE = "mimic-cxr-reports.zip"
FOLDER = "mimic-cxr-reports"

# The longest report of the collection has a few thousand characters; a member of megabytes is no report.
_MOST_BYTES = 1 << 20
_MEMBER = re.compile(r"(?:.*/)?p\d+/p\d+/(s\d+)\.txt\Z")


class ReportSource(ABC):
    """Report texts by study. `where` names the source in messages; `not_utf8` counts the reports read in another encoding."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self.not_utf8 = 0

    def read(self, study: str, patient: str) -> str | None:
        """The text of a study's report, or None where there is none. Raises UserError if it is damaged."""
        data = self._bytes(study, patient)
        if data is None:
            return None
        if len(data) > _MOST_BYTES:
            raise UserError(f"{self.where}: the report of {study} has more than {_MOST_BYTES} bytes, which is no report")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.not_utf8 += 1
            return data.decode("cp1252", "replace")

    @abstractmethod
    def _bytes(self, study: str, patient: str) -> bytes | None:
        """The report's bytes, at most one more than allowed."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """What the manifest records of the source."""


def find_reports(root: Path, given: Path | None = None) -> ReportSource:
    """The reports at `given` (zip or folder), else those in `root`. Raises UserError where `given` is neither."""
    if given is not None and not given.exists():
        raise UserError(f"no reports at {given}: --reports is {ARCHIVE} or the folder it unpacks to")
    candidates = (given,) if given is not None else (root / ARCHIVE, root / FOLDER, root)
    path = next(path for path in candidates if path.exists())
    return ReportArchive(path) if path.is_file() else ReportFolder(path)


class ReportFolder(ReportSource):
    """Reports as `[files/]pNN/pNNNNNNNN/sNNNNNNNN.txt` under a folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._root = root / "files" if (root / "files").is_dir() else root

    def _bytes(self, study: str, patient: str) -> bytes | None:
        path = self._root / patient[:3] / patient / f"{study}.txt"
        try:
            with path.open("rb") as stream:
                return stream.read(_MOST_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def describe(self) -> dict[str, str]:
        return {"reports": "folder"}


class ReportArchive(ReportSource):
    """Reports inside the zip, found by the end of their member names. Nothing is unpacked to disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise UserError(f"{path}: not a whole zip file ({type(error).__name__}); fetch it again") from None
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._archive.infolist():
            self._add(member)

    def _add(self, member: zipfile.ZipInfo) -> None:
        parts = PurePosixPath(member.filename).parts
        if member.filename.startswith("/") or ".." in parts or "\\" in member.filename:
            raise UserError(
                f"{self._path}: member {member.filename[:120]!r} points outside the archive; this is not the published file"
            )
        match = _MEMBER.match(member.filename)
        if match is None or "__MACOSX" in parts:
            return
        if match[1] in self._members:
            raise UserError(
                f"{self._path}: study {match[1]} has two reports, {self._members[match[1]].filename} and {member.filename}"
            )
        self._members[match[1]] = member

    def _bytes(self, study: str, patient: str) -> bytes | None:
        member = self._members.get(study)
        if member is None or f"/{patient}/" not in f"/{member.filename}":
            return None
        try:
            with self._archive.open(member) as stream:
                return stream.read(_MOST_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise UserError(
                f"{self._path}: the report of {study} cannot be unpacked ({type(error).__name__}); fetch the zip file again"
            ) from None

    def describe(self) -> dict[str, str]:
        return {"reports": "zip", "reports_sha256": sha256(self._path)}
