"""Reports as they are scored: the raw text, the text that a protocol makes of it, the labels of the raw text.

Labels are read from raw text on both sides, whatever the protocol: a cut or cleaned reference must not lose findings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rrg.data.protocols import Protocol
from rrg.errors import UserError
from rrg.metrics.observations import Labels, Uncertain
from rrg.metrics.registry import ReportPairs
from rrg.observations.labels import label_report

Cut = Callable[[str], str]


@dataclass(frozen=True)
class Report:
    """One report, ready to be scored."""

    raw: str
    text: str
    labels: Labels


@dataclass(frozen=True)
class Reading:
    """How a protocol reads reports. `cut` shortens cleaned references for protocols with `truncate_tokens`; `label` reads labels.

    Raises UserError where such a protocol is given no `cut`.
    """

    protocol: Protocol
    cut: Cut | None = None
    label: Callable[[str], Labels] = label_report

    def __post_init__(self) -> None:
        if self.protocol.truncate_tokens is not None and self.cut is None:
            raise UserError(
                f"protocol {self.protocol.name!r} cuts references after {self.protocol.truncate_tokens} tokens of the language "
                "model: name its tokenizer (--tokenizer), or take a protocol that cuts nothing"
            )

    def reference_text(self, raw: str) -> str:
        """A reference, or a report that a control takes from the training set, as it is scored."""
        text = self.protocol.reference_text(raw)
        return self.cut(text) if self.cut is not None and self.protocol.truncate_tokens is not None else text

    def reference(self, raw: str) -> Report:
        """A reference report."""
        return Report(raw, self.reference_text(raw), self.label(raw))

    def generated(self, raw: str) -> Report:
        """A report that a model wrote; a cleaning must not make words (a full stop) of one that has none."""
        return Report(raw, self.protocol.generated(raw) if raw.strip() else "", self.label(raw))


def token_cut(tokenizer: Any, tokens: int) -> Cut:
    """Encode, keep so many tokens, decode: for protocols with `truncate_tokens`. `tokenizer` is a transformers tokenizer."""

    def cut(text: str) -> str:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return text if len(ids) <= tokens else str(tokenizer.decode(ids[:tokens], skip_special_tokens=True)).strip()

    return cut


def pair(hypotheses: Sequence[Report], references: Sequence[Report], uncertain: Uncertain = "negative") -> ReportPairs:
    """The pairs of two lists of N reports."""
    return ReportPairs(
        tuple(report.text for report in hypotheses),
        tuple(report.text for report in references),
        tuple(report.labels for report in hypotheses),
        tuple(report.labels for report in references),
        uncertain,
    )
