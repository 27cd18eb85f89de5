"""Reports say what is true, once, in words that a rule labeller reads as they are meant."""

import re
from itertools import pairwise

import pytest

from rrg.data.prepare.phantom.patient import studies
from rrg.data.prepare.phantom.report import change, write_report
from rrg.data.prepare.phantom.truth import StudyTruth, generator, truth_labels
from rrg.data.prepare.phantom.wording import findings_section, stated_labels
from rrg.data.sections import parse_report
from rrg.data.study import OBSERVATIONS
from rrg.observations.labels import label_report

COMPARING = re.compile(r"\b(prior|previous|unchanged|increased|decreased|new|residual|again|stable|worse\w*|improv\w*)\b")


@pytest.fixture(scope="module")
def patients():
    return [list(studies(17, number, 320)) for number in range(700)]


@pytest.fixture(scope="module")
def everything(patients):
    return [(truth, prior) for visits in patients for prior, truth in zip([None, *visits], visits, strict=False)]


def report_of(truth, prior):
    return write_report(truth, prior, generator(17, truth.patient.number, truth.number, 2))


def test_stated_labels_agree_with_the_truth(everything):
    for truth, prior in everything:
        labels, full = report_of(truth, prior).labels, truth_labels(truth)
        assert all(full[name] == value for name, value in labels.items())
        assert all(name in labels for name, value in full.items() if value != 0)
        for name in ("Cardiomegaly", "Enlarged Cardiomediastinum", "Pleural Effusion", "Pneumothorax"):
            assert name in labels


def test_a_rule_labeller_reads_the_same_from_findings_alone_and_with_the_impression(everything):
    for truth, prior in everything:
        report = report_of(truth, prior)
        sections = parse_report(report.text).sections
        assert label_report(sections.findings) == report.labels
        assert label_report(f"{sections.findings} {sections.impression}") == report.labels


def test_no_sentence_contradicts_another(everything):
    for truth, _ in everything:
        sentences = findings_section(truth, generator(1, truth.number))
        stated = [name for sentence in sentences for name in sentence.states if name != "Support Devices"]
        assert len(stated) == len(set(stated))
        for sentence in sentences:
            assert len(set(sentence.states.values())) <= 1, sentence.text
            assert "{" not in sentence.text and sentence.text[0].isupper() and sentence.text.endswith(".")


def test_findings_never_compare_and_depend_on_this_study_alone(everything):
    for truth, prior in everything:
        assert not COMPARING.search(" ".join(s.text for s in findings_section(truth, generator(2, 1))).lower())
        with_prior, without = (parse_report(report_of(truth, p).text).sections for p in (prior, None))
        assert with_prior.findings == without.findings


def test_sections_are_in_place(everything):
    for truth, prior in everything[:300]:
        text = report_of(truth, prior).text
        assert text.startswith(" " * 33 + "FINAL REPORT\n")
        order = [text.index(f"{name}:") for name in ("EXAMINATION", "INDICATION", "COMPARISON", "FINDINGS", "IMPRESSION")]
        assert order == sorted(order)
        sections = parse_report(text).sections
        assert sections.findings and sections.impression and sections.indication
        assert ("None" in sections.comparison) == (prior is None)
        assert max(map(len, text.splitlines())) <= 80


def test_reports_are_short_and_few_words_are_used(everything):
    findings = [parse_report(report_of(truth, prior).text).sections.findings for truth, prior in everything]
    lengths = sorted(len(text.split()) for text in findings)
    assert lengths[0] >= 15 and lengths[-1] <= 95
    assert lengths[len(lengths) // 20] >= 25 and lengths[-len(lengths) // 10] <= 65
    words = {word for text in findings for word in re.findall(r"[a-z]+", text.lower())}
    assert 100 < len(words) < 300
    assert len(set(findings)) > 0.5 * len(findings)  # phrasing varies


def test_every_observation_is_stated_in_both_senses_where_it_can_be(everything):
    stated = {(name, value) for truth, prior in everything for name, value in report_of(truth, prior).labels.items()}
    assert {name for name, value in stated if value == 1} == set(OBSERVATIONS)
    denied = {name for name, value in stated if value == 0}
    assert denied >= {"Cardiomegaly", "Edema", "Consolidation", "Pneumothorax", "Pleural Effusion", "Fracture"}
    assert any(value == -1 for _, value in stated)


def test_the_impression_speaks_of_change(patients):
    seen = set()
    for visits in patients:
        for prior, truth in pairwise(visits):
            impression = " ".join(parse_report(report_of(truth, prior).text).sections.impression.split())
            for finding in truth.findings:
                seen.add(change(finding, prior.findings))
            gone = {f.name for f in prior.findings} - {f.name for f in truth.findings}
            assert ("No residual pneumothorax" in impression) == ("Pneumothorax" in gone)
    assert seen == {"new", "larger", "smaller", "same"}


def test_no_finding_is_stated_for_devices_alone():
    truth = next(t for n in range(200) for t in studies(17, n, 320) if t.devices and not t.findings)
    labels = stated_labels(findings_section(truth, generator(0)))
    assert labels["No Finding"] == labels["Support Devices"] == 1


def test_truth_survives_json(everything):
    for truth, _ in everything[:200]:
        assert StudyTruth.from_json(truth.to_json()) == truth
