"""What a scoring protocol is: which part of a report is the reference, and what is done to both texts before the comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rrg.data.cleaning import CLEANINGS
from rrg.data.study import Sections
from rrg.errors import UserError, nearest

Section = Literal["findings", "impression", "findings_impression"]

Uncertain = Literal["negative", "positive"]

TEXT_METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "meteor")


@dataclass(frozen=True)
class Protocol:
    """How reports are compared.

    `section` is the part of the reference that is scored; `cleaning` names a function of `rrg.data.cleaning`, applied to the
    reference, and to the generated text too where `clean_generated`; `lower` lowers what was cleaned. `max_words` cuts the
    cleaned reference after so many whitespace words. `truncate_tokens` marks protocols whose *references* go through the language
    model's tokenizer (encode, keep that many tokens, decode) before scoring: `reference` cannot do that, the scorer must.

    `metrics` are the likenesses of words that belong to the protocol; findings and observations are scored under every one.
    `external` names what the protocol also reports and programs of their own compute. `uncertain` says how a label of -1 counts.
    """

    name: str
    section: Section
    cleaning: str
    lower: bool
    metrics: tuple[str, ...] = TEXT_METRICS
    external: tuple[str, ...] = ()
    uncertain: Uncertain = "negative"
    max_words: int | None = None
    truncate_tokens: int | None = None
    clean_generated: bool = True
    notes: str = ""

    def reference(self, sections: Sections) -> str:
        """The reference text, before any truncation by a tokenizer. Empty where the study has no such section."""
        text = section_text(sections, self.section)
        return self._words(self._cleaned(text)) if text.strip() else ""

    def reference_text(self, text: str) -> str:
        """As `reference`, for a text that is already the right section (the `reference` of a predictions file)."""
        return self._words(self._cleaned(text)) if text.strip() else ""

    def generated(self, text: str) -> str:
        """The generated text as it is scored. Never cut: a model that writes too much is to be seen to."""
        return self._cleaned(text) if self.clean_generated else text.strip()

    def _cleaned(self, text: str) -> str:
        text = CLEANINGS[self.cleaning](text)
        return text.lower() if self.lower else text

    def _words(self, text: str) -> str:
        return text if self.max_words is None else " ".join(text.split()[: self.max_words])


def section_text(sections: Sections, section: str) -> str:
    """The raw text of a section; `findings_impression` is both, findings first, with one space between."""
    parts = {
        "findings": (sections.findings,),
        "impression": (sections.impression,),
        "findings_impression": (sections.findings, sections.impression),
    }
    if section not in parts:
        raise UserError(f"section {section!r} is not known; {nearest(section, parts)}")
    return " ".join(part for part in parts[section] if part)
