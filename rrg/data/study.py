"""One radiological examination: the record every `prepare` writes and every part reads."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rrg.errors import UserError

SPLITS = ("train", "val", "test")

# WebDataset splits a member name at its first dot, so a dot inside an id would end the key early.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,127}\Z")

# CheXpert's fourteen observations in the order of the MIMIC-CXR label files' paper (spec common §6). Map by name, never by place.
OBSERVATIONS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Lung Opacity",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)


@dataclass(frozen=True)
class View:
    """One film of a study.

    `image` is the member suffix inside a shard ("0.jpg"); `projection` is the source's word in upper case where it has one
    ("PA", "AP", "LATERAL", "LL") or "frontal"/"lateral" where the source says no more, "" where it says nothing.
    """

    image: str
    projection: str = ""
    laterality: str = ""
    source: str = ""  # identifier or relative path at the source, never an absolute path

    @property
    def plane(self) -> str:
        """The plane of the film: `frontal`, `lateral`, or empty where the source does not say."""
        name = self.projection.upper()
        if name in {"PA", "AP", "FRONTAL", "AP AXIAL"}:
            return "frontal"
        return "lateral" if name in {"LATERAL", "LL", "RL", "LAT"} else ""


@dataclass(frozen=True)
class Sections:
    """The parts of a written report; an absent section is the empty string. Text is raw: cleaning belongs to a protocol."""

    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""


@dataclass(frozen=True)
class Study:
    """One examination. `labels` holds CheXpert-style values per observation: 1 positive, 0 negative, -1 uncertain; an
    observation that is not mentioned has no key. `prior` is the id of the patient's previous study, `prior_days` the gap."""

    id: str
    patient: str
    split: str
    views: tuple[View, ...] = ()
    sections: Sections = field(default_factory=Sections)
    labels: Mapping[str, int] = field(default_factory=dict)
    prior: str | None = None
    prior_days: float | None = None
    acquired: str | None = None  # ISO 8601, as de-identified by the source

    def __post_init__(self) -> None:
        if not _ID.match(self.id):
            raise UserError(
                f"study id {self.id[:140]!r}: an id is 1-128 letters, digits, '_' or '-' (it names files inside a shard)"
            )
        if self.split not in SPLITS:
            raise UserError(f"study {self.id}: split {self.split!r} is none of {', '.join(SPLITS)}")
        for name, value in self.labels.items():
            if name not in OBSERVATIONS:
                raise UserError(f"study {self.id}: unknown observation {name!r}; legal: {', '.join(OBSERVATIONS)}")
            if value not in (1, 0, -1):
                raise UserError(f"study {self.id}: label {name} is {value!r}; write 1, 0, -1 or leave it out")

    def to_json(self) -> bytes:
        """Canonical bytes (sorted keys, UTF-8), so that equal studies give equal shards."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> Study:
        """Inverse of `to_json`. Raises ValueError where `data` is not a study record."""
        record: dict[str, Any] = json.loads(data)
        try:
            record["views"] = tuple(View(**view) for view in record.get("views", ()))
            record["sections"] = Sections(**record.get("sections", {}))
            return cls(**record)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a study record: {error}") from None
