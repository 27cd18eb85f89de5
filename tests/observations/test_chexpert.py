"""The profile that follows the published CheXpert labeller: agreement on held-out reports, its documented rules and slips."""

import pytest

from rrg.data.cleaning import clean_iu
from rrg.data.study import OBSERVATIONS
from rrg.metrics.observations import observation_scores, per_observation, positives
from rrg.observations import chexpert
from rrg.observations.chexpert_phrases import MENTIONS, NOT_MENTIONS

CASES = [
    ("Small left pleural effusion.", {"Pleural Effusion": 1}),
    ("No pleural effusion or pneumothorax.", {"Pleural Effusion": 0, "Pneumothorax": 0}),
    ("Opacity may represent pneumonia.", {"Lung Opacity": 1, "Pneumonia": -1}),
    ("No new opacity.", {"Lung Opacity": -1}),  # "no new": stable or none
    ("Pulmonary vascular congestion.", {"Edema": -1}),
    ("Scarring or atelectasis.", {"Atelectasis": -1, "Lung Opacity": -1}),
    ("Scarring/atelectasis.", {"Atelectasis": -1, "Lung Opacity": -1}),
    ("Mild heart failure.", {"Cardiomegaly": -1, "Edema": 1}),
    ("Heart size is normal.", {"Cardiomegaly": 0}),
    ("Heart size is upper limits of normal.", {"Cardiomegaly": 1}),
    ("Heart size is at the upper limits of normal.", {"Cardiomegaly": 0}),
    ("Heart size is enlarged but stable.", {"Cardiomegaly": -1}),
    ("The mediastinum is stable.", {"Enlarged Cardiomediastinum": -1}),
    ("Nodule in the left heart size.", {"Lung Lesion": 1}),  # "in the left …" is a place, not a mention
    ("Small pericardial effusion.", {}),
    ("Calcified nodule.", {}),
    # denied and doubted is doubted, even beside an affirmation
    ("Pneumonia. No pneumonia. Possible pneumonia.", {"Pneumonia": -1}),
    ("Pneumonia. No pneumonia.", {"Pneumonia": 1}),
    # its slips
    ("Degenerative endplate changes.", {"Support Devices": 1}),
    ("No displaced rib fractures.", {"Fracture": 1}),
    ("No displaced rib fractures are seen.", {"Fracture": 0}),
    ("No pleural effusions or pneumothorax.", {"Pleural Effusion": 0, "Pneumothorax": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_statements(text, expected):
    found = chexpert.label_report(text)
    found.pop("No Finding", None)
    assert found == expected


def test_no_finding():
    """1 where nothing but devices is affirmed or doubted, its list of other abnormalities included; never 0."""
    assert chexpert.label_report("Lungs are clear.") == {"No Finding": 1}
    assert chexpert.label_report("A pacemaker is seen.") == {"No Finding": 1, "Support Devices": 1}
    for text in ("Emphysema.", "Possible effusion.", "Granuloma."):
        assert "No Finding" not in chexpert.label_report(text)
    for text in ("", " \n", "\u2003"):
        assert chexpert.label_report(text) == {}


def test_phrase_lists_are_the_published_ones(shared):
    """Letter by letter, with the places that the labeller adds to two of them by itself."""
    folder = shared / "data" / "chexpert_phrases" / "phrases"
    if not folder.is_dir():
        pytest.skip("no data/chexpert_phrases")
    for kind, held in (("mention", MENTIONS), ("unmention", NOT_MENTIONS)):
        for path in sorted((folder / kind).glob("*.txt")):
            lines = {line.strip().replace("_", " ") for line in path.read_text().splitlines() if line.strip()}
            assert set(held[path.stem.replace("_", " ").title()]) == lines, path.name
    assert len(NOT_MENTIONS["Cardiomegaly"]) == 3 * 4 * 7 and len(NOT_MENTIONS["Enlarged Cardiomediastinum"]) == 3 * 4 * 7


def test_agreement_on_held_out_reports(labelled):
    """Positive F1 on validation and test studies; the rules were made on training studies only. Measured 0.983 and 0.951."""
    held_out = [study for study in labelled if study["r2gen_split"] in {"val", "test"}]
    said = positives([chexpert.label_report(study["findings"]) for study in held_out])
    reference = [{n: v for n, v in study["chexpert_labels_of_findings"].items() if v is not None} for study in held_out]
    real = positives(reference)
    scores = observation_scores(said, real).values()
    table = "\n".join(f"{name:28} {row}" for name, row in per_observation(said, real).items())
    assert scores["observation_micro_f1"] >= 0.97 and scores["observation_macro_f1"] >= 0.93, table
    states = [chexpert.label_report(study["findings"]) for study in held_out]
    same = sum(a.get(n) == b.get(n) for a, b in zip(states, reference, strict=True) for n in OBSERVATIONS)
    assert same / (len(held_out) * len(OBSERVATIONS)) > 0.99


def test_hostile_texts():
    for text in (
        "no " * 3000 + "effusion.",
        "effusion or " * 300,
        "the heart " * 300,
        "." * 9000,
        "heart" * 900,
        "É. ﬁ\u0000 effusion",
    ):
        assert set(chexpert.label_report(text)) <= set(OBSERVATIONS)


def test_cleaned_text_is_understood(labelled):
    same = [chexpert.label_report(s["findings"]) == chexpert.label_report(clean_iu(s["findings"])) for s in labelled[:400]]
    assert sum(same) / len(same) > 0.9
