"""What names an observation in a report: patterns, as lists of regular expressions on lower-case text.

Fourteen observations as CheXpert defines them (Irvin et al. 2019, table 1). Three kinds of patterns:

- MENTIONS name the observation itself ("pleural effusion"); whether it is affirmed, denied or doubted is `scope`'s business.
- STRUCTURES name a normal part of the body ("heart size") that only counts with a state ("is mildly enlarged").
- OTHER_FINDINGS are abnormalities outside the thirteen, which only matter because a report with one is not "No Finding".

A phrase is matched at the start of a word and may end inside one (`opaci`: opacity, opacities, opacification).
"""

from __future__ import annotations

# A gap of a few words inside a phrase, without leaving the sentence part.
_FEW = r"(?:\s+[a-z\-]+){0,3}?\s+"
_LUNG = r"(?:lungs?|lobes?|lobar|segment(?:al)?|lingula)"
_FLUID = r"(?<!pericardial )(?<!pericardial or )(?<!joint )(?<!knee )(?<!shoulder )(?<!hip )(?<!elbow )(?<!ankle )"

MENTIONS: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": (
        r"mediastinal (?:widening|enlargement|prominence|fullness)",
        r"(?:widening|enlargement|prominence|fullness) of the (?:superior |upper |anterior )?(?:cardio ?)?mediastin\w+",
        r"(?:widened|enlarged|prominent) (?:superior |upper |anterior )?(?:cardio ?)?mediastin\w+",
    ),
    "Cardiomegaly": (
        r"cardiomegaly",
        r"(?:cardiac|heart) enlargement",
        r"(?:enlarged|enlargement of the|enlargement in the|large) (?:heart|cardiac (?:silhouette|contour|shadow))",
    ),
    "Lung Lesion": (
        r"mass(?:es|[ \-]?like)?\b",
        r"nodules?\b",
        r"nodular" + r"(?:\s+[a-z\-]+){0,1}?\s+" + r"(?:densit|opaci|lesion|focus|foci)\w*",
        r"(?:cavitary|cavitating|pulmonary|lung|parenchymal|coin) lesions?",
        r"(?:neoplas|carcinoma|malignan|tumou?rs?\b|metasta)\w*",
    ),
    "Lung Opacity": (
        r"opaci\w*",
        r"infiltrat\w*",
        r"(?:airspace|air[ \-]space|alveolar|parenchymal|interstitial lung) (?:disease|process)",
        r"(?:pulmonary )?interstitial (?:lung )?(?:markings?|patterns?|prominence|thickening|changes?|infiltrates?|disease)",
        r"(?:increased|prominent|coarsened?) (?:lung|bronchovascular|pulmonary|reticular) markings?",
        r"reticul(?:ation|onodular|ar (?:pattern|marking|densit)\w*)",
        r"(?:hazy|ground[ \-]glass) (?:densit|attenuation|change)\w*",
        r"haziness",
        r"(?:peribronchial|bronchial wall) (?:thickening|cuffing)",
        r"(?<!pleural )scar(?:s|ring)?\b",
    ),
    "Edema": (
        r"(?<!soft tissue )(?<!subcutaneous )(?<!ankle )(?<!marrow )o?edema\w*",
        r"(?:congestive )?(?:heart|cardiac) failure",
        r"chf\b",
        r"(?:vascular|venous|pulmonary) (?:vascular )?(?:congestion|prominence|redistribution)",
        r"kerley",
    ),
    "Consolidation": (r"consolidat\w*",),
    "Pneumonia": (
        r"(?:broncho)?pneumonia\w*",
        r"pneumonitis",
        r"(?<!granulomatous )(?<!histoplasmosis )(?<!prior )(?<!old )(?<!previous )infecti(?:on|ons|ous)\b",
    ),
    "Atelectasis": (
        r"atelecta\w*",
        r"collapsed?" + _FEW + _LUNG,
        rf"{_LUNG} collapse",
        r"(?:lobar|partial|complete) collapse",
    ),
    "Pneumothorax": (r"(?:hydro)?pneumothora\w*",),
    "Pleural Effusion": (
        _FLUID + r"effusions?\b",
        r"pleural fluid",
        r"(?:hydro|hemo|haemo)(?:pneumo)?thora(?:x|ces)\b",
        r"fluid (?:in|within|along) the" + r"(?:\s+[a-z]+){0,2}?" + r" fissures?",
    ),
    "Pleural Other": (
        r"(?:pleural|fibronodular)(?!-)" + r"(?:[ \-/]+[a-z]+){0,2}?[ \-/]+" + r"(?:thickening|scar\w*|plaques?|capping)",
        r"pleuro-?(?:parenchymal|pericardial)(?: [a-z]+)? (?:scar\w*|thickening)",
        r"fibrothora\w*",
        r"(?<!cystic )fibrosis\b",
    ),
    "Fracture": (r"(?:micro)?fractur\w*",),
    "Support Devices": (
        r"cathet\w*",
        r"picc\b",
        r"(?:central|venous|arterial|subclavian|jugular|ij|picc|dialysis|midline) (?:access )?lines?\b",
        r"(?:swan[ \-]ganz|port[ \-]?a[ \-]?cath|mediport|infusion port|chest port|hickman|permcath)",
        r"(?:\w+ )?(?:tubes?|tubing)\b",
        r"(?:endotracheal|nasogastric|orogastric|tracheostomy|enteric|ng|et|dobbhoff)(?= (?:tip|cannula|remains|in place))",
        r"(?:pacer|pacemaker|aicd|icd|defibrillat|neurostimulat|stimulat)\w*",
        r"(?:pacing |cardiac |ventricular |atrial |lead )?(?:generator|electrodes?)\b",
        r"(?:valve|valvular) (?:replacement|prosthes\w+|repair|artifact|ring)",
        r"(?:prosthetic|artificial|mechanical|bioprosthetic|replaced)" + r"(?: [a-z]+){0,1}" + r" valves?",
        r"(?:hardware|screws?|arthroplast\w+)\b",
        r"(?:closure|support|implanted|monitoring|loop|assist) (?:devices?|recorder|apparatus|equipment)",
        r"(?:shunt|drain|cannula|balloon pump|spacer|coils?|device|devices)\b",
        r"(?:cabg|graft|nipple|surgical|bypass) markers?",
    ),
}  # fmt: skip

