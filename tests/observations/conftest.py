"""Labelled reports for the tests of this folder, read where the shared data lies beside the repository."""

import csv
import json
import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RRG_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))


@pytest.fixture(scope="session")
def labelled():
    """Studies of the R2Gen split with findings and CheXpert's labels; skips where the data is absent."""
    path = SHARED / "data" / "openi" / "reports.jsonl"
    if not path.is_file():
        pytest.skip("no data/openi/reports.jsonl: set RRG_SHARED to the folder that holds data/")
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [record for record in records if record["chexpert_labels_of_findings"] and record["r2gen_split"]]


@pytest.fixture(scope="session")
def tags_path():
    """ORGan's table of CheXbert labels."""
    path = SHARED / "data" / "organ" / "iu_xray_tags.csv"
    if not path.is_file():
        pytest.skip("no data/organ/iu_xray_tags.csv: set RRG_SHARED to the folder that holds data/")
    return path


@pytest.fixture(scope="session")
def chexbert(tags_path):
    """Study number ("CXR1") → observations that CheXbert calls positive."""
    with tags_path.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return {row["Id"].split("_")[0]: {name for name, value in row.items() if value == "1.0"} for row in rows}
