"""ALTA's benchmarks on films and texts that the user has: CheXpert 8x200 and 5x200, RSNA pneumonia (spec alta §8)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.nn import functional as F

from rrg.errors import UserError
from rrg.metrics.intervals import LEVEL, intervals
from rrg.metrics.prompts import Prompts
from rrg.metrics.ranking import area, area_interval, folded
from rrg.metrics.retrieval import means_of, precision_at
from rrg.metrics.statistics import FloatArray
from rrg.train.aligned_run import AlignedRun
from rrg.train.film_files import film_vectors, read_list
from rrg.train.vectors import text_vectors
from rrg.train.zero_shot import classified, presence

EIGHT = ("No Finding", "Cardiomegaly", "Edema", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Fracture")
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
CUTOFFS = {"chexpert_8x200_image": (5, 10, 50), "chexpert_8x200_text": (5, 10, 50), "chexpert_5x200_text": (5, 10, 100)}
QUERY_TOKENS, REPORT_TOKENS = 20, 256
REPORT = "Report Impression"


def benchmark_scores(options: argparse.Namespace) -> tuple[AlignedRun, dict[str, Any]]:
    """P@k of one of the retrieval benchmarks. Raises UserError for lists and films that do not fit."""
    classes = FIVE if options.protocol == "chexpert_5x200_text" else EIGHT
    candidates = read_list(options.candidates, ("Path", *classes))
    labels = [one_class(row, classes, f"{options.candidates} line {line}") for line, row in enumerate(candidates, 2)]
    texts = options.protocol == "chexpert_8x200_text"
    queries = None if options.queries is None else read_list(options.queries, ("Variable", "Text" if texts else "Path"))
    if queries is None and REPORT not in candidates[0]:
        raise UserError(f"{options.candidates}: has no column {REPORT!r}, the report of each film")
    asked = labels if queries is None else [_named(row["Variable"], options.queries) for row in queries]
    run = AlignedRun.open(options.directory, options.checkpoint, options.overrides)
    films = film_vectors(run, options.images, [row["Path"] for row in candidates])
    if queries is None:
        similarity = films @ _texts(run, [clean_impression(row[REPORT]) for row in candidates], REPORT_TOKENS).T
    elif texts:
        similarity = _texts(run, [row["Text"] for row in queries], QUERY_TOKENS) @ films.T
    else:
        similarity = film_vectors(run, options.images, [row["Path"] for row in queries]) @ films.T
    cutoffs = CUTOFFS[options.protocol]
    relevant = np.array(asked)[:, None] == np.array(labels)[None]
    names = [f"p{k}" for k in cutoffs]
    statistics = means_of(names, precision_at(similarity, relevant, cutoffs))
    bounds = intervals([[statistics]], resamples=options.bootstrap, seed=run.recipe.seed)
    metrics = {
        name: {"value": value, "interval": list(bounds[name]) if name in bounds else None, "count": len(asked)}
        for name, value in statistics.values().items()
    }
    chance = dict.fromkeys(names, float(relevant.mean()))
    return run, {**_head(run, options, len(asked)), "candidates": len(candidates), "metrics": metrics, "chance": chance}


def zero_shot_benchmark(options: argparse.Namespace, prompts: Prompts) -> tuple[AlignedRun, dict[str, Any]]:
    """RSNA pneumonia (AUC; accuracy and F1 over ten folds) or CheXpert 5x200 (accuracy). Raises UserError as above."""
    rsna = options.protocol == "rsna_pneumonia"
    rows = read_list(options.films, ("path", "label") if rsna else ("Path", *FIVE))
    where = str(options.films)
    if rsna:
        truth = np.array([_binary(row["label"], f"{where} line {line}") for line, row in enumerate(rows, 2)])
        if not 10 <= truth.sum() <= len(truth) - 10:
            raise UserError(f"{where}: {int(truth.sum())} of {len(truth)} films are positive; ten folds need ten of either kind")
    else:
        truth = np.array([FIVE.index(one_class(row, FIVE, f"{where} line {line}")) for line, row in enumerate(rows, 2)])
        if tuple(prompts.classes) != FIVE:
            raise UserError(f"--prompts: chexpert_5x200 has the classes {', '.join(FIVE)}, in this order")
    run = AlignedRun.open(options.directory, options.checkpoint, options.overrides)
    images = film_vectors(run, options.images, [row["path" if rsna else "Path"] for row in rows])
    record = {**_head(run, options, len(rows)), "prompts": prompts.name, "prompts_digest": prompts.digest}
    if not rsna:
        counts = {name: len(texts) for name, texts in prompts.classes.items()}
        found = float((classified(run, prompts, images) == truth).mean())
        return run, {**record, "prompt_counts": counts, "metrics": {"accuracy": found}, "chance": {"accuracy": 0.2}}
    scores = presence(run, prompts, images)["Pneumonia"]
    bounds = area_interval(scores, truth, options.bootstrap, run.recipe.seed) if options.bootstrap else None
    return run, {
        **record,
        "positive": int(truth.sum()),
        "metrics": {"auc": float(area(scores, truth)[0]), **folded(scores, truth)},
        "auc_interval": bounds,
    }


def _head(run: AlignedRun, options: argparse.Namespace, studies: int) -> dict[str, Any]:
    interval = {
        "level": LEVEL,
        "method": "percentile",
        "resamples": options.bootstrap,
        "seed": run.recipe.seed,
        "over": "queries",
    }
    return {"protocol": {"name": options.protocol}, "studies": studies, "interval": interval, "made": run.made}


def _texts(run: AlignedRun, texts: Sequence[str], most: int) -> FloatArray:
    return F.normalize(text_vectors(run.system, texts, run.team.device, most), dim=1).double().numpy()


def one_class(row: Mapping[str, str], classes: Sequence[str], where: str) -> str:
    """The one class whose column holds a 1. Raises UserError where none or several do."""
    found = [name for name in classes if row[name].strip() in ("1", "1.0")]
    if len(found) != 1:
        raise UserError(f"{where}: {len(found)} of the columns {', '.join(classes)} hold a 1; a film has one class")
    return found[0]


def _named(word: str, where: object) -> str:
    if word not in EIGHT:
        raise UserError(f"{where}: Variable {word!r} is none of {', '.join(EIGHT)}")
    return word


def _binary(text: str, where: str) -> bool:
    if text.strip() not in ("0", "1", "0.0", "1.0"):
        raise UserError(f"{where}: label {text!r}; write 0 or 1")
    return float(text) == 1


def clean_impression(text: str) -> str:
    """GLoRIA's cleaning of an impression: newlines to spaces, cut at enumerators and full stops, words alone in lower case,
    pieces of one word or none dropped, ASCII only (spec alta §8)."""
    pieces = re.split(r"[0-9]+\.|\.", text.replace("\n", " "))
    kept = []
    for piece in pieces:
        words = re.findall(r"\w+", piece.lower())
        if len(words) > 1:
            kept.append(" ".join(ascii_ for word in words if (ascii_ := word.encode("ascii", "ignore").decode())))
    return " ".join(kept)
