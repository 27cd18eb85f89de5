"""BLEU, ROUGE-L, CIDEr and METEOR against pycocoevalcap and against golden numbers."""

import random
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrg.metrics.bleu import bleu
from rrg.metrics.cider import cider, cider_scores
from rrg.metrics.meteor import meteor
from rrg.metrics.ngrams import count_ngrams, count_pairs
from rrg.metrics.rouge import common_subsequence, rouge_l, sentence_rouge_l
from rrg.metrics.statistics import MetricUnavailable

GOLDEN_REFERENCES = [
    "the heart is normal in size . the lungs are clear .",
    "no pleural effusion or pneumothorax .",
    "there is mild cardiomegaly . no focal consolidation .",
]
GOLDEN_HYPOTHESES = [
    "the heart size is normal . the lungs are clear .",
    "no pneumothorax .",
    "there is mild cardiomegaly . no pleural effusion is seen .",
]


def cleaned(text):
    """Lower case, sentence ends spaced: enough of a cleaning for comparing two implementations of one metric."""
    return " ".join(text.lower().replace(".", " . ").replace(",", " ").split())


def perturbed(references, kind, seed=0):
    """Hypotheses from references: `drop` some words, `shuffle` the sentences, `other` study's report, or the `same`."""
    rng = random.Random(seed)
    if kind == "drop":
        return [" ".join(word for word in text.split() if rng.random() > 0.2) for text in references]
    if kind == "shuffle":
        return [" . ".join(rng.sample(parts := text.split(" . "), len(parts))) for text in references]
    return references[1:] + references[:1] if kind == "other" else list(references)


def ours(hypotheses, references):
    pairs = count_pairs(hypotheses, references)
    return {**bleu(pairs).values(), **rouge_l(hypotheses, references).values(), **cider(pairs).values()}


def theirs(hypotheses, references):
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = {place: [text] for place, text in enumerate(references)}
    guess = {place: [text] for place, text in enumerate(hypotheses)}
    values = dict(zip(("bleu_1", "bleu_2", "bleu_3", "bleu_4"), Bleu(4).compute_score(truth, guess, verbose=0)[0], strict=True))
    return {**values, "rouge_l": Rouge().compute_score(truth, guess)[0], "cider": Cider().compute_score(truth, guess)[0]}


def test_golden_numbers():
    expected = dict(
        bleu_1=0.775418, bleu_2=0.650364, bleu_3=0.547817, bleu_4=0.488426, rouge_l=0.734840, cider=4.201596
    )  # fmt: skip
    assert ours(GOLDEN_HYPOTHESES, GOLDEN_REFERENCES) == pytest.approx(expected, abs=1e-6)
    per_study = cider_scores(count_pairs(GOLDEN_HYPOTHESES, GOLDEN_REFERENCES))
    assert per_study == pytest.approx([5.909007, 1.854004, 4.841777], abs=1e-6)
    rouge = [sentence_rouge_l(*pair) for pair in zip(GOLDEN_HYPOTHESES, GOLDEN_REFERENCES, strict=True)]
    assert rouge == pytest.approx([0.862801, 0.628866, 0.712855], abs=1e-6)


@pytest.mark.parametrize("kind", ["same", "drop", "shuffle", "other"])
def test_equal_to_pycocoevalcap_on_reports(openi, kind):
    references = [cleaned(study["findings"]) for study in openi("val")][:250]
    hypotheses = perturbed(references, kind)
    assert ours(hypotheses, references) == pytest.approx(theirs(hypotheses, references), abs=1e-6)


words = st.lists(st.sampled_from(["no", "effusion", ".", "heart", "clear", ""]), max_size=9).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=6))
def test_equal_to_pycocoevalcap_on_awkward_texts(pairs):
    """Empty texts, double spaces, repeated words, one study."""
    hypotheses, references = map(list, zip(*pairs, strict=True))
    if any(text.split() for text in references):
        assert ours(hypotheses, references) == pytest.approx(theirs(hypotheses, references), abs=1e-6)


def test_all_references_empty_is_a_missing_cider_not_a_zero():
    with pytest.raises(MetricUnavailable, match="reference is empty"):
        cider(count_pairs(["a b"], [""]))


def test_pairs_must_match():
    with pytest.raises(ValueError, match="2 hypotheses for 1"):
        count_pairs(["a", "b"], ["a"])


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_common_subsequence_equals_the_table(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, left in enumerate(first, 1):
        for j, right in enumerate(second, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if left == right else max(table[i - 1, j], table[i, j - 1])
    assert common_subsequence(first, second) == table[-1, -1]


def test_ngrams_do_not_cross_texts():
    unigrams, bigrams, trigrams, _ = count_ngrams(["a b a b", "a", "", "b c"])
    assert unigrams.totals(unigrams.count).tolist() == [4, 1, 0, 2]
    assert bigrams.totals(bigrams.count).tolist() == [3, 0, 0, 1]
    assert trigrams.totals(trigrams.count).tolist() == [2, 0, 0, 0]
    assert sorted(bigrams.count[bigrams.text == 0].tolist()) == [1, 2]


@pytest.mark.slow
def test_meteor_equals_the_java_program(openi):
    pytest.importorskip("pycocoevalcap")
    if not shutil.which("java"):
        pytest.skip("METEOR is a Java program and there is no Java here")
    from pycocoevalcap.meteor.meteor import Meteor

    references = [cleaned(study["findings"]) for study in openi("val")][:80] + ["the lungs are clear .", "a b", ""]
    hypotheses = perturbed(references[:40], "drop") + perturbed(references[40:80], "other") + ["the lungs are clear .", "", "c"]
    truth, guess = ({place: [text] for place, text in enumerate(side)} for side in (references, hypotheses))
    corpus, per_study = Meteor().compute_score(truth, guess)
    statistics = meteor(hypotheses, references)
    assert statistics.values()["meteor"] == pytest.approx(corpus, abs=1e-9)
    assert statistics.resampled(np.eye(len(references)))[:-3, 0] == pytest.approx(per_study[:-3], abs=1e-9)


def test_meteor_without_java_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MetricUnavailable, match="needs Java"):
        meteor(["a"], ["a"])


def test_meteor_survives_separators_and_line_breaks():
    if not shutil.which("java"):
        pytest.skip("METEOR is a Java program and there is no Java here")
    pytest.importorskip("pycocoevalcap")
    statistics = meteor(["a ||| b\nlungs", "clear"], ["lungs ||| clear", "clear\n\nlungs"])
    assert statistics.count == 2
