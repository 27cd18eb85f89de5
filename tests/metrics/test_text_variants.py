"""The likenesses of words that only some protocols use, against the packages that define them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrg.metrics.bleu_13a import bleu_13a
from rrg.metrics.bleu_study import bleu_2_study
from rrg.metrics.ngrams import count_pairs
from rrg.metrics.rouge_stemmed import rouge_l_stemmed
from tests.metrics.test_ngram_metrics import perturbed

WORDS = st.lists(st.sampled_from(["No", "effusion.", "1.5", "cm", "lungs,", "lung", "&amp;", "-", "clear"]), max_size=8).map(
    " ".join
)


def sacrebleu(order, hypotheses, references):
    from sacrebleu.metrics import BLEU

    return BLEU(max_ngram_order=order).corpus_score(hypotheses, [references]).score / 100


def google_rouge(hypotheses, references):
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(references, hypotheses, strict=True)
    return float(np.mean([scorer.score(truth, guess)["rougeL"].fmeasure for truth, guess in pairs]))


@pytest.mark.parametrize("kind", ["drop", "shuffle", "other"])
def test_equal_to_the_packages_on_reports(openi, kind):
    pytest.importorskip("sacrebleu"), pytest.importorskip("rouge_score")
    references = [study["findings"] for study in openi("val")][:120]
    hypotheses = perturbed(references, kind)
    own = bleu_13a(hypotheses, references).values()
    assert own["sacrebleu_1"] == pytest.approx(sacrebleu(1, hypotheses, references), abs=1e-9)
    assert own["sacrebleu_4"] == pytest.approx(sacrebleu(4, hypotheses, references), abs=1e-9)
    stemmed = rouge_l_stemmed(hypotheses, references).values()["rouge_l_stemmed"]
    assert stemmed == pytest.approx(google_rouge(hypotheses, references), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_equal_to_the_packages_on_awkward_texts(pairs):
    pytest.importorskip("sacrebleu"), pytest.importorskip("rouge_score")
    hypotheses, references = map(list, zip(*pairs, strict=True))
    own = bleu_13a(hypotheses, references).values()
    for order in (1, 4):
        assert own[f"sacrebleu_{order}"] == pytest.approx(sacrebleu(order, hypotheses, references), abs=1e-9)
    stemmed = rouge_l_stemmed(hypotheses, references).values()["rouge_l_stemmed"]
    assert stemmed == pytest.approx(google_rouge(hypotheses, references), abs=1e-9)


def test_bleu_2_of_studies_by_hand():
    # 3 of 4 words and 1 of 3 pairs right, one word too short; then no pair right (a tenth of one); then no words at all.
    pairs = count_pairs(["a b x c", "a c", ""], ["a b d c e", "c a", "a"])
    scores = [math.sqrt(3 / 4 * 1 / 3) * math.exp(1 - 5 / 4), math.sqrt(1 * 0.1), 0.0]
    assert bleu_2_study(pairs).resampled(np.eye(3))[:, 0] == pytest.approx(scores)
    assert bleu_2_study(pairs).values()["bleu_2_study"] == pytest.approx(np.mean(scores))
