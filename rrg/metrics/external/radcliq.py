"""RadCliQ-v1: a linear model of four scores that predicts how many errors a radiologist would count (Yu et al. 2023,
Patterns 4(9)).

LOWER is better, and it may be negative. What is given is the mean of the studies' values; some tables show its inverse. The
published model is a pickled scikit-learn object, which is never loaded here; its numbers are those that the package radeval
2.2.1 (metrics/RadCliQv1/radcliq.py) lists from it. BERTScore goes in without idf, as CXR-Report-Metric and ReXrank run it
(radeval uses idf).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rrg.metrics.bleu import bleu
from rrg.metrics.external.supervisor import StudyTexts
from rrg.metrics.ngrams import count_pairs
from rrg.metrics.statistics import FloatArray

# RadGraph combined, BERTScore F, cosine of CheXbert's vectors, BLEU-2: mean and spread of each, and its weight once standardised.
MEANS = (0.53792312, 0.61757256, 0.76479421, 0.44738335)
SPREADS = (0.30282584, 0.22430938, 0.25394391, 0.29892717)
WEIGHTS = (-3.77083683e-01, -3.70300100e-01, -2.52616218e-01, 4.31504841e-12)
INTERCEPT = 2.46655256e-10

# Which score of which metric each column is.
COLUMNS = (("radgraph", "radgraph_combined"), ("radcliq_bertscore", "radcliq_bertscore"), ("chexbert", "chexbert_similarity"))


def radcliq(features: FloatArray) -> FloatArray:
    """RadCliQ-v1 [N] of the four scores [N, 4]."""
    standard = (features - np.array(MEANS)) / np.array(SPREADS)
    result: FloatArray = standard @ np.array(WEIGHTS) + INTERCEPT
    return result


def bleu_2(texts: Sequence[StudyTexts]) -> list[float]:
    """BLEU-2 of each study by itself; its weight is 4e-12, so that only its presence is of interest."""
    prepared = [(_prepared(study.generated), _prepared(study.reference)) for study in texts]
    return [bleu(count_pairs([generated], [reference])).values()["bleu_2"] for generated, reference in prepared]


def _prepared(report: str) -> str:
    """Lower case, full stops as words of their own, as CXR-Report-Metric has it."""
    return " ".join(report.lower().replace(".", " .").split())
