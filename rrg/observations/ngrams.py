"""The n-grams that go with each observation: the table that `rrg prepare ngrams` writes and CmEAA reads (spec cmeaa §5).

The file is one JSON object: how it was made, the unique n-grams in alphabetical order (an n-gram's id is its place there), and
per observation and state ("Edema_True") the ids and scores, best first. ORGan's released file, an object of lists of strings, is
read too.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrg.data.prepare.json_files import read_json
from rrg.data.study import OBSERVATIONS
from rrg.digest import digest_json
from rrg.errors import UserError, nearest
from rrg.observations.phrase_inventory import Ngram, occurrences, sentences_of
from rrg.observations.pmi import MODES
from rrg.shards.storage import replace_file

FORMAT, KIND = 1, "observation n-grams"
PER_OBSERVATION, MOST = 30, 128  # ORGan's and CmEAA's limits at run time (spec cmeaa §5c)
FALLBACK = "No Finding_True"

_STATES = ("True", "False")
_LONGEST = 200  # characters; real ones are below 60


def observation_key(name: str, value: int) -> str:
    """`Edema_True` for a label of 1 or -1 (uncertain counts as present), `Edema_False` for 0."""
    return f"{name}_{'False' if value == 0 else 'True'}"


def observation_keys(labels: Mapping[str, int]) -> list[str]:
    """The keys of a study's labels in the order of OBSERVATIONS; what is not mentioned has none."""
    return [observation_key(name, labels[name]) for name in OBSERVATIONS if name in labels]


@dataclass(frozen=True)
class NgramTable:
    """Unique n-grams, and per key the ids of its n-grams, best first; `made` says how (empty for a released file)."""

    ngrams: tuple[str, ...]
    lists: Mapping[str, tuple[int, ...]]
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        ranked: Mapping[str, Sequence[str]],
        scores: Mapping[str, Sequence[float]] | None = None,
        made: Mapping[str, Any] | None = None,
    ) -> NgramTable:
        """From lists of strings; ids are places among the sorted strings."""
        ngrams = tuple(sorted({ngram for texts in ranked.values() for ngram in texts}))
        ids = {ngram: place for place, ngram in enumerate(ngrams)}
        lists = {key: tuple(ids[ngram] for ngram in texts) for key, texts in ranked.items()}
        return cls(ngrams, lists, {key: tuple(values) for key, values in (scores or {}).items()}, made or {})

    @classmethod
    def load(cls, path: str | Path) -> NgramTable:
        """Read a table. Raises UserError: no such file, not such a file, or made of other than training reports."""
        path = Path(path)
        record = read_json(path, "n-gram")
        if isinstance(record, dict) and record.get("kind") == KIND:
            return _parse(record, path)
        if not isinstance(record, dict) or not record:
            raise UserError(f"{path}: not an n-gram table; write one with 'rrg prepare ngrams'")
        for key, texts in record.items():
            _check_key(key, path)
            _check_texts(texts, f"{path}, {key}")
        return cls.of(record)

    def save(self, path: Path) -> None:
        """Write the table; the same table gives the same bytes. Raises UserError where the file cannot be written."""
        lists = {key: {"ngrams": list(ids), "scores": list(self.scores.get(key, ()))} for key, ids in self.lists.items()}
        record = {"format": FORMAT, "kind": KIND, **self.made, "ngrams": list(self.ngrams), "lists": lists}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, _lines(record).encode())
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or type(error).__name__}") from None

    @property
    def digest(self) -> str:
        """sha-256 over the n-grams and their lists: what an embedding matrix or a checkpoint hangs on."""
        return digest_json([list(self.ngrams), {key: list(ids) for key, ids in self.lists.items()}])

    def texts(self, key: str) -> tuple[str, ...]:
        """The n-grams of a key, best first; () where the table has none."""
        return tuple(self.ngrams[place] for place in self.lists.get(key, ()))

    def select(
        self, labels: Mapping[str, int], per_observation: int = PER_OBSERVATION, most: int = MOST, *, denied: bool = True
    ) -> tuple[int, ...]:
        """Ids for a study of these labels (spec §5c): the first of each observation in the order of OBSERVATIONS, each id once.

        Where the table has no key of the study's, those of "No Finding_True"; () where it has none of them either. Without
        `denied`, labels of 0 bring nothing: for a classifier that gives every observation a label, they would bring everything.
        """
        said = labels if denied else {name: value for name, value in labels.items() if value != 0}
        keys = [key for key in observation_keys(said) if key in self.lists] or [FALLBACK]
        found = dict.fromkeys(place for key in keys for place in self.lists.get(key, ())[:per_observation])
        return tuple(found)[:most]

    def select_texts(
        self, labels: Mapping[str, int], per_observation: int = PER_OBSERVATION, most: int = MOST, *, denied: bool = True
    ) -> list[str]:
        """As `select`, the n-grams themselves."""
        return [self.ngrams[place] for place in self.select(labels, per_observation, most, denied=denied)]

    def occurring(self, report: str, clean: Callable[[str], str], most: int = MOST) -> tuple[int, ...]:
        """Ids of the n-grams that stand in a report, in the order of their first place: for a retrieved training report."""
        ids = self._ids
        longest = max(map(len, ids), default=0)
        held = (ids[ngram] for sentence in sentences_of(report, clean) for ngram in occurrences(sentence, ids, longest))
        return tuple(dict.fromkeys(held))[:most]

    @functools.cached_property
    def _ids(self) -> dict[Ngram, int]:
        return {tuple(ngram.split()): place for place, ngram in enumerate(self.ngrams)}

    def entries_by_words(self) -> dict[int, int]:
        """Words per n-gram → list entries, each list counted (table 5 of the paper)."""
        lengths = [len(self.ngrams[place].split()) for ids in self.lists.values() for place in ids]
        return {words: lengths.count(words) for words in sorted(set(lengths))}


