"""Named scoring protocols. Two scores are comparable only under one protocol, so every result carries its name.

Predictions are stored raw; a protocol is applied when they are scored.
"""

from __future__ import annotations

from collections.abc import Mapping

from rrg.data.cleaning import clean_iu, clean_mimic, clean_mimic_colon, clean_organ_iu, clean_organ_mimic
from rrg.data.protocol import TEXT_METRICS, Protocol, Section, Uncertain, section_text
from rrg.errors import UserError, nearest

__all__ = [
    "PROTOCOLS",
    "TEXT_METRICS",
    "Protocol",
    "Section",
    "Uncertain",
    "clean_iu",
    "clean_mimic",
    "clean_mimic_colon",
    "clean_organ_iu",
    "clean_organ_mimic",
    "get_protocol",
    "section_text",
]

_R2GEN = (
    "R2Gen's cleaning on whole references. The R2Gen release itself scores against references that went through its word "
    "vocabulary (rare words become <unk>, cut at the training length of 60 or 100 ids): its numbers are not of this kind."
)
_R2GENGPT = (
    "As the R2GenGPT release scores: the cleaned reference is encoded by the language model's tokenizer, cut after "
    "`truncate_tokens` and decoded, the generated text is taken as it was decoded. Long reports are only scored on their "
    "beginning: use it to compare with published numbers, nothing else."
)
_RRG24 = ("bertscore", "chexbert", "radgraph")
_RRG24_NOTES = (
    "The RRG24 shared task (common §6): the section as written; BLEU-4 of pycocoevalcap, ROUGE-L of rouge_score with stems; "
    "the board's overall score is the mean of the five, the last three of which other programs compute."
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
        notes="The findings as written: original case, whitespace collapsed, nothing cut.",
    ),
    Protocol(
        "impression",
        "impression",
        "whitespace",
        lower=False,
        notes="The impression as written: original case, whitespace collapsed, nothing cut.",
    ),
    Protocol(
        "llava_rad",
        "findings",
        "whitespace",
        lower=False,
        metrics=("sacrebleu_1", "sacrebleu_4", "rouge_l_stemmed"),
        external=("chexbert", "radgraph"),
        notes="LLaVA-Rad's evaluation: findings in their original case, nothing cut; BLEU of sacrebleu, ROUGE-L of rouge_score.",
    ),
    Protocol(
        "rrg24_findings",
        "findings",
        "whitespace",
        lower=False,
        metrics=("bleu_4", "rouge_l_stemmed"),
        external=_RRG24,
        notes=_RRG24_NOTES,
    ),
    Protocol(
        "rrg24_impression",
        "impression",
        "whitespace",
        lower=False,
        metrics=("bleu_4", "rouge_l_stemmed"),
        external=_RRG24,
        notes=_RRG24_NOTES,
    ),
    Protocol(
        "rexrank",
        "findings_impression",
        "rexrank",
        lower=True,
        metrics=("bleu_2_study",),
        external=("bertscore", "chexbert", "radgraph", "radcliq", "rate", "green"),
        notes="ReXrank's report task: findings and impression, lower case, a space before each full stop; BLEU is the mean of "
        "the studies' BLEU-2. ReXrank writes `Findings:` and `Impression:` into the references; here both sides go without "
        "headings, so the figure is near the board's but not the board's.",
    ),
)
PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _PROTOCOLS}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises UserError with the members of a family (`r2gen`) or the nearest names."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    family = [known for known in PROTOCOLS if known.startswith(f"{name}_")]
    if family:
        raise UserError(f"protocol {name!r} is a family whose members differ in section or cleaning; name {' or '.join(family)}")
    raise UserError(f"protocol {name!r} is not known; {nearest(name, PROTOCOLS)}")
