"""What a finding is called. Tables only; `wording` puts them together.

Words are chosen so that a rule labeller over CheXpert's phrase lists reads exactly what is meant: no "line" or "device" in a
sentence about the pleura, no "density", no "heart" in a sentence about a lead, one statement of one kind to a sentence.
`{side}`, `{place}`, `{grade}`, `{size}`, `{rib}` and `{tip}` are filled in from the finding.
"""

from __future__ import annotations

LOBES = {
    ("right", "upper"): "right upper lobe",
    ("right", "mid"): "right middle lobe",
    ("right", "lower"): "right lower lobe",
    ("left", "upper"): "left upper lobe",
    ("left", "mid"): "lingula",
    ("left", "lower"): "left lower lobe",
}
RIBS = {5: "fourth through sixth", 8: "seventh through ninth"}  # far enough apart to be told without counting

PRESENT = {
    "Cardiomegaly": ("There is {grade} cardiomegaly.", "{Grade} cardiomegaly is present.", "{Grade} enlargement of the heart."),
    "Enlarged Cardiomediastinum": (
        "The mediastinum is widened.",
        "There is widening of the mediastinum.",
        "The mediastinal contours are widened.",
    ),
    "Edema": (
        "There is {grade} pulmonary edema.",
        "{Grade} pulmonary edema is present in both perihilar regions.",
        "{Grade} perihilar pulmonary edema.",
    ),
    "Consolidation": (
        "There is dense consolidation of the {place} with air bronchograms.",
        "Consolidation with air bronchograms is present in the {place}.",
        "Dense {place} consolidation.",
    ),
    "Pneumonia": (
        "Patchy foci in the {place} are due to pneumonia.",
        "There is patchy pneumonia in the {place}.",
        "Multifocal patchy pneumonia involves the {place}.",
    ),
    "Lung Opacity": (
        "There is a hazy opacity in the {place}.",
        "Ill-defined opacity is seen in the {place}.",
        "A hazy ill-defined opacity projects over the {place}.",
    ),
    "Lung Lesion": (
        "There is a {size} cm {kind} in the {place}.",
        "A round {size} cm {kind} is seen in the {place}.",
        "A {size} cm {kind} projects over the {place}.",
    ),
    "Atelectasis": (
        "There is linear atelectasis at the {place}.",
        "Linear bands of atelectasis are seen at the {place}.",
        "Linear atelectasis at the {place}.",
    ),
    "Pneumothorax": (
        "There is a {grade} {side} pneumothorax.",
        "A {grade} {side} apical pneumothorax is present.",
        "{Grade} {side} pneumothorax.",
    ),
    "Pleural Effusion": (
        "There is a {grade} {side} pleural effusion.",
        "A {grade} {side} pleural effusion is present.",
        "{Grade} {side} pleural effusion.",
    ),
    "Pleural Other": (
        "There is {kind}pleural thickening along the {side} lateral chest.",
        "Lateral {kind}pleural thickening is seen on the {side}.",
        "{Side} lateral {kind}pleural thickening.",
    ),
    "Fracture": (
        "There is a displaced fracture of the {bone}.",
        "A displaced fracture of the {bone} is seen.",
        "Displaced {bone} fracture.",
    ),
}
BILATERAL_EFFUSION = (
    "There are {grade} bilateral pleural effusions.",
    "{Grade} bilateral pleural effusions are present.",
    "{Grade} bilateral pleural effusions.",
)
RIB_FRACTURES = (
    "There are displaced fractures of the {bone}s.",
    "Displaced fractures of the {bone}s are seen.",
    "Displaced {bone} fractures.",
)
POSSIBLE = {
    "Consolidation": ("Possible consolidation in the {place}.", "There may be consolidation in the {place}."),
    "Pneumonia": ("Possible pneumonia in the {place}.", "There may be patchy pneumonia in the {place}."),
    "Lung Opacity": ("Possible hazy opacity in the {place}.", "There may be an ill-defined opacity in the {place}."),
    "Lung Lesion": ("Possible {size} cm {kind} in the {place}.", "There may be a {size} cm {kind} in the {place}."),
    "Atelectasis": ("Possible linear atelectasis at the {place}.", "There may be linear atelectasis at the {place}."),
}
DEVICES = {
    "pacemaker": (
        "A {side} chest pacemaker has leads in the right atrium and right ventricle.",
        "There is a dual lead pacemaker over the {side} chest.",
        "{Side} chest dual lead pacemaker is in place.",
    ),
    "catheter": (
        "A {side} internal jugular catheter ends in the superior vena cava.",
        "{Side} internal jugular central venous catheter tip is in the superior vena cava.",
        "There is a {side} internal jugular catheter with tip in the superior vena cava.",
    ),
    "tube": (
        "The endotracheal tube ends {tip} cm above the carina.",
        "Endotracheal tube tip is {tip} cm above the carina.",
        "There is an endotracheal tube with tip {tip} cm above the carina.",
    ),
    "wires": (
        "Sternotomy wires and hardware are intact.",
        "Median sternotomy wires and hardware are seen.",
        "There is midline sternotomy hardware with intact wires.",
    ),
}
# What is said where something is absent, and the observations it denies.
ABSENT = {
    ("Cardiomegaly",): ("The heart size is normal.", "The heart is normal in size.", "Heart size is within normal limits."),
    ("Enlarged Cardiomediastinum",): (
        "The mediastinal contours are normal.",
        "The mediastinal contours are within normal limits.",
        "The mediastinal silhouette is unremarkable.",
    ),
    ("Cardiomegaly", "Enlarged Cardiomediastinum"): (
        "The heart size and mediastinal contours are normal.",
        "Heart size and mediastinal contours are within normal limits.",
    ),
    ("Pleural Effusion", "Pneumothorax"): (
        "There is no pleural effusion or pneumothorax.",
        "No pleural effusion or pneumothorax.",
        "No pleural effusion or pneumothorax is seen.",
    ),
    ("Pleural Effusion",): ("There is no pleural effusion.", "No pleural effusion.", "No pleural effusion is seen."),
    ("Pneumothorax",): ("There is no pneumothorax.", "No pneumothorax.", "No pneumothorax is seen."),
    ("Consolidation",): ("There is no focal consolidation.", "No focal consolidation.", "No focal consolidation is seen."),
    ("Consolidation", "Edema"): (
        "There is no focal consolidation or pulmonary edema.",
        "No focal consolidation or pulmonary edema.",
    ),
    ("Edema",): ("There is no pulmonary edema.", "No pulmonary edema.", "No pulmonary edema is seen."),
    ("Fracture",): ("There is no displaced fracture.", "No displaced fracture.", "No displaced fracture is seen."),
}
CLEAR = ("The lungs are clear.", "Both lungs are clear.", "The lungs are well expanded and clear.")
BONES = ("The bones are intact.", "The osseous structures are unremarkable.", "The visualized bones are unremarkable.")

