"""What the published CheXpert labeller looks for: its phrase lists, as substrings of lower-case text.

The lists are those of stanfordmlgroup/chexpert-labeler (Copyright (c) 2018 Stanford Machine Learning Group, MIT licence; Irvin et
al. 2019). They are matched anywhere, inside words too: "endplate" and "platelike" name a device ("plate"), "tuberculosis" a tube.
A space at the end of a phrase belongs to it. Kept letter by letter: they are what makes its labels its own.
"""

from __future__ import annotations

_HEART = ("the heart", "heart size", "cardiac size", "cardiac shadow", "cardiac contour", "cardiac silhouette", "enlarged heart")
_MEDIASTINUM = (
    *(" mediastinum", "cardiomediastinum", "contour", "mediastinal configuration", "mediastinal silhouette"),
    *("pericardial silhouette", "cardiac silhouette and vascularity"),
)

# "No Finding" lists further abnormalities: a report with one of them is not without finding.
MENTIONS: dict[str, tuple[str, ...]] = {
    "No Finding": (
        *("emphysema", "blunt", "density", "elevation", "eventration", "scoliosis", "degenera", "calcifi", "hyperinflation"),
        *("bronchospasm", "asthma", "hernia", "copd", "interstitial markings", "plaque", "osteophytosis", "aortic disease"),
        *("bronchiolitis", "airways disease", "thickening", "cephalization", "aspiration", "bullae", "hyperinflat", "contusion"),
        *("atherosclero", "osteopenia", "metastasis", "granuloma", "pneumomediastinum", "pneumoperitoneum", "osteodystrophy"),
        *("cuffing", "irregular lucency", "inflam", "fissure", "hypertension", "prominen", "kyphosis", "defib", "hyperexpansion"),
        *("bullet", "reticula", "thoracentesis", "bronchitis", "volume loss", "deformity", "hemorrhage", "hematoma"),
        *("radiopaque", "aerophagia", "arthropathy", "tracheostomy"),
    ),
    "Enlarged Cardiomediastinum": _MEDIASTINUM,
    "Cardiomegaly": ("cardiomegaly", "cardiac enlargement", *_HEART),
    "Lung Lesion": (
        *("mass", "nodular density", "nodular densities", "nodular opacity", "nodular opacities", "nodular opacification"),
        *("nodule", "lump", "cavitary lesion", "carcinoma", "neoplasm", "tumor"),
    ),
    "Lung Opacity": (
        *("opaci", "decreased translucency", "increased density", "airspace disease", "air-space disease", "air space disease"),
        *("infiltrate", "infiltration", "interstitial marking", "interstitial pattern", "interstitial lung", "reticular pattern"),
        *("reticular marking", "reticulation", "parenchymal scarring", "peribronchial thickening", "wall thickening", "scar"),
    ),
    "Edema": (
        *("edema", "heart failure", "chf", "vascular congestion", "pulmonary congestion", "indistinctness"),
        "vascular prominence",
    ),
    "Consolidation": ("consolidat",),
    "Pneumonia": ("pneumonia", "infection", "infectious process", "infectious"),
    "Atelectasis": ("atelecta", "collapse"),
    "Pneumothorax": ("pneumothorax", "pneumothoraces"),
    "Pleural Effusion": ("pleural fluid", "effusion"),
    "Pleural Other": (
        *("pleural thickening", "fibrosis", "fibrothorax", "pleural scar", "pleural parenchymal scar"),
        *("pleuro-parenchymal scar", "pleuro-pericardial scar"),
    ),
    "Fracture": ("fracture",),
    "Support Devices": (
        *(
            "pacer",
            " line ",
            "lines",
            "picc",
            "tube",
            "valve",
            "catheter",
            "pacemaker",
            "hardware",
            "arthroplast",
            "marker",
            "icd",
        ),
        *("defib", "device", "drain ", "plate", "screw", "cannula", "apparatus", "coil", "support", "equipment", "mediport"),
    ),
}

_PLACES = tuple(f"{where} the{side}" for where in ("over", "overly", "in") for side in ("", " superior", " left", " right"))

# A mention that overlaps one of these is none. Something "in the heart" or "over the left cardiac silhouette" only lies there.
NOT_MENTIONS: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": tuple(f"{place} {phrase.removeprefix('the ')}" for place in _PLACES for phrase in _HEART),
    "Enlarged Cardiomediastinum": tuple(f"{place} {phrase}" for place in _PLACES for phrase in _MEDIASTINUM),
    "Lung Lesion": ("calcified nodul", "massive", "massengale"),
    "Lung Opacity": ("pleural scar",),
    "Pleural Effusion": ("pericardial effusion",),
}
