"""What is true of a phantom study: every parameter its films and its report are drawn from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rrg.data.prepare.phantom.canvas import Pose
from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError

PATHOLOGIES = tuple(name for name in OBSERVATIONS if name not in {"No Finding", "Support Devices"})


@dataclass(frozen=True)
class Finding:
    """One abnormality. Fields that do not apply to `name` keep their default.

    `side` right, left or both (the patient's); `zone` upper, mid or lower; `grade` mild < moderate < severe or
    small < moderate < large; `kind` a sub-type (nodule, mass; rib, clavicle; smooth, calcified); `measure` the cardiothoracic
    ratio, the half-width of the mediastinum in units, the diameter in centimetres or the middle one of three broken ribs;
    `certain` False for what is drawn faintly and worded as possible; `seed` fixes the shape, so that a lasting finding keeps it.
    """

    name: str
    side: str = ""
    zone: str = ""
    grade: str = ""
    kind: str = ""
    measure: float = 0.0
    certain: bool = True
    seed: int = 0

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides it lies on: ("right",), ("left",), both or none."""
        return ("right", "left") if self.side == "both" else ((self.side,) if self.side else ())

    @property
    def strength(self) -> float:
        """How strongly it is drawn: 1, or less where it is only possible."""
        return 1.0 if self.certain else 0.45


@dataclass(frozen=True)
class Device:
    """A support device: `kind` pacemaker, catheter, tube or wires; `measure` of a tube is its height above the carina in cm."""

    kind: str
    side: str = ""
    measure: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Patient:
    """What does not change between a patient's studies; lengths in units (see `canvas`)."""

    number: int
    sex: str
    age: int
    bulk: float  # soft tissue around the chest, 0 slender .. 1 heavy
    half_width: float  # inner half-width of the chest
    apex: float  # y of the lung apices
    dome: float  # y of the right dome of the diaphragm
    dome_step: float  # how much lower the left dome stands
    heart_ratio: float  # cardiothoracic ratio while the heart is normal
    mediastinum: float  # half-width of the upper mediastinum while it is normal
    rib_slope: float
    vessel_seed: int


@dataclass(frozen=True)
class Film:
    """One film: `view` PA, AP or LATERAL, its size in pixels, how the body lies on it and how it was exposed."""

    dicom: str
    view: str
    rows: int
    columns: int
    pose: Pose
    exposure: float
    contrast: float
    noise: float
    seed: int


@dataclass(frozen=True)
class StudyTruth:
    """All drawing parameters of one study: one line of `truth.jsonl`."""

    study: str
    subject: str
    number: int  # 0 for the patient's first study
    split: str
    date: str  # YYYYMMDD
    time: str  # HHMMSS
    patient: Patient
    findings: tuple[Finding, ...]
    devices: tuple[Device, ...]
    films: tuple[Film, ...]

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> StudyTruth:
        """Inverse of `to_json`."""
        record: dict[str, Any] = json.loads(line)
        record.pop("labels", None)
        record["patient"] = Patient(**record["patient"])
        record["findings"] = tuple(Finding(**finding) for finding in record["findings"])
        record["devices"] = tuple(Device(**device) for device in record["devices"])
        record["films"] = tuple(Film(**{**film, "pose": Pose(**film["pose"])}) for film in record["films"])
        return cls(**record)


def truth_labels(parameters: StudyTruth | Mapping[str, Any]) -> dict[str, int]:
    """All fourteen observations of a study (or of one parsed line of `truth.jsonl`): 1 drawn, -1 drawn faintly, 0 not drawn.

    A report states only some of the zeros: those are in the cohort's CheXpert table. "No Finding" is 1 where nothing but
    support devices is drawn, as in CheXpert.
    """
    truth = parameters if isinstance(parameters, StudyTruth) else StudyTruth.from_json(json.dumps(dict(parameters)))
    labels = dict.fromkeys(OBSERVATIONS, 0)
    labels.update({finding.name: 1 if finding.certain else -1 for finding in truth.findings})
    labels["Support Devices"] = int(bool(truth.devices))
    labels["No Finding"] = int(not truth.findings)
    return labels


def read_truth(path: Path) -> Iterator[StudyTruth]:
    """The studies of a `truth.jsonl`, in order. Raises UserError for a line that is not a study's truth."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield StudyTruth.from_json(line)
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"{path}, line {number}: not the truth of a phantom study ({error}); prepare it again") from None


def generator(seed: int, *key: int) -> np.random.Generator:
    """The random numbers of one place in the cohort: a function of (seed, key) alone, whatever was drawn before."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=key)))
