"""Is a mention affirmed, denied or doubted? Cues and how far they reach, inside one part of a sentence.

The reach of a cue follows NegEx (Chapman et al. 2001): forward to the end of its part unless a verb or a new subject comes
between, and backward for cues that follow ("effusion is not seen"). Lists are under one cue: "no effusion, consolidation
or pneumothorax".
"""

from __future__ import annotations

import re

POSITIVE, NEGATIVE, UNCERTAIN = 1, 0, -1

# Where one part of a sentence ends and the next makes its own statement.
PARTS = re.compile(
    r"[;!?]|,?\s*\b(?:but|however|although|though|whereas|while|yet|except(?:ing)?(?: for)?|other than|aside from|apart from)\b"
    r"|,\s*(?:and\s+)?(?=there\b|otherwise\b)"
    r"|\b(?:and|,)\s+(?=there\s+(?:is|are|has|may|was|were)\b)"
)

# "No change in the opacities" denies the change, not the opacities.
_UNCHANGED = re.compile(
    r"\b(?:no|without|not)\s+(?:\w+\s+){0,3}?(?:changes?|changed|worsen\w*|progress\w*|increas\w*|decreas\w*|improve\w*)\b"
    r"(?!\s+of\s+(?:edema|failure))"
)

_SEEN = (
    r"(?:seen|identified|visuali[sz]ed|appreciated|evident|demonstrated|present|noted|detected|found|apparent|visible|"
    r"observed|shown|recogni[sz]ed|suspected)"
)

_EXCLUDE = r"(?:exclud|rul)(?:e|ed|ing)?(?: out)?"
_DOUBT = (
    r"(?:cannot|can ?not|can't|could not|unable to|difficult to|not|neither)\s+"
    rf"(?:be\s+)?(?:\w+ly\s+)?(?:be\s+)?{_EXCLUDE}\b"
)

DENIED_BEFORE = re.compile(
    rf"\b(?:no(?! longer)|without|w/o|negative for|free (?:of|from)|clear of|clear(?= air ?space)|"
    r"(?:absence|absent|lack|devoid) of|nor|neither|"
    rf"(?:resolution|resolving|clearing|removal) of|resolved|rather than|"
    rf"rules? out|ruled out|not(?! (?:only|{_EXCLUDE}|(?:\w+ly )?(?:be )?{_EXCLUDE})\b)"
    rf"(?!\s+(?:\w+\s+){{0,2}}?(?:{_SEEN}|changed|included|evaluated|assessed|well|clearly|as|enlarged|large)\b))\b"
)
DENIED_AFTER = re.compile(
    rf"\b(?:(?:is|are|was|were|has|have)?\s*(?:not|no longer)\s+(?:been\s+)?(?:\w+\s+){{0,2}}?{_SEEN}"
    rf"|(?:has|have|had)\s+(?:\w+\s+){{0,2}}?(?:resolved|cleared|disappeared|been (?:\w+ )?(?:removed|excluded|ruled out))"
    rf"|(?:is|are|was|were)\s+(?:\w+ly\s+)?(?:absent|resolved|excluded|ruled out|removed|unlikely))\b"
)
DOUBTED_BEFORE = re.compile(
    rf"\b(?:{_DOUBT}|may(?: have| be)?|might|could|possib\w+|probable|perhaps|potential(?:ly)?|equivocal|"
    r"questionabl[ey]|question(?: of)?|suspicious for|suspicion (?:for|of)|suspect(?:ed|ing)?(?: for)?|"
    r"concern(?:ing|s)?(?: for| of)?|suggestion of|indeterminate for|rule out|(?:evaluate|assess) for|"
    r"correlate (?:for|with)|differential|consider|if)\b"
)
DOUBTED_AFTER = re.compile(
    rf"\b(?:(?:(?:is|are|was|were)\s+)?{_DOUBT}|(?:is|are|was|were|remains?)\s+(?:\w+ly\s+)?(?:possible|suspected|questioned|questionable|considered|equivocal)|"
    r"(?:may|might|could) be (?:present|considered)|(?:should|needs? to|to) be (?:excluded|considered)|"
    r"incompletely evaluated)\b|\?"
)

# Between a cue and a mention these start another statement.
_STOP = re.compile(
    r"\b(?:there (?:is|are)|is|are|was|were|has|have|remains?|which|with(?!in|out)|demonstrat\w+|shows?|reveals?)\b"
    r"|,\s*(?:and\s+)?(?:the\s+|a\s+|an\s+)?(?:stable|unchanged|mild(?:ly)?|minimal(?:ly)?|persistent|old|healed|calcified|scattered|chronic|low|"
    r"heart|cardiac|lungs|cardiomediastinal|mediastin\w+|bony|osseous|degenerative)\b"
)
# A cue that follows belongs to the last statement before it.
_STOP_AFTER = re.compile(r"\b(?:there (?:is|are)|is|are|was|were|has|have|which|with(?!in|out))\b|,\s*$")

