"""From a free-text radiology report to its sections.

What goes where
- **findings**: the text under FINDINGS. A combined heading (FINDINGS AND IMPRESSION) fills findings and leaves the impression
  empty. Without either, the text under a film description used as a heading ("CHEST, TWO VIEWS: ..."). Without that, the
  *body*: the paragraphs that follow the own paragraph of the last heading before the impression, as in MIMIC-CXR's practice
  for reports whose only headings are INDICATION or COMPARISON; in a report with no heading at all, every paragraph but titles
  and leading remarks about how the film was taken.
- **impression**: the text under IMPRESSION or CONCLUSION.
- **indication**: indication, history, clinical information, reason for examination. **comparison**: comparison.
- Technique, examination, procedure, addenda, wet reads, notifications and recommendations belong to no section of ours. An
  addendum or a wet read is dropped whole, with whatever headings it holds: up to the FINAL REPORT banner where it stands before
  the report, to the end where it stands after it.

A section that occurs twice keeps both texts, in order, unless they are equal. Text stays raw: line breaks and `___` survive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rrg.data.headings import Heading, Kind, find_headings
from rrg.data.study import Sections

PARSER_VERSION = "2"

# How the findings were found: under FINDINGS, a combined heading or a film description, as unmarked paragraphs, or not; or they
# stood alone in an annotation file.
Rule = Literal["findings", "combined", "view", "body", "none", "empty", "annotation"]


@dataclass(frozen=True)
class ParsedReport:
    """The sections of a report, the rule that found its findings, and whether these stood under no heading (`unmarked`)."""

    sections: Sections
    rule: Rule
    unmarked: bool


@dataclass(frozen=True)
class _Span:
    kind: Kind
    text: str


_NEWLINES = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufeff\u200b-\u200d\u2060]")
_BLANKS = re.compile(r"[\t\u00a0\u2000-\u200a\u202f\u3000]")
_RULE = re.compile(r"^[ ]*(?:_{10,}|={5,}|-{5,}|\*{5,})[ ]*$", re.MULTILINE)
_SIGNATURE = re.compile(r"^[ ]*(?:DR|Dr)\.? ?_{3}[ _.]*$", re.MULTILINE)
_NOTE = re.compile(r"^[ ]*(?:WET ?READ\b|(?:FINAL[ ]+)?(?:ADDENDUM\b|[Aa]ddendum[ ]*:))", re.MULTILINE)
_LINE_START = re.compile(r"(?:\A|\n)[ ]*\Z")
_FINAL = re.compile(r"^[ ]*(?:FINAL|INTERIM) REPORT\b", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n[ ]*\n\s*")
_WORD = re.compile(r"[A-Za-z]{3,}")
_FILM_REMARK = re.compile(
    r"\b(?:radiographs?|views?|films?|exam(?:ination)?|study|studies|x-?rays?|images?|compar\w+)\b.{0,80}"
    r"\b(?:compar\w+|reviewed|obtained|performed|provided|submitted|available|acquired|dated|made|with|to)\b",
    re.IGNORECASE | re.DOTALL,
)
_FINDING_WORD = re.compile(
    r"\b(?:no|not|normal|clear|stable|unchanged|increas\w+|decreas\w+|show\w*|demonstrat\w+|there (?:is|are|has)|seen|new"
    r"|interval)\b",
    re.IGNORECASE,
)


def parse_report(text: str) -> ParsedReport:
    """Split one report into its sections. Accepts any string; an empty one gives empty sections and rule `empty`."""
    plain = _normalise(text)
    if not plain.strip():
        return ParsedReport(Sections(), "empty", unmarked=False)
    spans = _spans(plain)
    rule, findings, comparison = _findings(spans)
    sections = Sections(
        findings=findings,
        impression=_join(spans, "impression"),
        indication=_context(spans, "indication", rule),
        comparison=comparison or _context(spans, "comparison", rule),
    )
    return ParsedReport(sections, rule, unmarked=rule == "body")


def _normalise(text: str) -> str:
    """One kind of newline and blank, no control characters, no lone surrogates, no ruled lines, no addenda and wet reads."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = _BLANKS.sub(" ", _INVISIBLE.sub("", _NEWLINES.sub("\n", text)))
    return _without_notes(_SIGNATURE.sub("", _RULE.sub("", text)))


