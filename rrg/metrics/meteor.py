"""METEOR 1.5 by its own Java program (the jar in pycocoevalcap), `-l en -norm`.

The program aligns words with stems, synonyms and paraphrases and prints 23 counts per pair. Those are our sufficient
statistics; the score is the published formula (Denkowski and Lavie 2014) of their sum, which equals the program's own
corpus score. There is no substitute in Python: where Java or the package is absent, the metric is missing.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rrg.metrics.effort import in_shares, remembered
from rrg.metrics.statistics import FloatArray, MetricUnavailable, Statistics

# Tuned parameters of the program for English; weights of exact, stem, synonym and paraphrase matches.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
_FIELDS = 23
_LENGTHS, _FUNCTION_WORDS, _MATCHES, _CHUNKS, _MATCHED = slice(0, 2), slice(2, 4), slice(4, 20), 20, slice(21, 23)


def meteor(hypotheses: Sequence[str], references: Sequence[str]) -> Statistics:
    """METEOR of N pairs of cleaned texts. Raises MetricUnavailable, with the reason, where the program cannot run."""
    return meteor_sets([(hypotheses, references)])[0]


def meteor_sets(sets: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[Statistics]:
    """METEOR of several sets of pairs (hypotheses, references) by one run of the program, which takes long to start."""
    lines = [[_line(*pair) for pair in zip(*texts, strict=True)] for texts in sets]
    counts = alignment_counts([line for part in lines for line in part])
    perfect = (counts[:, _CHUNKS] == 1) & (counts[:, _MATCHED] == counts[:, _LENGTHS]).all(axis=1)
    # A pair of equal texts is not fragmented: the program adds no chunk for it to the corpus.
    counts[perfect, _CHUNKS] = 0
    ends = np.cumsum([len(part) for part in lines])[:-1]
    return [Statistics(("meteor",), part, corpus_meteor) for part in np.split(counts, ends)]


def corpus_meteor(sums: FloatArray) -> FloatArray:
    """Score [..., 1] of summed counts [..., 23]."""
    matches = sums[..., _MATCHES].reshape(*sums.shape[:-1], 4, 4)  # [..., module, (content, content, function, function)]
    weighted = np.einsum("...mk,m->...k", matches, WEIGHTS)
    function = sums[..., _FUNCTION_WORDS]
    lengths = DELTA * (sums[..., _LENGTHS] - function) + (1 - DELTA) * function
    share = _ratio(DELTA * weighted[..., :2] + (1 - DELTA) * weighted[..., 2:], lengths)
    precision, recall = share[..., 0], share[..., 1]
    mean = _ratio(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    fragmentation = _ratio(sums[..., _CHUNKS], sums[..., _MATCHED].mean(axis=-1))
    return (mean * (1 - GAMMA * fragmentation**BETA))[..., None]


def _ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def alignment_counts(lines: Sequence[str]) -> FloatArray:
    """Counts [N, 23] of N distinct-or-equal request lines; equal lines are aligned once."""
    distinct = list(dict.fromkeys(lines))
    place = {line: index for index, line in enumerate(distinct)}
    command = _command()

    def align() -> FloatArray:
        return np.array(in_shares(lambda part: _answers(command, part), distinct, threads=True))

    table = remembered("meteor-1.5", distinct, align)
    return table.reshape(-1, _FIELDS)[[place[line] for line in lines]]


def _answers(command: tuple[str, Path], requests: Sequence[str]) -> list[list[float]]:
    answers = _run(command, "\n".join(requests) + "\n")
    if len(answers) != len(requests):
        raise MetricUnavailable(f"the METEOR program answered {len(answers)} of {len(requests)} requests")
    return [[float(word) for word in answer.split()] for answer in answers]


def _line(hypothesis: str, reference: str) -> str:
    # A line break or the separator inside a text would be read as another request.
    reference, hypothesis = (" ".join(text.replace("|||", "").split()) for text in (reference, hypothesis))
    return f"SCORE ||| {reference} ||| {hypothesis}"


def _command() -> tuple[str, Path]:
    java = shutil.which("java")
    if java is None:
        raise MetricUnavailable("METEOR needs Java (no `java` on PATH)")
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise MetricUnavailable("METEOR needs the package pycocoevalcap (pip install 'rrg[metrics]')")
    jar = Path(next(iter(package.submodule_search_locations))) / "meteor" / "meteor-1.5.jar"
    if not jar.is_file():
        raise MetricUnavailable("pycocoevalcap has no meteor-1.5.jar")
    return java, jar


def _run(command: tuple[str, Path], requests: str) -> list[str]:
    java, jar = command
    words = [java, "-Xmx2G", "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
    try:
        done = subprocess.run(words, input=requests.encode(), capture_output=True, cwd=jar.parent, check=False)
    except OSError as error:
        raise MetricUnavailable(f"Java could not be started: {error.strerror}") from None
    if done.returncode:
        raise MetricUnavailable(f"the METEOR program ended with exit code {done.returncode}")
    return done.stdout.decode(errors="replace").splitlines()
