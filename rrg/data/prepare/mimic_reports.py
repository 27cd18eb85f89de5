"""The free-text reports of MIMIC-CXR: `mimic-cxr-reports.zip` as it is, or the folder tree that it unpacks to."""

from __future__ import annotations

import codecs
import re
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath

from rrg.data.prepare.collection import sha256
from rrg.data.prepare.scratch import scratch_database, together
from rrg.data.prepare.zip_directory import Member, ZipError, members, unpack
from rrg.errors import UserError

ARCHIVE = "mimic-cxr-reports.zip"
FOLDER = "mimic-cxr-reports"

# The longest report of the collection has a few thousand characters; a member of megabytes is no report.
_MOST_BYTES = 1 << 20
_MEMBER = re.compile(r"(?:.*/)?p\d+/p\d+/(s\d+)\.txt\Z")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\ufffd]")
_SHARE_NO_TEXT = 0.05


class ReportError(ValueError):
    """A report is there but cannot be read; the message is the reason, without a word of the report."""


class ReportSource(ABC):
    """Report texts by study. `where` names the source in messages; `not_utf8` counts the reports read in another encoding."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self.not_utf8 = 0

    def read(self, study: str, patient: str) -> str | None:
        """The text of a study's report, or None where there is none. Raises ReportError."""
        data = self._bytes(study, patient)
        if data is None:
            return None
        if len(data) > _MOST_BYTES:
            raise ReportError(f"it has more than {_MOST_BYTES:,} bytes, which is no report")
        text = self._decoded(data)
        if len(_NO_TEXT.findall(text)) > _SHARE_NO_TEXT * len(text):
            raise ReportError("it is not text")
        return text

    def _decoded(self, data: bytes) -> str:
        """UTF-8; else UTF-16 where it says so; else the Windows code page, which reads any bytes."""
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.not_utf8 += 1
            return data.decode("utf-16" if data.startswith(_UTF16) else "cp1252", "replace")

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
            if path.exists() and not path.is_file():
                raise ReportError("it is not a file")
            with path.open("rb") as stream:
                return stream.read(_MOST_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ReportError(f"it cannot be read ({error.strerror})") from None

    def describe(self) -> dict[str, str]:
        return {"reports": "folder"}


class ReportArchive(ReportSource):
    """Reports inside the zip, found by the end of their member names. Nothing is unpacked to disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path
        self._file = path.open("rb")
        self._places = scratch_database()  # 227,835 places, on disk rather than in memory
        self._places.execute("CREATE TABLE report (study TEXT PRIMARY KEY, name, place, packed, size, method, crc32, flags)")
        try:
            with together(self._places):
                for member in members(self._file):
                    self._add(member)
        except ZipError as error:
            raise UserError(f"{path}: not a whole zip file ({error}); fetch it again") from None

    def _add(self, member: Member) -> None:
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts or "\\" in member.name:
            raise UserError(
                f"{self._path}: member {member.name[:120]!r} points outside the archive; this is not the published file"
            )
        match = _MEMBER.match(member.name)
        if match is None or "__MACOSX" in parts:
            return
        try:
            self._places.execute("INSERT INTO report VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (match[1], *member))
        except sqlite3.IntegrityError:
            other = self._member(match[1])
            raise UserError(
                f"{self._path}: study {match[1]} has two reports, {other.name if other else ''} and {member.name}"
            ) from None

    def _member(self, study: str) -> Member | None:
        row = self._places.execute("SELECT * FROM report WHERE study = ?", (study,)).fetchone()
        return Member(*row[1:]) if row else None

    def _bytes(self, study: str, patient: str) -> bytes | None:
        member = self._member(study)
        if member is None or f"/{patient}/" not in f"/{member.name}":
            return None
        try:
            return unpack(self._file, member, _MOST_BYTES)
        except ZipError as error:
            raise ReportError(f"it cannot be unpacked: {error}") from None

    def describe(self) -> dict[str, str]:
        return {"reports": "zip", "reports_sha256": sha256(self._path)}
