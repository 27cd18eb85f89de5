"""Scores of a set of reports by external metrics: the one entrance for the rest of rrg."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rrg.errors import UserError
from rrg.metrics.external import radcliq
from rrg.metrics.external.availability import Availability, availability
from rrg.metrics.external.catalogue import ENVIRONMENTS, METRICS, with_parts
from rrg.metrics.external.chexbert import empty_reports
from rrg.metrics.external.environments import metrics_root
from rrg.metrics.external.families import FAMILIES
from rrg.metrics.external.result import ExternalResult, Reading, from_reading, without
from rrg.metrics.external.supervisor import Answers, StudyTexts, ask
from rrg.metrics.external.weights import MetricFile, checked
from rrg.metrics.external.worker import Command
from rrg.metrics.statistics import mean_of

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Conditions:
    """How workers are run.

    Attributes:
        files: metric → key → file, before what `rrg metrics files` remembered.
        pythons: environment → interpreter, in place of the installed one.
        device: torch's name of the device; "" is the CPU.
        start_seconds, answer_seconds: silence after which a worker is ended, while it loads and later.
        allow_download: let workers use the network.
    """

    files: Mapping[str, Mapping[str, MetricFile]] = field(default_factory=dict)
    pythons: Mapping[str, Path] = field(default_factory=dict)
    device: str = ""
    start_seconds: float = 900.0
    answer_seconds: float = 600.0
    allow_download: bool = False


def score_external(
    names: Sequence[str],
    studies: Sequence[str],
    generated: Sequence[str],
    references: Sequence[str],
    *,
    conditions: Conditions | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress = lambda name, done, total: None,
) -> dict[str, ExternalResult]:
    """Metric name → result, for each of `names`; reports are raw texts.

    All names, paths and digests are checked before the first worker starts.

    Raises:
        UserError: an unknown metric, a file with another sha256 than named, or lists of different lengths.
    """
    if not len(studies) == len(generated) == len(references):
        raise UserError(f"{len(studies)} studies, {len(generated)} reports, {len(references)} references: must be as many")
    conditions = conditions or Conditions()
    texts = [StudyTexts(*three) for three in zip(studies, generated, references, strict=True)]
    run = _Run(texts, conditions, bootstrap, seed, progress)
    plans = {name: run.plan(name) for name in with_parts(list(names))}
    found = {name: without(name, len(texts), plans[name][0].missing) for name in names if run.in_vain(plans[name][0])}
    for name in with_parts([name for name in names if name not in found]):
        found[name] = run.composite(name, found) if METRICS[name].parts else run.score(*plans[name])
    return {name: found[name] for name in dict.fromkeys(names)}


def check_files(names: Sequence[str], conditions: Conditions) -> None:
    """Check the sha256 of every file of these metrics, before anything is computed. Raises UserError."""
    run = _Run([], conditions, 0, 0, lambda name, done, total: None)
    for name in with_parts(list(names)):
        run.plan(name)


@dataclass(frozen=True)
class _Run:
    texts: Sequence[StudyTexts]
    conditions: Conditions
    bootstrap: int
    seed: int
    progress: Progress

    @property
    def studies(self) -> list[str]:
        return [text.study for text in self.texts]

    def plan(self, name: str) -> tuple[Availability, dict[str, str]]:
        """What the metric has, and the digests of its files."""
        available = availability(name, self.conditions.files, self.conditions.pythons)
        known = {key: file for key, file in available.files.items() if file.path.exists() or key in self._given(name)}
        return available, {key: checked(f"{name}.{key}", file) for key, file in known.items()}

    def in_vain(self, available: Availability) -> bool:
        """Whether it is made of parts of which one cannot be computed, so that the others need not be."""
        return bool(METRICS[available.name].parts and available.missing)

    def _given(self, name: str) -> Mapping[str, MetricFile]:
        return self.conditions.files.get(name, {})

    def score(self, available: Availability, weights: dict[str, str]) -> ExternalResult:
        name = available.name
        if available.missing or not self.texts:
            return without(name, len(self.texts), available.missing or "there are no studies", weights)
        family = FAMILIES[name]
        answers = ask(
            self._command(available),
            self.texts,
            batch=METRICS[name].batch,
            log=_fresh_log(name),
            check=family.well_formed,
            progress=lambda done, total: self.progress(name, done, total),
        )
        if answers.missing:
            return without(name, len(self.texts), answers.missing, weights)
        kept = [place for place, result in enumerate(answers.results) if result is not None]
        if not kept:
            return self._all_failed(name, answers, weights)
        results = [result for result in answers.results if result is not None]
        return self._result(name, kept, family.read(results, [self.texts[place] for place in kept]), answers, weights)

    def composite(self, name: str, found: Mapping[str, ExternalResult]) -> ExternalResult:
        """RadCliQ from its parts' values."""
        lacking = [f"{part}: {found[part].missing}" for part in METRICS[name].parts if found[part].missing]
        if lacking:
            return without(name, len(self.texts), "; ".join(lacking))
        parts = [found[part] for part in METRICS[name].parts]
        answers = Answers([None] * len(self.texts), losses=[loss for part in parts for loss in part.losses])
        answers.failed = {
            place: f"{part.name}: {part.failed[study]}"
            for place, study in enumerate(self.studies)
            for part in parts
            if study in part.failed
        }
        weights = {f"{part.name}.{key}": digest for part in parts for key, digest in part.weights.items()}
        answers.versions = {f"{part.name}: {package}": version for part in parts for package, version in part.versions.items()}
        kept = [place for place in range(len(self.texts)) if place not in answers.failed]
        if not kept:
            return self._all_failed(name, answers, weights)
        texts = [self.texts[place] for place in kept]
        columns = [[found[part].values[score][place] for place in kept] for part, score in radcliq.COLUMNS]
        values = radcliq.radcliq(np.array([*columns, radcliq.bleu_2(texts)], dtype=np.float64).T)
        notes = {"empty_reports": empty_reports(texts)}
        reading = Reading((mean_of(name, values),), {name: values.tolist()}, notes, higher_is_better=False)
        return self._result(name, kept, reading, answers, weights)

    def _result(
        self, name: str, kept: Sequence[int], reading: Reading, answers: Answers, weights: dict[str, str]
    ) -> ExternalResult:
        return from_reading(name, self.studies, kept, reading, answers, weights=weights, bootstrap=self.bootstrap, seed=self.seed)

    def _all_failed(self, name: str, answers: Answers, weights: dict[str, str]) -> ExternalResult:
        kinds = ", ".join(sorted(set(answers.failed.values())))
        return ExternalResult(
            name,
            len(self.texts),
            failed={self.studies[place]: reason for place, reason in sorted(answers.failed.items())},
            versions=answers.versions,
            weights=weights,
            losses=tuple(answers.losses),
            missing=f"all {len(self.texts)} studies failed ({kinds})",
        )

    def _command(self, available: Availability) -> Command:
        spec = METRICS[available.name]
        assert available.interpreter.python
        files = {key: str(file.path.resolve()) for key, file in available.files.items()}
        return Command(
            available.interpreter.python,
            ENVIRONMENTS[spec.environment].script,
            {**spec.settings, "files": files, "device": self.conditions.device},
            self.conditions.start_seconds,
            self.conditions.answer_seconds,
            self.conditions.allow_download,
        )


def _fresh_log(name: str) -> Path:
    """An empty log that only its owner can read. Raises UserError where it cannot be made."""
    log = metrics_root() / name / "worker.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        log.touch(mode=0o600)
    except OSError as error:
        raise UserError(f"{log}: cannot be written ({error.strerror}); set RRG_METRICS to another folder") from None
    return log