# "Atelectasis or scarring", "atelectasis/infiltrate": either may be meant, where nothing denies both.
_ALTERNATIVE_AFTER = re.compile(r"\s*(?:/|,?\s*(?:[a-z\-]+\s+){0,2}?(?:and/or|and / or|andor|or|versus|vs\.?)\s)")
_ALTERNATIVE_BEFORE = re.compile(r"(?:/|\b(?:and/or|and / or|andor|or|versus|vs\.?)\s+(?:[a-z\-]+\s+){0,3}?)$")
_SIZES = re.compile(r"\b(?:more|less|one|two|\d+) or\b|\bor (?:more|less|so)\b")


def unchanged(text: str) -> str:
    """`text` with denied changes replaced by a word that denies nothing."""
    return _UNCHANGED.sub("unchanged", text)


def status(part: str, start: int, end: int) -> int:
    """POSITIVE, NEGATIVE or UNCERTAIN for the mention at part[start:end]."""
    if _reaches_forward(DENIED_BEFORE, part, start) or _reaches_back(DENIED_AFTER, part, end):
        return NEGATIVE
    if _reaches_forward(DOUBTED_BEFORE, part, start) or _reaches_back(DOUBTED_AFTER, part, end):
        return UNCERTAIN
    if _ALTERNATIVE_AFTER.match(part, end) or _ALTERNATIVE_BEFORE.search(part[max(0, start - 60) : start]):
        return POSITIVE if _SIZES.search(part) else UNCERTAIN
    return POSITIVE


def _reaches_forward(cues: re.Pattern[str], part: str, start: int) -> bool:
    return any(not _STOP.search(part, cue.end(), start) for cue in cues.finditer(part, 0, start))


def _reaches_back(cues: re.Pattern[str], part: str, end: int) -> bool:
    return any(not _STOP_AFTER.search(part, end, cue.start()) for cue in cues.finditer(part, end))


# States of a structure, tried in this order at each place. "At the upper limit of normal" and "top normal" are normal, "heart
# size is upper limits of normal" is not: so CheXpert's labels have it.
_STATES = (
    (NEGATIVE, r"(?:at|near|towards?) (?:the )?(?:upper|top)(?: limits?)?(?: of)?(?: the)? normal"),
    (NEGATIVE, r"(?:near )?top normal|high normal|upper normal"),
    (POSITIVE, r"(?:upper|top)(?: \w+)?(?: limits?)?(?: of)?(?: the)? normal|(?:borderline|top|upper) limits?"),
    (NEGATIVE, r"(?:not|non-?|no longer)\s*(?:\w+ly\s+)?(?:enlarged|large|widened|prominent|dilated|increased)"),
    (NEGATIVE, r"within(?: the)?(?: \w+)? limits?(?: of normal)?|limits of normal|normal\w*|unremarkable"),
    (POSITIVE, r"(?:enlarg|widen|dilat)\w*|large|increased?|prominen\w+|fullness|globular|bulky"),
    (POSITIVE, r"borderline (?:enlarge\w*|in size|large)"),
    (UNCERTAIN, r"borderline|stable|unchanged|similar|obscured|difficult to assess|not well (?:seen|evaluated)"),
)
_STATE = re.compile("|".join(rf"(?P<s{place}>\b(?:{words})\b)" for place, (_, words) in enumerate(_STATES)))
_FILLER = re.compile(
    r"(?:[\s,]|\b(?:heart|cardiac)(?: size| silhouette| contours?)? and\b"
    r"|\b(?:and|the|of|in|with|for|size|contours?|configuration|appearance|overall|mild\w*|moderate\w*|marked|right|left)\b)*$"
)


def state(part: str, start: int, end: int) -> int | None:
    """State of the structure at part[start:end], None where the part says nothing about it."""
    before = [found for found in _STATE.finditer(part, 0, start) if _FILLER.match(part[found.end() : start])]
    found = before[-1] if before else _STATE.search(part, end)
    if found is None:
        return None
    said = _meaning(found)
    if said == UNCERTAIN and any(_meaning(other) == NEGATIVE for other in _STATE.finditer(part)):
        return NEGATIVE  # "stable and within normal limits"
    return said


def _meaning(found: re.Match[str]) -> int:
    return _STATES[int(str(found.lastgroup)[1:])][0]
