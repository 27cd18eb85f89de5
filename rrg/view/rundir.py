"""A run directory as it is at this moment: each part is either there and well formed, or simply not there yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rrg.data.study import SPLITS
from rrg.errors import UserError
from rrg.view.events import Events, read_events


@dataclass(frozen=True)
class Prediction:
    """One generated report beside its reference, both raw text."""

    study: str
    generated: str
    reference: str
    section: str


@dataclass(frozen=True)
class Run:
    """The files of a run. An empty mapping or tuple means that the file is not there yet.

    `predictions` and `scores` belong to `split`; `predicted` names every split that has predictions. `scores` are one record
    per protocol, the recipe's own protocol first. `torn` counts a last prediction line that is still being written.
    """

    root: Path
    split: str
    config: Mapping[str, Any]
    config_text: str
    environment: Mapping[str, Any]
    parameters: Mapping[str, Any]
    events: Events
    predictions: tuple[Prediction, ...]
    predicted: tuple[str, ...]
    scores: tuple[Mapping[str, Any], ...]
    stages: tuple[Run, ...]
    torn: int = 0

    @property
    def name(self) -> str:
        """The recipe's name, or the folder's where the recipe has none."""
        return str(self.setting("name") or self.root.resolve().name)

    def setting(self, path: str) -> Any:
        """The value at a dotted path of the resolved recipe, None where it has no such key."""
        value: Any = self.config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def read_run(root: Path, split: str) -> Run:
    """Read what is there of the run at `root`.

    Raises:
        UserError: `root` is no run directory, or a file in it is damaged.
    """
    if not (root / "config.yaml").is_file():
        problem = "it has no config.yaml" if root.is_dir() else "there is no such folder"
        raise UserError(f"{root}: not a run directory, {problem}; name the folder that `rrg train` made")
    config, text = _config(root / "config.yaml")
    predictions, torn = _predictions(root / "predictions" / f"{split}.jsonl")
    protocol = config.get("score", {}).get("protocol") if isinstance(config.get("score"), Mapping) else None
    return Run(
        root=root,
        split=split,
        config=config,
        config_text=text,
        environment=_json(root / "environment.json"),
        parameters=_json(root / "parameters.json"),
        events=read_events(root / "events.jsonl"),
        predictions=predictions,
        predicted=tuple(name for name in SPLITS if (root / "predictions" / f"{name}.jsonl").is_file()),
        scores=_scores(root / "scores", split, protocol),
        stages=_stages(root / "stages", split, config.get("stages")),
        torn=torn,
    )


def protocol_name(score: Mapping[str, Any]) -> str:
    """The name of the protocol that a score record was made with."""
    protocol = score.get("protocol")
    return str(protocol.get("name", "unnamed") if isinstance(protocol, Mapping) else protocol or "unnamed")


def _config(path: Path) -> tuple[Mapping[str, Any], str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        data = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (YAMLError, OmegaConfBaseException, ValueError):
        raise UserError(f"{path}: not a YAML recipe any more; put back the file that `rrg train` wrote") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a recipe with keys (name, data, …); put back the file that `rrg train` wrote")
    return {str(key): value for key, value in data.items()}, text


def _json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
    except ValueError:
        raise UserError(f"{path}: damaged, not JSON; remove it and run the command that writes it again") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected one JSON object; remove it and run the command that writes it again")
    return data


def _scores(folder: Path, split: str, protocol: object) -> tuple[Mapping[str, Any], ...]:
    found = [_json(path) for path in sorted(folder.glob(f"{split}.*.json"))]
    return tuple(sorted(found, key=lambda score: protocol_name(score) != protocol))


def _predictions(path: Path) -> tuple[tuple[Prediction, ...], int]:
    if not path.is_file():
        return (), 0
    lines = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_prediction(json.loads(line)))
        except (ValueError, KeyError, AttributeError):
            if number == len(lines):
                return tuple(found), 1
            hint = "expected an object with study, generated and reference; run `rrg generate` again"
            raise UserError(f"{path} line {number}: not a prediction, {hint}") from None
    return tuple(found), 0


def _prediction(record: Mapping[str, Any]) -> Prediction:
    texts = {name: record[name] for name in ("study", "generated", "reference")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("not text")
    return Prediction(**texts, section=str(record.get("section", "")))


def _stages(folder: Path, split: str, order: object) -> tuple[Run, ...]:
    """The stages that have begun, in the order of the recipe."""
    if not folder.is_dir():
        return ()
    named = [str(name) for name in order] if isinstance(order, Mapping) else []
    paths = sorted(folder.iterdir(), key=lambda path: (named.index(path.name) if path.name in named else len(named), path.name))
    return tuple(read_run(path, split) for path in paths if (path / "config.yaml").is_file())
