"""What is to be written, decided and checked before the first film is read.

A plan fixes every shard: each is a pure function of its task. `plan.json` in the output folder says which plan its shards
belong to, so that an interrupted run can carry on and a different one is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, overload

from rrg.data.study import SPLITS, Study
from rrg.errors import UserError
from rrg.shards.distinct import Digests, repeated, shared
from rrg.shards.images import ImagePolicy
from rrg.shards.manifest import FORMAT, canonical, shard_name
from rrg.shards.storage import replace_file

PLAN = "plan.json"
_SHOWN = 5


@dataclass(frozen=True)
class SourceStudy:
    """A study as a `prepare` module yields it: `images` is one path or fsspec URL per `study.views`, in the same order."""

    study: Study
    images: tuple[str, ...]


@dataclass(frozen=True)
class Excluded:
    """A study that is not in the shards, and why."""

    study: str
    reason: str


@dataclass(frozen=True)
class ShardTask:
    """One shard to be written: everything its bytes depend on. `digest` is the hash of all that."""

    folder: str
    split: str
    number: int
    digest: str
    policy: ImagePolicy
    studies: tuple[SourceStudy, ...]

    @property
    def name(self) -> str:
        return shard_name(self.split, self.number)


@dataclass(frozen=True)
class Plan:
    """The settings and, by split, the studies in their order."""

    source: Mapping[str, Any]
    parser_version: str
    policy: ImagePolicy
    studies_per_shard: int
    studies: Mapping[str, Sequence[SourceStudy]]

    def __post_init__(self) -> None:
        if self.studies_per_shard < 1:
            raise UserError(f"studies per shard {self.studies_per_shard}: write 1 or more")

    def settings(self) -> dict[str, Any]:
        """What `plan.json` holds."""
        settings = {
            "format": FORMAT,
            "source": dict(self.source),
            "parser_version": self.parser_version,
            "image_policy": self.policy.record(),
            "studies_per_shard": self.studies_per_shard,
            "studies": {split: len(studies) for split, studies in self.studies.items()},
            "studies_sha256": {split: _digest_of(studies) for split, studies in self.studies.items()},
        }
        try:
            loaded: dict[str, Any] = json.loads(canonical(settings))
        except TypeError as error:
            raise UserError(f"source: only JSON values can be recorded ({error})") from None
        return loaded

    def tasks(self, folder: Path) -> Iterator[ShardTask]:
        """The shards one after another; nothing is kept, so memory does not grow with their number."""
        common = canonical([FORMAT, dict(self.source), self.parser_version, self.policy.record()])
        for split, studies in self.studies.items():
            for number, first in enumerate(range(0, len(studies), self.studies_per_shard)):
                part = tuple(studies[first : first + self.studies_per_shard])
                digest = hashlib.sha256(common + shard_name(split, number).encode())
                for source in part:
                    digest.update(stored_study(source).to_json() + canonical(_films(source)))
                yield ShardTask(str(folder), split, number, digest.hexdigest(), self.policy, part)


def stored_study(source: SourceStudy) -> Study:
    """The study as it is stored: its views named after the members that hold their films."""
    views = tuple(dataclasses.replace(view, image=f"{number}.jpg") for number, view in enumerate(source.study.views))
    return dataclasses.replace(source.study, views=views)


def _films(source: SourceStudy) -> list[tuple[str, int]]:
    """Name and bytes of each film: enough to notice a film that was fetched again, and free of this machine's folders."""
    return [(PurePosixPath(path).name, -1 if "://" in path else Path(path).stat().st_size) for path in source.images]


def _digest_of(studies: Sequence[SourceStudy]) -> str:
    digest = hashlib.sha256()
    for source in studies:
        digest.update(stored_study(source).to_json() + b"\n")
    return digest.hexdigest()


class Selection(Sequence[SourceStudy]):
    """Some studies of a sequence, by their places in it: eight bytes a study, wherever the sequence itself lies."""

    def __init__(self, studies: Sequence[SourceStudy], places: array[int]) -> None:
        self._studies, self._places = studies, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> SourceStudy: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[SourceStudy]: ...
    def __getitem__(self, place: int | slice) -> SourceStudy | Sequence[SourceStudy]:
        if isinstance(place, slice):
            return [self._studies[k] for k in self._places[place]]
        return self._studies[self._places[place]]


def by_split(studies: Sequence[SourceStudy]) -> dict[str, Sequence[SourceStudy]]:
    """Studies of each split that has any, in the order given.

    Raises UserError: no studies, a study id twice, a patient in two splits, a study whose films do not match its views.
    """
    if not studies:
        raise UserError("no studies to write: the source gave none (look at its paths and filters)")
    ids, patients = Digests(), {split: Digests() for split in SPLITS}
    places = {split: array("q") for split in SPLITS}
    without_films = []
    for place, source in enumerate(studies):
        ids.add(source.study.id)
        patients[source.study.split].add(source.study.patient)
        places[source.study.split].append(place)
        if not source.images or len(source.images) != len(source.study.views):
            without_films.append(source.study.id)
    _refuse("study ids occur twice", repeated(ids, lambda: (source.study.id for source in studies)))
    _refuse("patients are in two splits", shared(patients.values(), lambda: _owners(studies)))
    _refuse("studies have no film, or not one film per view", without_films)
    return {split: Selection(studies, chosen) for split, chosen in places.items() if chosen}


def _owners(studies: Sequence[SourceStudy]) -> Iterator[tuple[str, int]]:
    return ((source.study.patient, SPLITS.index(source.study.split)) for source in studies)


def _refuse(fault: str, names: Sequence[str]) -> None:
    distinct = list(dict.fromkeys(names))
    if distinct:
        more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
        raise UserError(f"{len(distinct)} {fault}: {', '.join(distinct[:_SHOWN])}{more}")


def check_films_exist(studies: Sequence[SourceStudy]) -> None:
    """Look for every local film before hours are spent on the others. Raises UserError naming the first that is missing."""
    missing, first = 0, ""
    for source in studies:
        for path in source.images:
            if "://" not in path and not Path(path).is_file():
                missing += 1
                first = first or f"study {source.study.id}, {path}"
    if missing:
        what = "an image file is missing" if missing == 1 else f"{missing} image files are missing, the first"
        raise UserError(f"{what}: {first}")


def claim_folder(folder: Path, asked: Mapping[str, Any]) -> None:
    """Record the settings of a plan in `folder`, or find them recorded there.

    Raises UserError if the folder holds shards of another plan; the message names the setting that differs.
    """
    path = folder / PLAN
    if path.exists():
        try:
            there = json.loads(path.read_bytes())
        except ValueError:
            raise UserError(f"{path} is damaged: choose another output folder") from None
        if there != asked:
            raise UserError(f"{folder} holds shards of another plan ({_difference(there, asked)}): choose another output folder")
        return
    if any(folder.glob("*.tar")):
        raise UserError(f"{folder} holds tar files but no {PLAN}, so they are not ours: choose another output folder")
    replace_file(path, canonical(asked, indent=2) + b"\n")


def _difference(there: Any, asked: Any, path: str = "") -> str:
    """The first setting that differs, as `image_policy.size: there 512, now 256`."""
    if not (isinstance(there, dict) and isinstance(asked, dict)):
        return f"{path}: there {json.dumps(there)}, now {json.dumps(asked)}"
    for key in [*asked, *(key for key in there if key not in asked)]:
        if there.get(key) != asked.get(key):
            if key == "studies_sha256":
                return "the text, labels, views or order of the studies differ"
            return _difference(there.get(key), asked.get(key), f"{path}.{key}" if path else key)
    return "its settings differ"
