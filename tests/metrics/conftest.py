"""Real reports for the tests of this folder, read where the shared data lies beside the repository."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RRG_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
REPORTS = SHARED / "data" / "openi" / "reports.jsonl"


@pytest.fixture(scope="session")
def openi() -> Callable[..., list[dict]]:
    """`openi("val", "test")` gives the records of those splits that have a findings section."""
    if not REPORTS.is_file():
        pytest.skip("no data/openi/reports.jsonl: set RRG_SHARED to the folder that holds data/")
    with REPORTS.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return lambda *splits: [study for study in records if study["r2gen_split"] in splits and study["findings"]]
