"""How long scoring takes beside pycocoevalcap, and how far the two are apart: one run, the same texts, in turns."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.data.cleaning import clean_iu
from rrg.data.study import SPLITS
from rrg.errors import UserError
from rrg.metrics.bleu import bleu
from rrg.metrics.cider import cider
from rrg.metrics.intervals import intervals
from rrg.metrics.labelled import label_rows
from rrg.metrics.meteor import meteor
from rrg.metrics.ngrams import count_pairs
from rrg.metrics.rouge import rouge_l
from rrg.metrics.statistics import MetricUnavailable

PERTURBATIONS = ("words dropped", "sentences shuffled", "another study's report")

Scores = dict[str, float]


@dataclass(frozen=True)
class Turn:
    """One perturbation: values of both sides, their largest difference, and seconds (the best of the rounds)."""

    perturbation: str
    ours: Scores
    theirs: Scores
    our_seconds: float
    their_seconds: float

    @property
    def ratio(self) -> float:
        """How many times as long the reference implementation takes."""
        return self.their_seconds / self.our_seconds

    @property
    def apart(self) -> float:
        """The largest difference of any metric."""
        return max(abs(self.ours[name] - self.theirs[name]) for name in self.theirs)


@dataclass(frozen=True)
class ScoreBench:
    """`turns` for BLEU-1..4, ROUGE-L and CIDEr; `meteor` per perturbation as (ours, theirs), or the reason why there is none;
    `seconds` of what has no counterpart there."""

    reports: int
    turns: tuple[Turn, ...]
    meteor: dict[str, tuple[float, float]] | str
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        turns = [vars(turn) | {"ratio": turn.ratio, "largest_difference": turn.apart} for turn in self.turns]
        return {"reports": self.reports, "turns": turns, "meteor": self.meteor, "seconds": self.seconds}


def read_annotation(path: Path) -> list[str]:
    """All reports of an annotation file in R2Gen's layout (common §1), cleaned. Raises UserError where it is none."""
    try:
        record = json.loads(path.read_bytes())
        return [clean_iu(study["report"]) for split in SPLITS for study in record[split]]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not an annotation file ; it has train, val and test, each a list with 'report'") from None


def perturbed(reports: Sequence[str], how: str, seed: int = 0) -> list[str]:
    """Hypotheses made of references."""
    rng = random.Random(seed)
    if how == "words dropped":
        return [" ".join(word for word in text.split() if rng.random() > 0.2) for text in reports]
    if how == "sentences shuffled":
        return [" . ".join(rng.sample(parts := text.split(" . "), len(parts))) for text in reports]
    return [*reports[1:], *reports[:1]]


def measure_scores(
    reports: Sequence[str], *, rounds: int = 2, with_meteor: bool = True, say: Callable[[str], None] = lambda line: None
) -> ScoreBench:
    """Score `reports` (references) against three perturbations of themselves. Raises UserError without pycocoevalcap."""
    theirs = _reference()
    turns = []
    for how in PERTURBATIONS:
        guesses = perturbed(reports, how)
        times: tuple[list[float], list[float]] = ([], [])
        values: list[Scores] = [{}, {}]
        for _ in range(rounds):
            for side, score in enumerate((_ours, theirs)):
                start = time.perf_counter()
                values[side] = score(guesses, reports)
                times[side].append(time.perf_counter() - start)
        turns.append(Turn(how, values[0], values[1], min(times[0]), min(times[1])))
        say(how)
    return ScoreBench(len(reports), tuple(turns), _meteor(reports, say) if with_meteor else "not asked for", _others(reports))


def _ours(hypotheses: Sequence[str], references: Sequence[str]) -> Scores:
    pairs = count_pairs(hypotheses, references)
    return {**bleu(pairs).values(), **rouge_l(hypotheses, references).values(), **cider(pairs).values()}


def _reference() -> Callable[[Sequence[str], Sequence[str]], Scores]:
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError:
        raise UserError("rrg bench scores compares with pycocoevalcap: pip install 'rrg[metrics]'") from None

    def score(hypotheses: Sequence[str], references: Sequence[str]) -> Scores:
        truth, guess = ({place: [text] for place, text in enumerate(side)} for side in (references, hypotheses))
        scores = Bleu(4).compute_score(truth, guess, verbose=0)[0]
        named = {f"bleu_{order}": float(value) for order, value in enumerate(scores, 1)}
        rouge, consensus = Rouge().compute_score(truth, guess)[0], Cider().compute_score(truth, guess)[0]
        return named | {"rouge_l": float(rouge), "cider": float(consensus)}

    return score


def _meteor(reports: Sequence[str], say: Callable[[str], None]) -> dict[str, tuple[float, float]] | str:
    from pycocoevalcap.meteor.meteor import Meteor

    found = {}
    for how in PERTURBATIONS:
        guesses = perturbed(reports, how)
        try:
            own = meteor(guesses, reports).values()["meteor"]
        except MetricUnavailable as reason:
            return str(reason)
        truth, guess = ({place: [text] for place, text in enumerate(side)} for side in (reports, guesses))
        found[how] = (own, float(Meteor().compute_score(truth, guess)[0]))
        say(f"METEOR, {how}")
    return found


def _others(reports: Sequence[str]) -> dict[str, float]:
    guesses = perturbed(reports, PERTURBATIONS[0])
    start = time.perf_counter()
    label_rows(reports)
    labelled = time.perf_counter()
    pairs = count_pairs(guesses, reports)
    families = [[bleu(pairs)], [rouge_l(guesses, reports)], [cider(pairs)]]
    counted = time.perf_counter()
    intervals(families, resamples=1000)
    done = time.perf_counter()
    return {"labels of the references": labelled - start, "1,000 resamples of BLEU, ROUGE-L and CIDEr": done - counted}
