"""Probabilities of the fourteen observations per study, as a classifier of films writes them, and labels made of them.

The file is JSON lines (a header, then a line per study) or safetensors (`probabilities` float32 [S, 14], studies as metadata).
Columns are found by name: other classifiers order the observations otherwise (spec cmeaa §8, trap 7).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rrg.data.prepare.json_files import read_json_lines
from rrg.data.study import OBSERVATIONS, Study
from rrg.errors import UserError
from rrg.observations.calibration import Thresholds
from rrg.observations.provenance import Source
from rrg.shards.storage import replace_file

FORMAT, KIND = 1, "observation probabilities"


@dataclass(frozen=True)
class Probabilities:
    """`values` float32 [S, 14] in the order of OBSERVATIONS, a row per study of `ids`. They come from films."""

    ids: tuple[str, ...]
    values: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.ids), len(OBSERVATIONS)) or len(set(self.ids)) != len(self.ids):
            raise UserError(f"probabilities of {len(self.ids)} studies in an array {self.values.shape}, or a study twice")
        if not ((self.values >= 0) & (self.values <= 1)).all():  # false for NaN too
            raise UserError("a probability is not between 0 and 1")

    @classmethod
    def load(cls, path: str | Path) -> Probabilities:
        """Read either form. Raises UserError: no such file, damaged, a missing observation, a number out of range."""
        path = Path(path)
        try:
            return _from_tensors(path) if path.suffix == ".safetensors" else _from_lines(path)
        except UserError as error:
            raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None

    def save(self, path: Path) -> None:
        """Write the form that the name's ending asks for; equal probabilities give equal bytes."""
        header = {"format": FORMAT, "kind": KIND, "source": "image", "observations": list(OBSERVATIONS)}
        if path.suffix == ".safetensors":
            from safetensors.numpy import save

            data = save({"probabilities": self.values}, {"table": json.dumps({**header, "studies": list(self.ids)})})
        else:
            rows = zip(self.ids, self.values.tolist(), strict=True)
            lines = [header, *({"study": study, "probabilities": [float(f"{p:.9g}") for p in row]} for study, row in rows)]
            data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, data)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or type(error).__name__}") from None


class ProbabilityLabels:
    """Labels from probabilities: 1 above the observation's threshold.

    `below` says what the others are: `denied` (0: every observation gets a label, as the spec's three-state scheme has it) or
    `unsaid` (no label). "No Finding" is never 0, as in every labeller of reports.
    """

    source: Source = "image"

    def __init__(
        self, probabilities: Probabilities, thresholds: Thresholds, below: Literal["denied", "unsaid"] = "denied", name: str = ""
    ) -> None:
        self.name, self.below = name or "the probabilities", below
        self._rows = {study: row for study, row in zip(probabilities.ids, probabilities.values, strict=True)}
        self._limits = thresholds.array()

    def labels(self, study: Study) -> dict[str, int]:
        """Raises UserError where there is no row for the study."""
        if study.id not in self._rows:
            raise UserError(f"{self.name}: no probabilities for study {study.id}; write them for its split too")
        return self.of_row(self._rows[study.id])

    def of_row(self, row: npt.NDArray[np.float32]) -> dict[str, int]:
        """Labels of one row [14]."""
        above = {name: bool(over) for name, over in zip(OBSERVATIONS, row > self._limits, strict=True)}
        denied = () if self.below == "unsaid" else (name for name, over in above.items() if not over and name != "No Finding")
        found = {name: 1 for name, over in above.items() if over} | dict.fromkeys(denied, 0)
        return {name: found[name] for name in OBSERVATIONS if name in found}


def _from_lines(path: Path) -> Probabilities:
    lines = read_json_lines(path, "probabilities")
    _, header = next(lines, ("", None))
    order = _order(header)
    ids, rows = [], []
    for where, record in lines:
        values = record.get("probabilities") if isinstance(record, dict) else None
        if not isinstance(values, list) or len(values) != len(OBSERVATIONS) or not isinstance(record.get("study"), str):
            raise UserError(f"{where}: not a study with {len(OBSERVATIONS)} probabilities")
        if not all(type(value) in (int, float) for value in values):
            raise UserError(f"{where}: a probability is not a number")
        ids.append(record["study"])
        rows.append(values)
    return Probabilities(tuple(ids), np.asarray(rows, dtype=np.float32).reshape(-1, len(OBSERVATIONS))[:, order])


def _from_tensors(path: Path) -> Probabilities:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("table", "null"))
            values = np.asarray(file.get_tensor("probabilities"), dtype=np.float32)
    except (OSError, SafetensorError, ValueError):
        raise UserError("not a safetensors file of probabilities, or damaged; write it again") from None
    order = _order(header)
    studies = header.get("studies")
    if not isinstance(studies, list) or values.shape != (len(studies), len(OBSERVATIONS)):
        raise UserError("its studies and its probabilities differ in number")
    return Probabilities(tuple(map(str, studies)), values[:, order])


def _order(header: Any) -> Sequence[int]:
    """Where each of OBSERVATIONS stands in the file's rows."""
    if not isinstance(header, Mapping) or header.get("kind") != KIND or header.get("format") != FORMAT:
        raise UserError("not a file of observation probabilities; its header is missing or of another format")
    if header.get("source") != "image":
        raise UserError("probabilities come from films; its header names another source")
    names = header.get("observations")
    if not isinstance(names, list) or sorted(map(str, names)) != sorted(OBSERVATIONS):
        raise UserError("its header does not list the fourteen observations, each once")
    return [names.index(name) for name in OBSERVATIONS]
