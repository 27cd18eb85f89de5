"""Every external metric by name: what it needs, where it runs, what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrg.errors import UserError, nearest

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class EnvironmentSpec:
    """An environment's worker script and lock files.

    `modules`: where all of these can be imported by rrg's own interpreter, that will do and nothing has to be installed.
    """

    worker: str
    lock: str
    modules: tuple[str, ...] = ()

    @property
    def script(self) -> Path:
        """The worker."""
        return _HERE / "workers" / self.worker

    @property
    def locks(self) -> tuple[Path, ...]:
        """The lock file, and the one of packages to install without what they require (their requirements are in the first)."""
        bare = _HERE / "locks" / f"{self.lock}.bare.txt"
        return (_HERE / "locks" / f"{self.lock}.txt", *((bare,) if bare.is_file() else ()))


ENVIRONMENTS: dict[str, EnvironmentSpec] = {
    "chexbert": EnvironmentSpec("chexbert_worker.py", "chexbert", ("torch", "transformers", "tokenizers")),
    "radgraph": EnvironmentSpec("radgraph_worker.py", "radgraph"),
    "bertscore": EnvironmentSpec("bertscore_worker.py", "bertscore"),
    "rate": EnvironmentSpec("rate_worker.py", "rate"),
    "green": EnvironmentSpec("green_worker.py", "green"),
}


@dataclass(frozen=True)
class ExternalMetric:
    """`files`: key → what has to lie there. `parts`: other metrics that it is computed from; it then has no worker of its own.

    `settings` go to the worker. `batch`: studies sent at a time. `source`: paper or package that defines the score.
    """

    title: str
    source: str
    environment: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 16


_RADGRAPH = {
    "model": "RadGraph's archive: {kind}.tar.gz, or its folder with config.json, vocabulary/, weights.th",
    "encoder": "folder of the encoder that the archive's config.json names: config.json, weights, vocabulary",
}


def _radgraph(kind: str) -> dict[str, str]:
    return {key: text.format(kind=kind) for key, text in _RADGRAPH.items()}


METRICS: dict[str, ExternalMetric] = {
    "chexbert": ExternalMetric(
        "CheXbert: F1 of 14 observations, uncertain counted as positive; cosine of the reports' vectors",
        "Smit et al. 2020, arXiv:2004.09167; F1 as in R2Gen's and RRG24's evaluations",
        "chexbert",
        {
            "weights": "chexbert.pth, the published checkpoint",
            "vocab": "vocab.txt of bert-base-uncased, or a folder that holds it",
        },
    ),
    "radgraph": ExternalMetric(
        "RadGraph F1: entities (simple), with has-relation (partial), with relations (complete)",
        "Jain et al. 2021, arXiv:2106.14463; rewards of Delbrouck et al. 2022, arXiv:2210.12186",
        "radgraph",
        _radgraph("radgraph"),
        settings={"kind": "radgraph"},
        batch=8,
    ),
    "radgraph_xl": ExternalMetric(
        "RadGraph-XL F1: as radgraph, with the model trained on more kinds of reports",
        "Delbrouck et al. 2024, Findings of ACL",
        "radgraph",
        _radgraph("radgraph-xl"),
        settings={"kind": "radgraph-xl"},
        batch=8,
    ),
    "bertscore": ExternalMetric(
        "BERTScore F of distilbert-base-uncased, layer 5, no idf, rescaled: the setting of RRG24",
        "Zhang et al. 2020, arXiv:1904.09675; package bert-score",
        "bertscore",
        {"model": "folder of distilbert-base-uncased"},
        settings={"baseline": "distilbert-base-uncased", "layers": 5},
        batch=64,
    ),
    "rate": ExternalMetric(
        "RaTEScore: likeness of medical entities, with the package's weights for long reports",
        "Zhao et al. 2024, arXiv:2406.16845; package RaTEScore",
        "rate",
        {"ner": "folder of Angelakeke/RaTE-NER-Deberta", "encoder": "folder of FremyCompany/BioLORD-2023-C"},
        batch=8,
    ),
    "green": ExternalMetric(
        "GREEN: matched findings against significant errors, counted by a language model",
        "Ostmeier et al. 2024, arXiv:2405.03595; package radeval",
        "green",
        {"model": "folder of StanfordAIMI/GREEN-radllama2-7b"},
        batch=4,
    ),
    "radcliq": ExternalMetric(
        "RadCliQ-v1 of RadGraph, BERTScore, CheXbert's cosine and BLEU-2; it predicts a number of errors: LOWER is better",
        "Yu et al. 2023, Patterns 4(9); coefficients as in package radeval 2.2.1",
        parts=("radgraph", "radcliq_bertscore", "chexbert"),
    ),
    "radcliq_bertscore": ExternalMetric(
        "BERTScore F of distilroberta-base, layer 5, no idf, rescaled: RadCliQ's part",
        "Zhang et al. 2020, arXiv:1904.09675; settings of CXR-Report-Metric",
        "bertscore",
        {"model": "folder of distilroberta-base"},
        settings={"baseline": "distilroberta-base", "layers": 5},
        batch=64,
    ),
}


def metric(name: str) -> ExternalMetric:
    """The metric of that name. Raises UserError where there is none."""
    if name not in METRICS:
        raise UserError(f"metric {name!r} is not known; {nearest(name, METRICS)}")
    return METRICS[name]


def environment_of(name: str) -> str:
    """The environment of that name, or that of the metric of that name. Raises UserError where there is none."""
    if name in ENVIRONMENTS:
        return name
    found = metric(name)
    if not found.environment:
        raise UserError(f"metric {name!r} has no environment of its own; install those of {', '.join(found.parts)}")
    return found.environment


def with_parts(names: list[str]) -> list[str]:
    """The metrics and those that they are computed from, each once, parts first. Raises UserError for an unknown name."""
    return list(dict.fromkeys(part for name in names for part in (*metric(name).parts, name)))
