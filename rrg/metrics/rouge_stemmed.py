"""ROUGE-L as Google's rouge_score computes it with stemming: F1 of the longest common subsequence, mean over studies.

Words are that package's: lower case, letters and digits only, Porter stems. RRG24 and LLaVA-Rad report this one (common §6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rrg.metrics.rouge import common_subsequence
from rrg.metrics.statistics import MetricUnavailable, Statistics, mean_of

NAME = "rouge_l_stemmed"


class _Stems:
    """A stemmer that stems each word once."""

    def __init__(self, stem: Callable[[str], str]) -> None:
        self._stem, self._known = stem, dict[str, str]()

    def stem(self, word: str) -> str:
        """The word's stem."""
        found = self._known.get(word)
        if found is None:
            found = self._known[word] = self._stem(word)
        return found


def rouge_l_stemmed(hypotheses: Sequence[str], references: Sequence[str]) -> Statistics:
    """ROUGE-L F1 of N pairs. Raises MetricUnavailable without the package."""
    try:
        from nltk.stem.porter import PorterStemmer
        from rouge_score.tokenize import tokenize
    except ImportError:
        raise MetricUnavailable("rouge_l_stemmed needs the package rouge-score (pip install 'rrg[metrics]')") from None
    stems = _Stems(PorterStemmer().stem)
    words = {text: tokenize(text, stems) for text in {*hypotheses, *references}}
    scores = [_f1(words[guess], words[truth]) for guess, truth in zip(hypotheses, references, strict=True)]
    return mean_of(NAME, np.asarray(scores, dtype=np.float64))


def _f1(guess: Sequence[str], truth: Sequence[str]) -> float:
    common = common_subsequence(guess, truth) if guess and truth else 0
    return 2 * common / (len(guess) + len(truth)) if common else 0.0
