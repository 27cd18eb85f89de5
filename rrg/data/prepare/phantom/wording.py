"""The findings section in words, and the labels that those words state.

FINDINGS is a function of the films alone, up to the choice among sentences of one meaning: nothing in it compares with an
earlier study. Which absent findings are denied follows from what is present (see `_denied`), so the text can be learnt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rrg.data.prepare.phantom import phrases
from rrg.data.prepare.phantom.placing import pick
from rrg.data.prepare.phantom.truth import Device, Finding, StudyTruth

LUNGS = ("Edema", "Consolidation", "Pneumonia", "Lung Opacity", "Lung Lesion", "Atelectasis")


@dataclass(frozen=True)
class Sentence:
    """A sentence and what it says: observation → 1, 0 or -1."""

    text: str
    states: dict[str, int]


def findings_section(truth: StudyTruth, rng: np.random.Generator) -> list[Sentence]:
    """The sentences of FINDINGS, in the order of a systematic read: devices, heart, mediastinum, lungs, pleura, bones."""
    found = {finding.name: finding for finding in truth.findings}
    sentences = [_device(device, rng) for device in truth.devices]
    sentences += _heart(found, rng) + _lungs(found, rng) + _pleura(found, rng) + _bones(found, rng)
    return [sentence for sentence in sentences if sentence.text]


def stated_labels(sentences: Iterable[Sentence]) -> dict[str, int]:
    """What the sentences state together; "No Finding" is stated where nothing but support devices is present."""
    labels: dict[str, int] = {}
    for sentence in sentences:
        labels.update(sentence.states)
    if not any(value != 0 for name, value in labels.items() if name != "Support Devices"):
        labels["No Finding"] = 1
    return labels


def slots(finding: Finding) -> dict[str, str]:
    """The words that fill a template for `finding`."""
    side = "bilateral" if finding.side == "both" else finding.side
    zone = f"{finding.side} {finding.zone} lung"
    if finding.name in {"Consolidation", "Pneumonia"} and finding.zone:
        zone = phrases.LOBES[finding.side, finding.zone]
    if finding.name == "Atelectasis":
        zone = "lung bases" if finding.side == "both" else f"{finding.side} lung base"
    kind = {"smooth": "", "calcified": "calcified "}.get(finding.kind, finding.kind)
    bone = f"{finding.side} clavicle"
    if finding.kind == "rib":
        bone = f"{finding.side} {phrases.RIBS[int(finding.measure)]} rib"
    words = {"side": side, "place": zone, "grade": finding.grade, "kind": kind, "size": f"{finding.measure:.0f}", "bone": bone}
    return words | {word.capitalize(): value.capitalize() for word, value in words.items()}


def _say(finding: Finding, rng: np.random.Generator) -> Sentence:
    templates: Sequence[str] = (phrases.PRESENT if finding.certain else phrases.POSSIBLE)[finding.name]
    if finding.name == "Pleural Effusion" and finding.side == "both":
        templates = phrases.BILATERAL_EFFUSION
    elif finding.kind == "rib":
        templates = phrases.RIB_FRACTURES
    return Sentence(pick(rng, templates).format(**slots(finding)), {finding.name: 1 if finding.certain else -1})


def _deny(names: tuple[str, ...], rng: np.random.Generator) -> Sentence:
    return Sentence(pick(rng, phrases.ABSENT[names]), dict.fromkeys(names, 0))


def _device(device: Device, rng: np.random.Generator) -> Sentence:
    words = {"side": device.side, "Side": device.side.capitalize(), "tip": f"{device.measure:.0f}"}
    return Sentence(pick(rng, phrases.DEVICES[device.kind]).format(**words), {"Support Devices": 1})


def _heart(found: dict[str, Finding], rng: np.random.Generator) -> list[Sentence]:
    names = ("Cardiomegaly", "Enlarged Cardiomediastinum")
    if not any(name in found for name in names) and rng.uniform() < 0.4:
        return [_deny(names, rng)]
    return [_say(found[name], rng) if name in found else _deny((name,), rng) for name in names]


def _lungs(found: dict[str, Finding], rng: np.random.Generator) -> list[Sentence]:
    present = [_say(found[name], rng) for name in LUNGS if name in found]
    clear = [] if present else [Sentence(pick(rng, phrases.CLEAR), {})]
    denied = _denied(found)
    return clear + present + ([_deny(denied, rng)] if denied else [])


def _denied(found: dict[str, Finding]) -> tuple[str, ...]:
    """Consolidation is denied unless something like it is seen; oedema where heart or pleura raise the question."""
    like = {"Consolidation", "Pneumonia", "Lung Opacity"}
    denied = () if like & set(found) else ("Consolidation",)
    asked = {"Cardiomegaly", "Pleural Effusion"} & set(found) and "Edema" not in found
    return denied + (("Edema",) if asked else ())


def _pleura(found: dict[str, Finding], rng: np.random.Generator) -> list[Sentence]:
    names = ("Pleural Effusion", "Pneumothorax")
    if not any(name in found for name in names):
        sentences = [_deny(names, rng)]
    else:
        sentences = [_say(found[name], rng) if name in found else _deny((name,), rng) for name in names]
    return sentences + ([_say(found["Pleural Other"], rng)] if "Pleural Other" in found else [])


def _bones(found: dict[str, Finding], rng: np.random.Generator) -> list[Sentence]:
    if "Fracture" in found:
        return [_say(found["Fracture"], rng)]
    if "Pneumothorax" in found:
        return [_deny(("Fracture",), rng)]
    return [Sentence(pick(rng, phrases.BONES), {})] if rng.uniform() < 0.7 else []
