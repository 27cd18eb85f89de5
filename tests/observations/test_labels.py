"""The rule labeller: sentences by hand, agreement with two published labellers, the phantom cohort's wording."""

import numpy as np
import pytest

from rrg.data.cleaning import clean_iu, clean_mimic
from rrg.data.prepare.phantom.cohort import plan
from rrg.data.prepare.phantom.patient import studies as phantom_studies
from rrg.data.prepare.phantom.wording import findings_section, stated_labels
from rrg.data.study import OBSERVATIONS
from rrg.observations.labels import label_report, sentences

CASES = [
    # negation, and how far it reaches
    ("There is a small left pleural effusion.", {"Pleural Effusion": 1}),
    ("No pleural effusion.", {"Pleural Effusion": 0}),
    ("No evidence of pneumothorax, edema or consolidation.", {"Pneumothorax": 0, "Edema": 0, "Consolidation": 0}),
    ("The lungs are clear without infiltrate.", {"Lung Opacity": 0}),
    ("Lungs are free of focal airspace disease.", {"Lung Opacity": 0}),
    ("Negative for pneumothorax.", {"Pneumothorax": 0}),
    ("Neither effusion nor pneumothorax is seen.", {"Pleural Effusion": 0, "Pneumothorax": 0}),
    ("Pneumothorax is not identified.", {"Pneumothorax": 0}),
    ("The left effusion has resolved.", {"Pleural Effusion": 0}),
    ("Interval resolution of the left basilar opacity.", {"Lung Opacity": 0}),
    ("The right PICC has been removed.", {"Support Devices": 0}),
    ("No pneumothorax, but there is a small effusion.", {"Pneumothorax": 0, "Pleural Effusion": 1}),
    ("No consolidation; bibasilar atelectasis.", {"Consolidation": 0, "Atelectasis": 1}),
    ("No pneumothorax is seen and there is a rib fracture.", {"Pneumothorax": 0, "Fracture": 1}),
    ("No pneumothorax, stable cardiomegaly.", {"Pneumothorax": 0, "Cardiomegaly": 1}),
    ("No acute infiltrate with small right effusion.", {"Lung Opacity": 0, "Pleural Effusion": 1}),
    ("No change in the bilateral opacities.", {"Lung Opacity": 1}),
    ("No focal consolidation however small effusions persist.", {"Consolidation": 0, "Pleural Effusion": 1}),
    # uncertainty
    ("Pneumonia cannot be excluded.", {"Pneumonia": -1}),
    ("Opacity in which pneumonia is not excluded.", {"Lung Opacity": 1, "Pneumonia": -1}),
    ("Cannot exclude a small effusion.", {"Pleural Effusion": -1}),
    ("Opacity which may represent pneumonia.", {"Lung Opacity": 1, "Pneumonia": -1}),
    ("Possible left effusion.", {"Pleural Effusion": -1}),
    ("Minimal atelectasis or scarring at the left base.", {"Atelectasis": -1, "Lung Opacity": -1}),
    ("Findings are suspicious for pneumonia.", {"Pneumonia": -1}),
    ("Pulmonary vascular congestion.", {"Edema": -1}),
    ("Opacity consistent with pneumonia.", {"Lung Opacity": 1, "Pneumonia": 1}),
    # structures and their states
    ("The heart is normal in size.", {"Cardiomegaly": 0}),
    ("Heart size is mildly enlarged, stable mediastinal contours.", {"Cardiomegaly": 1, "Enlarged Cardiomediastinum": -1}),
    ("The heart is not enlarged.", {"Cardiomegaly": 0}),
    ("Heart size and mediastinal contours are within normal limits.", {"Cardiomegaly": 0, "Enlarged Cardiomediastinum": 0}),
    ("There is widening of the mediastinum.", {"Enlarged Cardiomediastinum": 1}),
    ("The mediastinum is stable.", {"Enlarged Cardiomediastinum": -1}),
    ("Stable appearance of the heart and mediastinum.", {"Cardiomegaly": -1, "Enlarged Cardiomediastinum": -1}),
    ("Enlarged heart, mediastinal contours are normal.", {"Cardiomegaly": 1, "Enlarged Cardiomediastinum": 0}),
    ("Nodule behind the heart.", {"Lung Lesion": 1}),
    # words that only look like a mention
    ("Small pericardial effusion.", {}),
    ("Massive hiatal hernia.", {}),
    ("Calcified nodule in the right lung.", {}),
    ("Degenerative endplate changes.", {}),
    # the strongest statement of a report counts
    ("No effusion on the right. Small effusion on the left.", {"Pleural Effusion": 1}),
    ("Possible effusion. No effusion on the left.", {"Pleural Effusion": -1}),
    ("A 1.2 cm nodule. No mass.", {"Lung Lesion": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_statements(text, expected):
    found = label_report(text)
    found.pop("No Finding", None)
    assert found == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The lungs are clear.", True),
        ("No effusion. A pacemaker is in place.", True),
        ("Calcified granuloma in the left lung.", False),
        ("No effusion. Hyperinflated lungs.", False),
        ("Possible effusion.", False),
        ("No degenerative changes.", True),
    ],
)
def test_no_finding(text, expected):
    assert (label_report(text).get("No Finding") == 1) is expected


@pytest.mark.parametrize("text", ["", "   \n"])
def test_nothing_written_is_not_no_finding(text):
    assert label_report(text) == {}


def test_sentences_keep_decimals_and_drop_list_numbers():
    assert list(sentences("1. A 1.5 cm Nodule.Clear.\n2. No\neffusion. ")) == ["a 1.5 cm nodule", "clear", "no effusion"]


def test_line_wraps_do_not_matter():
    assert label_report("No pleural\n effusion or\npneumothorax.") == label_report("No pleural effusion or pneumothorax.")


def _scores(pairs):
    """Micro and macro F1 over the fourteen observations, from (predicted, reference, counted observations) per study."""
    hits, said, real = (np.zeros(len(OBSERVATIONS)) for _ in range(3))
    for predicted, reference, counted in pairs:
        for place, name in enumerate(OBSERVATIONS):
            if name in counted:
                hits[place] += name in predicted and name in reference
                said[place] += name in predicted
                real[place] += name in reference
    return 2 * hits.sum() / (said.sum() + real.sum()), np.mean(2 * hits / np.maximum(said + real, 1))


def _positive(labels):
    return {name for name, value in labels.items() if value == 1}


def test_agreement_with_published_labellers(labelled, chexbert):
    """Validation and test studies; the rules were made on training studies only.

    Two labellers have read these reports: CheXpert's rules and the CheXbert network. They agree with each other at micro F1
    0.87, so a third cannot be held to either alone beyond that. It is held to 0.90 and 0.80 where the two agree, and not to
    be further from either than they are from each other in micro F1.
    """
    held_out = [study for study in labelled if study["r2gen_split"] in {"val", "test"}]
    rows = []
    for study in held_out:
        expert, network = _positive(study["chexpert_labels_of_findings"]), chexbert[study["id"]]
        rows.append((_positive(label_report(study["findings"])), expert, network))
    every = set(OBSERVATIONS)
    micro, macro = _scores([(ours, expert, every - (expert ^ network)) for ours, expert, network in rows])
    assert micro >= 0.90 and macro >= 0.80
    between = _scores([(expert, network, every) for _, expert, network in rows])[0]
    assert _scores([(ours, expert, every) for ours, expert, _ in rows])[0] >= between
    assert _scores([(ours, network, every) for ours, _, network in rows])[0] >= between


def test_cleaned_text_gives_the_same_labels(labelled):
    same = [label_report(study["findings"]) == label_report(clean_iu(study["findings"])) for study in labelled]
    assert np.mean(same) > 0.985


def test_phantom_wording_is_read_as_it_is_meant():
    studies = [study for patient, count in plan(5, 400) for study in phantom_studies(5, patient, 320, count)]
    for number, study in enumerate(studies):
        said = findings_section(study, np.random.default_rng(number))
        text = " ".join(sentence.text for sentence in said)
        expected = {name: value for name, value in stated_labels(said).items()}
        assert label_report(text) == expected, text
        assert label_report(clean_mimic(text)) == expected, text
