"""Sequences on disk behave as lists do, leave nothing behind, and hold next to nothing in memory."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from rrg.data.prepare.spool import spooled_exclusions, spooled_studies
from rrg.data.study import Sections, Study, View
from rrg.errors import UserError
from rrg.shards.plan import Excluded, SourceStudy

FULL = Path("/dev/full")
STUDIES = [
    SourceStudy(
        Study(
            f"s{number}", f"p{number // 3}", "train", (View("0.jpg", "PA"),), Sections("Ünchanged.\n\n" * (number % 5), "\x1f")
        ),
        (f"/films/{number}\n.jpg",),
    )
    for number in range(700)
]


def test_as_a_list():
    spool = spooled_studies()
    assert list(spool) == [] and len(spool) == 0 and not spool
    for source in STUDIES:
        spool.append(source)
    assert len(spool) == 700 and list(spool) == STUDIES == list(spool)
    assert spool[3] == STUDIES[3] and spool[-1] == STUDIES[-1]
    for cut in (slice(5, 9), slice(None), slice(690, 999), slice(9, 5), slice(0, 50, 7), slice(None, None, -1), slice(-3, None)):
        assert list(spool[cut]) == STUDIES[cut]
    with pytest.raises(IndexError):
        spool[700]
    spool.append(STUDIES[0])
    assert spool[700] == STUDIES[0] and STUDIES[10] in spool


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = spooled_exclusions()
    for number in range(999):
        spool.append(Excluded(f"s{number}", "no report: ünknown"))
    assert spool[998] == Excluded("s998", "no report: ünknown")
    assert list(tmp_path.iterdir()) == []
    assert sys.getsizeof(spool._ends) < 16_000


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_in_a_line():
    spool = spooled_exclusions()
    spool._file = FULL.open("wb")
    with pytest.raises(UserError, match="set TMPDIR elsewhere"):
        for number in range(9999):
            spool.append(Excluded(f"s{number}", "no report"))
    with pytest.raises(OSError, match="No space"):
        spool._file.close()