# Short names for the impression.
SUMMARY = {
    "Cardiomegaly": "{grade} cardiomegaly",
    "Enlarged Cardiomediastinum": "widening of the mediastinum",
    "Edema": "{grade} pulmonary edema",
    "Consolidation": "{place} consolidation",
    "Pneumonia": "{place} pneumonia",
    "Lung Opacity": "{place} opacity",
    "Lung Lesion": "{size} cm {kind} in the {place}",
    "Atelectasis": "linear atelectasis at the {place}",
    "Pneumothorax": "{grade} {side} pneumothorax",
    "Pleural Effusion": "{grade} {side} pleural effusion",
    "Pleural Other": "{side} {kind}pleural thickening",
    "Fracture": "displaced {bone} fracture",
}
NOTHING = ("No acute cardiopulmonary process.", "No acute cardiopulmonary abnormality.", "No acute intrathoracic process.")
CHANGES = {"new": "new since the prior study", "larger": "increased", "smaller": "decreased", "same": "unchanged"}
RESOLVED = {"Pleural Effusion": "No residual pleural effusion.", "Pneumothorax": "No residual pneumothorax."}
COMPLAINTS = (
    "cough",
    "shortness of breath",
    "chest pain",
    "fever",
    "weakness",
    "fall",
    "hypoxia",
    "preoperative evaluation",
    "follow up",
)
