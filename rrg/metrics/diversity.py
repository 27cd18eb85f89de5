"""How varied a set of reports is: a model that has collapsed onto one normal report shows here first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rrg.metrics.ngrams import count_ngrams
from rrg.metrics.observations import GROUPS, Labels
from rrg.metrics.statistics import FloatArray


def diversity(
    reports: Sequence[str], labels: Sequence[Labels], train_reports: Sequence[str] | None
) -> dict[str, float | int | None]:
    """Counts and shares over N cleaned reports, their labels and, if known, the cleaned training reports.

    `distinct_ngrams_n` is the number of different n-grams over all reports, `…_share` the same per n-gram written, and
    `ngram_entropy_n` the Shannon entropy, in bits, of the n-gram that stands at a random place of a random report.
    `verbatim_train_share` is None where the training reports are not known.
    """
    copies = Counter(" ".join(report.split()) for report in reports)
    result: dict[str, float | int | None] = {
        "reports": len(reports),
        "distinct_reports": len(copies),
        "distinct_reports_share": len(copies) / len(reports),
        "most_frequent_share": max(copies.values()) / len(reports),
        "mean_words": sum(len(report.split()) for report in reports) / len(reports),
        "positive_finding_share": sum(map(_has_finding, labels)) / len(reports),
        "verbatim_train_share": None,
    }
    if train_reports is not None:
        known = {" ".join(report.split()) for report in train_reports}
        result["verbatim_train_share"] = sum(count for report, count in copies.items() if report in known) / len(reports)
    for order, table in enumerate(count_ngrams(reports), 1):
        distinct, written = len(set(table.gram.tolist())), int(table.count.sum())
        result[f"distinct_ngrams_{order}"] = distinct
        result[f"distinct_ngrams_{order}_share"] = distinct / written if written else 0.0
        result[f"ngram_entropy_{order}"] = _entropy(np.bincount(table.gram, weights=table.count).astype(np.float64))
    return result


def _entropy(counts: FloatArray) -> float:
    """Shannon entropy in bits of a distribution given as counts; 0 for none."""
    shares = counts[counts > 0] / max(counts.sum(), 1.0)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _has_finding(labels: Labels) -> bool:
    return any(labels.get(name) == 1 for name in GROUPS["findings"] if name != "Support Devices")