# Phrases that hold a mention's words but not its sense: they are blanked out before anything else is looked for.
NOT_MENTIONS: tuple[str, ...] = (
    r"massive\w*",
    r"calcified (?:\w+ )?nodul\w*",
    r"(?:clips?|sutures?) (?:\w+ )?markers?",
    r"(?:vertebral|tracheal|disc|endplate)(?: \w+)? (?:collapse|opaci\w*)",
    r"(?:no|without) (?:\w+ )?(?:interval )?(?:removal|placement)",
    r"endotracheal tree",
    r"eustachian tube",
    r"infectious disease (?:service|clinic)",
)

# "Congestion" is a sign that goes with edema, not edema: at most uncertain, as in CheXpert's own labels.
WEAK_MENTIONS = {
    "Edema": r"(?:congestion|prominence|redistribution|kerley)",
}

# Observation → what its structure is called. The state decides (see `scope`).
STRUCTURES: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": (
        r"(?<!left )(?<!right )heart(?! failure| rate| xxxx border| border)(?: size| silhouette| shadow| contours?)*",
        r"cardiac(?: and mediastinal)? (?:size|silhouettes?|contours?|shadow|diameter)(?: size)?",
        r"cardiothoracic ratio",
    ),
    "Enlarged Cardiomediastinum": (
        r"(?:cardio ?-?)?mediastinal (?:and (?:hilar|cardiac) )?(?:silhouettes?|contours?|size|width)",
        r"mediastinal (?:configuration|borders?|structures)",
        r"(?:hilar|cardiac|cardiopulmonary) (?:and )?mediastinal (?:silhouettes?|contours?)",
        r"(?:cardio ?-?)?mediastinum",
    ),
}

OTHER_FINDINGS: tuple[str, ...] = (
    r"emphysem\w*",
    r"copd\b",
    r"(?:obstructive|airways?|bronchitic|bronchiectatic) (?:lung |pulmonary |airway )?(?:disease|change)\w*",
    r"(?:asthma|bronch(?:itis|iolitis|iectasis|ospasm))\w*",
    r"(?:hyper|over)[ \-]?(?:inflat|expan|aerat)\w*",
    r"flatten(?:ed|ing)",
    r"(?:bulla|bullous|bleb)\w*",
    r"granulom\w*",
    r"(?:calcif|calcium|atheroscl|arterioscl)\w*",
    r"(?:ectasia|ectatic|aneurysm\w*|dissection)\b",
    r"(?:degenerat|osteophyt(?:osis|ic)|spondyl(?:itis|olisthesis))\w*",
    r"(?:scolio|levoscolio|dextroscolio|kypho|osteopeni|osteoporo|demineral|arthropath|osteoarthr)\w*",
    r"(?:wedg(?:e|ing)|compression) (?:deform|of)\w*",
    r"deformit\w*",
    r"(?:pectus|dislocation|subluxation|erosion|lytic|sclerotic)\b",
    r"herni\w*",
    r"eventrat\w*",
    r"elevat(?:ed|ion)\b",
    r"blunt\w*",
    r"(?:volume|density|densities) (?:loss)?",
    r"thicken\w*",
    r"prominen\w*",
    r"fissur\w*",
    r"plaques?\b",
    r"(?:adenopath|lymphadenopath)\w*",
    r"(?:pneumomediastin|pneumoperiton|free (?:intraperitoneal |subdiaphragmatic )?air)\w*",
    r"(?:aspirat|contusion|hemorrhag|haemorrhag|hematom|haematom|inflam)\w*",
    r"(?:pulmonary|arterial|portal) hypertension",
    r"(?:cephaliz|cuffing)\w*",
    r"(?:bullet|shrapnel|foreign bod|radiopaque|radio-opaque)\w*",
    r"sequela\w* of",
)
