"""What `rrg score` needs beside the predictions: the run's settings, the reports of the shards, a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.data.protocols import Protocol, section_text
from rrg.errors import UserError
from rrg.metrics.effort import Effort
from rrg.metrics.predictions import Predictions, in_order, read_predictions
from rrg.metrics.reports import Cut, Reading, token_cut

NO_SHARDS = "none"


@dataclass(frozen=True)
class RunSettings:
    """The run that a predictions file lies in: its folder and its resolved configuration."""

    root: Path
    config: Mapping[str, Any]

    def get(self, path: str) -> Any:
        """The value at a dotted path, None where there is none."""
        value: Any = self.config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


@dataclass(frozen=True)
class SplitReports:
    """Raw texts of one split's section. `damaged` studies could not be read."""

    texts: list[str]
    damaged: int


def run_of(predictions: Path) -> RunSettings | None:
    """The run whose `predictions` folder holds the file, or None. Raises UserError where its configuration is damaged."""
    root = predictions.absolute().parent.parent
    path = root / "config.yaml"
    if predictions.absolute().parent.name != "predictions" or not path.is_file():
        return None
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{path}: not readable as YAML; give --protocol and --shards for a file moved out of the run")
    return RunSettings(root, {str(key): value for key, value in config.items()})


def split_ids(shards: str, split: str) -> list[str]:
    """Study ids of a split. Raises UserError where the shards or the split are not there."""
    from rrg.shards.reader import ShardSet

    return list(ShardSet(shards, split).ids)


def split_reports(shards: str, split: str, section: str) -> SplitReports | None:
    """The reports of a split, None where the shards have no such split."""
    from rrg.cli.progress import Meter
    from rrg.shards.manifest import read_manifest
    from rrg.shards.reader import DamagedSample, ShardSet
    from rrg.shards.storage import open_storage

    if split not in read_manifest(open_storage(shards)).splits:
        return None
    reader = ShardSet(shards, split)
    texts, damaged = [], 0
    with Meter(f"reading {split} reports", "studies") as progress:
        for index in range(len(reader)):
            try:
                texts.append(section_text(reader.study(index).sections, section))
            except DamagedSample:
                damaged += 1
            progress(index + 1, len(reader))
    return SplitReports(texts, damaged)


def beside(predictions: Predictions, kind: str, section: str) -> list[str] | None:
    """The texts of `SPLIT.KIND.jsonl` beside the predictions, in their order; None where there is no such file."""
    path = predictions.path.with_name(f"{predictions.path.stem}.{kind}.jsonl")
    if not path.is_file() or path == predictions.path:
        return None
    return in_order(read_predictions(path, section), predictions.studies)


def retrieved_reports(path: Path, predictions: Predictions, shards: str | None, section: str) -> list[str]:
    """For each study the training report that was retrieved for it: the nearest of a label file's neighbours, whose reports are
    read from the shards, or the reports of a file shaped like predictions.

    Raises:
        UserError: the file is neither, lacks a study, or names a training study that the shards do not have.
    """
    nearest = _neighbours(path)
    if nearest is None:
        return in_order(read_predictions(path, section), predictions.studies)
    if shards is None:
        raise UserError(f"--retrieved {path}: names training studies, whose reports are in the shards; name them with --shards")
    lacking = [study for study in predictions.studies if study not in nearest]
    if lacking:
        raise UserError(f"--retrieved {path}: nothing was retrieved for {len(lacking)} studies (first: {lacking[0]})")
    from rrg.shards.reader import ShardSet

    train = ShardSet(shards, "train")
    places = {study: place for place, study in enumerate(train.ids)}
    strange = next((nearest[study] for study in predictions.studies if nearest[study] not in places), None)
    if strange is not None:
        raise UserError(f"--retrieved {path}: {strange} is no training study of {shards}; retrieve again from these shards")
    return [section_text(train.study(places[nearest[study]]).sections, section) for study in predictions.studies]


def _neighbours(path: Path) -> dict[str, str] | None:
    """Study → nearest training study of a label file; None where the file is no label file."""
    from rrg.data.prepare.json_files import read_json_lines
    from rrg.observations.label_file import KIND

    lines = read_json_lines(path, "label")
    _, header = next(lines, ("", None))
    if not isinstance(header, dict) or header.get("kind") != KIND:
        return None
    if header.get("source") != "retrieved":
        raise UserError(f"--retrieved {path}: labels from {header.get('source')!r}; write them with --from retrieved")
    found = {}
    for where, record in lines:
        neighbours = record.get("neighbours") if isinstance(record, dict) else None
        if not neighbours:
            raise UserError(f"{where}: has no neighbours; write the file again with 'rrg prepare labels --from retrieved'")
        found[str(record["study"])] = str(neighbours[0]["study"])
    return found


def effort_of(workers: int, no_cache: bool) -> Effort:
    """The effort that the options ask for. Raises UserError for fewer workers than one."""
    from rrg.shards.reading import cache_root

    if workers < 1:
        raise UserError(f"--workers {workers}: write at least 1")
    return Effort(workers, None if no_cache else cache_root() / "scores")


def reading_of(protocol: Protocol, tokenizer: str | None, run: RunSettings | None) -> Reading:
    """How the protocol reads reports here. Raises UserError where it needs a tokenizer and none is named or loads."""
    return Reading(protocol, reference_cut(protocol, tokenizer, run))


def reference_cut(protocol: Protocol, tokenizer: str | None, run: RunSettings | None) -> Cut | None:
    """The cut of a protocol with `truncate_tokens`, with the tokenizer named or the run's own; None for other protocols.

    Raises:
        UserError: no tokenizer is named, or it cannot be loaded.
    """
    if protocol.truncate_tokens is None:
        return None
    name = tokenizer or (_tokenizer_of(run) if run else "")
    if not name:
        raise UserError(
            f"protocol {protocol.name!r} cuts references after {protocol.truncate_tokens} tokens of the language model: "
            "name its tokenizer with --tokenizer NAME-OR-FOLDER"
        )
    from rrg.cli.quiet import quiet_libraries

    quiet_libraries()
    from transformers import AutoTokenizer

    from rrg.language.embedded import resolve_language

    try:
        loaded = AutoTokenizer.from_pretrained(resolve_language(name))
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"tokenizer {name!r} cannot be loaded ({reason}); name one with --tokenizer") from None
    return token_cut(loaded, protocol.truncate_tokens)


def _tokenizer_of(run: RunSettings) -> str:
    """Folder or name of the language model's tokenizer; a stage's run lies inside the run that it belongs to."""
    owners = [run.root, run.root.parent.parent]
    name = str(run.get("language.name") or "")
    if name.startswith("stage:"):
        folders = [owner / "stages" / name.removeprefix("stage:") / "language" for owner in owners]
    else:
        folders = [owner / "tokenizer" for owner in owners] if run.get("language.kind") == "small_llama" else []
    return next((str(folder) for folder in folders if folder.is_dir()), "" if folders else name)
