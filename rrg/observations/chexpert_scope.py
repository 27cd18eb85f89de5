"""Affirmed, denied or doubted as the published CheXpert labeller decides it, without its parser.

It matches rules on a dependency parse (NegBio): first doubts that look like denials ("cannot exclude", "no new"), then denials,
then other doubts; what no rule reaches is affirmed. Here the same rules are read off the words. Where its parser regularly goes
astray the slip is part of its labels, so the constructions of training reports (Open-i) in which it does are listed: MISREAD.
"""

from __future__ import annotations

import re

from rrg.observations import scope
from rrg.observations.scope import NEGATIVE, POSITIVE, UNCERTAIN

# The heart and the mediastinum are named by every report: only a word of normality denies them.
STRUCTURES = ("Cardiomegaly", "Enlarged Cardiomediastinum")

_NEW = re.compile(r"\bno new\b")
_NORMAL = re.compile(r"\b(?:normal(?!.{0,12} (?:vasc|pulm|caliber))|unremarkable|limits|limit|clear)\b")
_NOT_LARGE = re.compile(r"\b(?:not (?:\w+ )?|non-?)enlarged\b")
_STABLE = re.compile(r"\b(?:stable|unchanged|similar (?:to|in)|obscur\w*|no (?:\w+ )?change)\b")
_BUT_STABLE = re.compile(r"\bbut (?:stable|unchanged)\b")
_ENLARGED = re.compile(r"\benlarge\w*|cardiomegaly|prominen\w*")
# "At the upper limits of normal" is normal, "heart size is upper limits of normal" is not: only the former is a rule.
_UPPER = re.compile(r"(?<!at the )(?<!at )(?<!within the )(?<!within )(?<!^)\b(?:upper|top) limits?(?: of)? normal")
_NORMAL_AFTER = re.compile(r"[\w \-]{0,30}?\b(?:is |are |appears? |remains? |grossly )+(?:normal|unremarkable)\b")
_SIGNS = ("vascular congestion", "pulmonary congestion", "indistinctness", "vascular prominence")  # doubted by their name alone
_NAMED_STATES = ("cardiomegaly", "cardiac enlargement", "enlarged heart")

# Structure → constructions that the parser does not connect with their "normal" or "stable": affirmed.
_MISREAD_STRUCTURES = {
    "Cardiomegaly": re.compile(
        r"^the heart (?:size )+and [\w ]+ appear within\b|\bappears? normal limits\b|technical factors heart size \w+ within"
        r"|^the heart silhouette and [\w ]+ are not enlarged|\bsize has become normal"
    ),
    "Enlarged Cardiomediastinum": re.compile(
        r"^heart and mediastinum (?:of normal|within|are at the upper)"
        r"|^the heart and mediastinal contours are (?:stable|unchanged)|\bappears? normal limits\b|^normal heart size mediastinal"
    ),
}

# Finding → the same: the denial does not reach it.
_MISREAD = {
    "Consolidation": re.compile(r"^no focal airspace consolidations|^no pneumothorax, pleural effusion, or focal air space"),
    "Lung Opacity": re.compile(r"^no focal air space opacities\W*$"),
    "Pneumothorax": re.compile(r"^no pleural effusions or pneumothorax\b"),
    "Fracture": re.compile(
        r"^no (?:evidence of |definite )?(?:acute,? )?(?:displaced|visualized) (?:\w+ or )?"
        r"(?:rib fractures|fracture identified)(?! are)"
    ),
    "Pneumonia": re.compile(r"^no focal airspace consolidation to suggest"),
    "Pleural Effusion": re.compile(r"blunting to suggest large pleural effusion|^no findings to suggest"),
}
_ASSUMED = re.compile(r"^(?:probable|questionable|question)\b")  # a doubt that opens a sentence without a verb is not connected
_REMOVAL = re.compile(r"\bremoval of (?:the )?(?:left|right-sided|left-sided)")


def status(name: str, part: str, start: int, end: int) -> int:
    """POSITIVE, NEGATIVE or UNCERTAIN for the mention of observation `name` at part[start:end]."""
    if _NEW.search(part, 0, start):
        return UNCERTAIN
    if name in STRUCTURES and part[start:end] not in _NAMED_STATES:
        return _structure(name, part, start, end)
    misread = _MISREAD.get(name)
    if misread is not None and misread.search(part):
        return POSITIVE
    if name == "Support Devices" and _REMOVAL.search(part):
        return POSITIVE
    found = scope.status(part, start, end)
    if found == UNCERTAIN and _ASSUMED.match(part):
        return POSITIVE
    if found == POSITIVE and _NORMAL_AFTER.match(part, end):
        return NEGATIVE
    return UNCERTAIN if found == POSITIVE and part[start:end] in _SIGNS else found


def _structure(name: str, part: str, start: int, end: int) -> int:
    if _MISREAD_STRUCTURES[name].search(part):
        return POSITIVE
    if _UPPER.search(part) and "within" not in part:
        return POSITIVE
    if _NORMAL.search(part) or _NOT_LARGE.search(part):
        return NEGATIVE
    if name == "Cardiomegaly" and _ENLARGED.search(part):
        return UNCERTAIN if _BUT_STABLE.search(part) else POSITIVE
    if _STABLE.search(part):
        return UNCERTAIN
    return scope.status(part, start, end)
