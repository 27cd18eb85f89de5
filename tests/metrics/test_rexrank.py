"""ReXrank's file in and out, and its protocol."""

import json

import pytest

from rrg.data.protocols import get_protocol
from rrg.data.study import Sections
from rrg.errors import UserError
from rrg.metrics.predictions import read_predictions
from rrg.metrics.rexrank import rexrank_record

RECORD = {
    "50": {
        "findings": "Clear lungs.",
        "impression": "Normal.",
        "split": "test",
        "model_prediction": "Findings:Clear.Impression:Fine.",
    },
    "51": {"section_findings": float("nan"), "section_impression": "No change.", "model_prediction": "IMPRESSION: No change."},
}


def written(tmp_path, record):
    path = tmp_path / "prediction.json"
    path.write_text(json.dumps(record))
    return path


def test_read(tmp_path):
    predictions = read_predictions(written(tmp_path, RECORD), "findings_impression")
    assert [row["reference"] for row in predictions.rows] == ["Clear lungs. Normal.", "No change."]
    assert [row["generated"] for row in predictions.rows] == ["Clear. Fine.", "No change."]
    assert predictions.split == "test" and predictions.studies == ["50", "51"]
    assert read_predictions(written(tmp_path, RECORD), "impression").rows[0]["reference"] == "Normal."


def test_there_and_back(tmp_path):
    rows = read_predictions(written(tmp_path, RECORD), "findings_impression").rows
    sections = {"50": Sections("Clear lungs.", "Normal."), "51": Sections("", "No change.")}
    again = read_predictions(written(tmp_path, rexrank_record(rows, sections)), "findings_impression").rows
    keys = ("study", "generated", "reference")
    assert [[row[key] for key in keys] for row in again] == [[row[key] for key in keys] for row in rows]
    alone = rexrank_record([{"study": "7", "generated": "Fine.", "reference": "Good.", "section": "impression"}], {})
    assert alone["7"] == {"section_findings": "", "section_impression": "Good.", "model_prediction": "Impression: Fine."}


def test_protocol_lowers_and_spaces_full_stops_on_both_sides():
    protocol = get_protocol("rexrank")
    assert protocol.generated("Findings: Clear lungs.  Impression:Normal.") == "clear lungs . normal ."
    assert protocol.reference(Sections("Clear lungs.", "Normal.")) == "clear lungs . normal ."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "not ReXrank's"),
        ("{", "not JSON"),
        ('{"1": "x"}', "not ReXrank's"),
        ('{"1": {}}', "study 1"),
        ("{}", "has no predictions"),
    ],
)
def test_refusals(tmp_path, text, words):
    path = tmp_path / "prediction.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_predictions(path, "findings")
