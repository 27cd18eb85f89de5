"""A whole report as a text file in the manner of MIMIC-CXR: banner, sections in capitals, wrapped lines, ___ for names."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np

from rrg.data.prepare.phantom import phrases
from rrg.data.prepare.phantom.placing import GRADES, pick
from rrg.data.prepare.phantom.tables import procedure
from rrg.data.prepare.phantom.truth import Finding, StudyTruth
from rrg.data.prepare.phantom.wording import findings_section, slots, stated_labels

BANNER = " " * 33 + "FINAL REPORT"


@dataclass(frozen=True)
class Report:
    """A report's text and the observations it states: 1 present, 0 absent, -1 possible; what is not mentioned has no key."""

    text: str
    labels: dict[str, int]


def write_report(truth: StudyTruth, prior: StudyTruth | None, rng: np.random.Generator) -> Report:
    """The report of a study; `prior` is the patient's study before, which only COMPARISON and IMPRESSION speak of."""
    sentences = findings_section(truth, rng)
    sections = {
        "EXAMINATION": procedure(truth),
        "INDICATION": f"___ year old {'woman' if truth.patient.sex == 'F' else 'man'} with {pick(rng, phrases.COMPLAINTS)}.",
        "COMPARISON": "None." if prior is None else "Chest radiograph ___.",
        "FINDINGS": " ".join(sentence.text for sentence in sentences),
        "IMPRESSION": _impression(truth, prior, rng),
    }
    return Report(_layout(sections), stated_labels(sentences))


def change(finding: Finding, before: tuple[Finding, ...]) -> str:
    """How a finding compares with the study before: new, larger, smaller or same."""
    old = next((other for other in before if other.name == finding.name and other.seed == finding.seed), None)
    if old is None:
        return "new"
    grades = GRADES.get(finding.name, ("",))
    step = grades.index(finding.grade) - grades.index(old.grade) if finding.grade else 0
    return "larger" if step > 0 else "smaller" if step < 0 else "same"


def _impression(truth: StudyTruth, prior: StudyTruth | None, rng: np.random.Generator) -> str:
    lines = [_summary(finding, prior) for finding in truth.findings]
    if prior is not None:
        now = {finding.name for finding in truth.findings}
        gone = {finding.name for finding in prior.findings} - now
        lines += [sentence for name, sentence in phrases.RESOLVED.items() if name in gone]
    if not truth.findings:
        lines.append(pick(rng, phrases.NOTHING))
    return lines[0] if len(lines) == 1 else " ".join(f"{index}. {line}" for index, line in enumerate(lines, 1))


def _summary(finding: Finding, prior: StudyTruth | None) -> str:
    words = phrases.SUMMARY[finding.name].format(**slots(finding))
    if finding.kind == "rib" or (finding.side == "both" and finding.name == "Pleural Effusion"):
        words += "s"  # several of them
    words = words if finding.certain else f"possible {words}"
    tail = f", {phrases.CHANGES[change(finding, prior.findings)]}" if prior is not None else ""
    return f"{words[0].upper()}{words[1:]}{tail}."


def _layout(sections: dict[str, str]) -> str:
    parts = [BANNER]
    for name, body in sections.items():
        if name in {"FINDINGS", "IMPRESSION"}:
            parts.append(f" {name}: \n \n" + textwrap.fill(body, 78, initial_indent=" ", subsequent_indent=" "))
        else:
            parts.append(textwrap.fill(f"{name}:  {body}", 78, initial_indent=" ", subsequent_indent=" "))
    return "\n \n".join(parts) + "\n"
