"""Named scoring protocols: which part of a report is the reference, and what is done to both texts before they are compared.

Two scores are comparable only under one protocol, so every result carries its name. Predictions are stored raw; a protocol is
applied when they are scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rrg.data.cleaning import CLEANINGS, clean_iu, clean_mimic, clean_mimic_colon, clean_organ_iu, clean_organ_mimic
from rrg.data.study import Sections
from rrg.errors import UserError, nearest

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "clean_iu",
    "clean_mimic",
    "clean_mimic_colon",
    "clean_organ_iu",
    "clean_organ_mimic",
    "get_protocol",
    "section_text",
]

Section = Literal["findings", "impression", "findings_impression"]

TEXT_METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "meteor")
OBSERVATION_METRICS = ("observation_micro_f1", "observation_macro_f1")


@dataclass(frozen=True)
class Protocol:
    """How reports are compared.

    `section` is the part of the reference that is scored; `cleaning` names a function of `rrg.data.cleaning`, applied to the
    reference, and to the generated text too where `clean_generated`; `lower` lowers what was cleaned. `max_words` cuts the
    cleaned reference after so many whitespace words. `truncate_tokens` marks protocols whose *references* go through the language
    model's tokenizer (encode, keep that many tokens, decode) before scoring: `reference` cannot do that, the scorer must.
    """

    name: str
    section: Section
    cleaning: str
    lower: bool
    metrics: tuple[str, ...] = TEXT_METRICS
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


_R2GEN = (
    "R2Gen's cleaning on whole references. The R2Gen release itself scores against references that went through its word "
    "vocabulary (rare words become <unk>, cut at the training length of 60 or 100 ids): its numbers are not of this kind."
)
_R2GENGPT = (
    "As the R2GenGPT release scores: the cleaned reference is encoded by the language model's tokenizer, cut after "
    "`truncate_tokens` and decoded, the generated text is taken as it was decoded. Long reports are only scored on their "
    "beginning: use it to compare with published numbers, nothing else."
)
_PROTOCOLS = (
    Protocol("r2gen_iu", "findings", "clean_iu", lower=True, notes=_R2GEN),
    Protocol("r2gen_mimic", "findings", "clean_mimic", lower=True, notes=_R2GEN),
    Protocol(
        "r2gengpt_release_iu", "findings", "clean_iu", lower=True, truncate_tokens=60, clean_generated=False, notes=_R2GENGPT
    ),
    Protocol(
        "r2gengpt_release_mimic",
        "findings_impression",
        "clean_mimic_colon",
        lower=True,
        truncate_tokens=100,
        clean_generated=False,
        notes=_R2GENGPT + " Its reports hold findings and impression.",
    ),
    Protocol(
        "r2gengpt_mimic",
        "findings_impression",
        "clean_mimic_colon",
        lower=True,
        notes="R2GenGPT's target on MIMIC-CXR (findings and impression, colons kept) with whole references.",
    ),
    Protocol(
        "findings",
        "findings",
        "whitespace",
        lower=False,
        metrics=TEXT_METRICS + OBSERVATION_METRICS,
        notes="The findings as written: original case, whitespace collapsed, nothing cut.",
    ),
    Protocol(
        "impression",
        "impression",
        "whitespace",
        lower=False,
        metrics=TEXT_METRICS + OBSERVATION_METRICS,
        notes="The impression as written: original case, whitespace collapsed, nothing cut.",
    ),
)
PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _PROTOCOLS}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises UserError with the nearest names."""
    if name not in PROTOCOLS:
        raise UserError(f"protocol {name!r} is not known; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
