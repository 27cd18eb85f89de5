"""Figures of single studies: what the set's scores are made of, to sort and to look at. No report text.

`bleu_2` is ReXrank's BLEU of one study; CIDEr and corpus BLEU have no value of one study alone that adds up to the set's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rrg.data.study import OBSERVATIONS
from rrg.metrics.bleu import bleu
from rrg.metrics.bleu_study import study_bleu_2
from rrg.metrics.labelled import labeller_of
from rrg.metrics.ngrams import count_pairs
from rrg.metrics.observations import Labels, Uncertain
from rrg.metrics.reports import Reading
from rrg.metrics.rouge import sentence_rouge_l

_FINDINGS = OBSERVATIONS[1:]


def finding_errors(generated: Labels, reference: Labels, uncertain: Uncertain) -> tuple[int, int, int]:
    """Of the thirteen findings: right, missed and invented."""
    counted = (1, -1) if uncertain == "positive" else (1,)
    said, real = ({name for name in _FINDINGS if labels.get(name, 0) in counted} for labels in (generated, reference))
    return len(said & real), len(real - said), len(said - real)


def study_figures(rows: Sequence[Mapping[str, Any]], reading: Reading) -> list[dict[str, Any]]:
    """One record per row, in order: study, words, likenesses, findings, then labels as `reference: NAME` and `generated: NAME`
    (1, 0 or -1; empty where the report does not mention the observation)."""
    label = labeller_of(text for row in rows for text in (row["generated"], row["reference"]))
    generated, references = ([text(row) for row in rows] for text in (_generated(reading), _reference(reading)))
    bleu_2 = study_bleu_2(bleu(count_pairs(generated, references)).per_study)
    return [
        {
            "study": row["study"],
            "generated_words": len(own.split()),
            "reference_words": len(real.split()),
            "rouge_l": round(sentence_rouge_l(own, real), 6),
            "bleu_2": round(float(bleu_2[place]), 6),
            **_findings(label(row["generated"]), label(row["reference"]), reading.protocol.uncertain),
        }
        for place, (row, own, real) in enumerate(zip(rows, generated, references, strict=True))
    ]


def _findings(generated: Labels, reference: Labels, uncertain: Uncertain) -> dict[str, Any]:
    right, missed, invented = finding_errors(generated, reference, uncertain)
    sides = (("reference", reference), ("generated", generated))
    labels = {f"{side}: {name}": labels.get(name, "") for side, labels in sides for name in OBSERVATIONS}
    return {"findings_right": right, "findings_missed": missed, "findings_invented": invented, **labels}


def _generated(reading: Reading) -> Any:
    return lambda row: reading.protocol.generated(row["generated"]) if row["generated"].strip() else ""


def _reference(reading: Reading) -> Any:
    return lambda row: reading.reference_text(row["reference"])