def _lines(record: Mapping[str, Any]) -> str:
    """One line per key of the outer objects: readable, and a difference of two files is short."""
    parts = []
    for key, value in record.items():
        text = json.dumps(value, ensure_ascii=False)
        if key in ("lists", "ngrams") and value:
            items = [json.dumps(v, ensure_ascii=False) for v in value] if key == "ngrams" else _items(value)
            text = ("[\n  {}\n ]" if key == "ngrams" else "{{\n  {}\n }}").format(",\n  ".join(items))
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _items(value: Mapping[str, Any]) -> list[str]:
    return [f"{json.dumps(key)}: {json.dumps(inner, ensure_ascii=False)}" for key, inner in value.items()]


def _parse(record: dict[str, Any], path: Path) -> NgramTable:
    found = str(record.get("format"))[:20]
    if record.get("format") != FORMAT:
        raise UserError(f"{path}: format {found}, this program reads {FORMAT}; run 'rrg prepare ngrams' again")
    if record.get("split") != "train":
        raise UserError(f"{path}: made of split {str(record.get('split'))[:20]!r}; n-grams may come from training reports only")
    if record.get("pmi") not in MODES:
        raise UserError(f"{path}: key 'pmi' is {str(record.get('pmi'))[:20]!r}; {nearest(str(record.get('pmi')), MODES)}")
    ngrams, raw = record.get("ngrams"), record.get("lists")
    _check_texts(ngrams, f"{path}, ngrams")
    if not isinstance(raw, dict):
        raise UserError(f"{path}: key 'lists' is missing or not an object")
    assert isinstance(ngrams, list)
    lists, scores = {}, {}
    for key, value in raw.items():
        _check_key(key, path)
        lists[key], scores[key] = _list(value, len(ngrams), f"{path}, {key}")
    made = {key: value for key, value in record.items() if key not in ("format", "kind", "ngrams", "lists")}
    return NgramTable(tuple(ngrams), lists, scores, made)


def _list(value: Any, known: int, where: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    ids, scores = (value.get("ngrams"), value.get("scores")) if isinstance(value, dict) else (None, None)
    if not isinstance(ids, list) or not isinstance(scores, list) or len(ids) != len(scores):
        raise UserError(f"{where}: not an object of 'ngrams' and as many 'scores'")
    if not all(type(place) is int and 0 <= place < known for place in ids) or len(set(ids)) != len(ids):
        raise UserError(f"{where}: its ids are not places in 'ngrams', each once")
    if not all(type(score) in (int, float) for score in scores):
        raise UserError(f"{where}: a score is not a number")
    return tuple(ids), tuple(float(score) for score in scores)


def _check_key(key: str, path: Path) -> None:
    name, _, state = key.rpartition("_")  # the last: a name may hold one (spec §8, 10)
    if state not in _STATES or name not in OBSERVATIONS:
        raise UserError(f"{path}: key {key[:40]!r} is no observation with _True or _False; {nearest(name[:40], OBSERVATIONS)}")


def _check_texts(texts: Any, where: str) -> None:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: not a list of strings")
    if any(not text.strip() or len(text) > _LONGEST for text in texts) or len(set(texts)) != len(texts):
        raise UserError(f"{where}: an n-gram is empty, longer than {_LONGEST} characters, or there twice")