def _without_notes(text: str) -> str:
    """A wet read or addendum goes up to the banner of the report that follows it, or to the end where it follows the report."""
    kept, place = [], 0
    while (note := _NOTE.search(text, place)) and (final := _FINAL.search(text, note.end())):
        kept.append(text[place : note.start()])
        place = final.start()
    rest = text[place:]
    # Without a banner the text in front decides: headings there are the report, and what follows the note is not.
    if note and find_headings(text[place : note.start()]):
        rest = text[place : note.start()]
    return "".join(kept) + rest


def _spans(text: str) -> list[_Span]:
    """The text cut at its headings. Text before the first heading is a preamble."""
    headings: list[Heading] = [Heading("preamble", 0, 0)]
    for heading in find_headings(text):
        if not _belongs(heading, headings[-1].kind, text):
            headings.append(heading)
    ends = [heading.start for heading in headings[1:]] + [len(text)]
    return [_Span(heading.kind, text[heading.end : end].strip()) for heading, end in zip(headings, ends, strict=True)]


def _belongs(heading: Heading, section: Kind, text: str) -> bool:
    """Whether a heading is part of the section it stands in: "INDICATION: History: ...", "FINDINGS: ... CHEST: ..."."""
    if heading.kind == "view":
        return section in ("findings", "combined", "impression")
    return heading.kind == section and not _LINE_START.search(text, max(0, heading.start - 200), heading.start)


def _join(spans: Sequence[_Span], *kinds: Kind) -> str:
    """Distinct non-empty texts of the kinds, in order."""
    return "\n".join(dict.fromkeys(span.text for span in spans if span.kind in kinds and span.text))


def _context(spans: Sequence[_Span], kind: Kind, rule: Rule) -> str:
    """A context section; under the body rule its later paragraphs are the body's, not its own."""
    if rule != "body":
        return _join(spans, kind)
    return _join([_Span(span.kind, _paragraphs(span.text)[0]) for span in spans if span.text], kind)


def _findings(spans: Sequence[_Span]) -> tuple[Rule, str, str]:
    """The rule that applies, the findings, and a comparison that stood in the body as a sentence of its own."""
    marked = _join(spans, "findings", "combined")
    if marked:
        return ("findings" if _join(spans, "findings") else "combined"), marked, ""
    described = _join([span for span in spans if _is_prose(span.text)], "view")
    if described:
        return "view", described, ""
    paragraphs = _body(spans)
    remarks = _leading(paragraphs, _is_film_remark)
    body = "\n\n".join(paragraphs[len(remarks) :])
    compared = "\n".join(remark for remark in remarks if re.match(r"compar", remark, re.IGNORECASE))
    if not _is_prose(body):
        return "none", "", ""
    return "body", body, "" if _join(spans, "comparison") else compared


def _body(spans: Sequence[_Span]) -> list[str]:
    """The unmarked paragraphs of a report without a findings heading."""
    impressions = [place for place, span in enumerate(spans) if span.kind == "impression" and span.text]
    before = spans[: impressions[0]] if impressions else spans
    # An indication may run over paragraphs; only where no impression follows must the report itself stand there.
    kinds = {"comparison", "context"} if impressions else {"indication", "comparison", "context", "view"}
    contexts = [span for span in before if span.kind in kinds and span.text]
    body = _paragraphs(contexts[-1].text)[1:] if contexts else []
    if body:
        return body
    preamble = [part for span in before if span.kind == "preamble" for part in _paragraphs(span.text)]
    return preamble[len(_leading(preamble, _is_title)) :]


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in _BLANK_LINES.split(text) if part.strip()]


def _leading(paragraphs: Sequence[str], test: Callable[[str], bool]) -> Sequence[str]:
    """The paragraphs at the front that pass the test; never all of them, so that a report is not dropped for its style."""
    count = 0
    while count < len(paragraphs) - 1 and test(paragraphs[count]):
        count += 1
    return paragraphs[:count]


def _is_prose(text: str) -> bool:
    """At least three words: a date or a lone `___` under a heading is no finding."""
    return len(_WORD.findall(text)) >= 3


def _is_title(paragraph: str) -> bool:
    """A title line: short, without the full stop of a sentence, and reporting nothing."""
    return len(paragraph.split()) <= 12 and not paragraph.endswith(".") and not _FINDING_WORD.search(paragraph)


def _is_film_remark(paragraph: str) -> bool:
    """One sentence on how the film was taken or what it is compared with, which reports no finding."""
    single = len(re.findall(r"[.!?](?:\s|\Z)", paragraph)) <= 1 and len(paragraph) <= 220
    return single and bool(_FILM_REMARK.search(paragraph)) and not _FINDING_WORD.search(paragraph)
