"""RaTEScore by its package (Zhao et al. 2024, arXiv:2406.16845), with its weights for long reports.

Studies go to the package one at a time: it leaves out reports in which it finds no sentence, so that in a list the scores after
them would stand by the wrong studies. Such a study has failed. The splitter of sentences logs reports word by word unless its
logger is kept from starting.
"""

from __future__ import annotations

import os
from typing import Any

from wire import Answers, Refused, Study, existing, one_by_one, serve

NO_SENTENCES = "the package gives no score for a report without sentences"


def start(settings: dict[str, Any]) -> Answers:
    """Load both models. Raises Refused where a folder holds none."""
    os.environ["LOGURU_AUTOINIT"] = "0"
    from RaTEScore import RaTEScore

    ner, encoder = existing(settings, "ner"), existing(settings, "encoder")
    gpu = (settings.get("device") or "cpu").startswith("cuda")
    try:
        scorer = RaTEScore(bert_model=ner, eval_model=encoder, use_gpu=gpu, affinity_matrix="long")
    except (AssertionError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise Refused(f"{ner} and {encoder}: the package cannot load them ({type(error).__name__})") from None

    def score(study: Study) -> dict[str, Any]:
        if not study["generated"].split() or not study["reference"].split():
            raise Refused(NO_SENTENCES)
        values = scorer.compute_score([study["generated"]], [study["reference"]])
        if len(values) != 1:
            raise Refused(NO_SENTENCES)
        return {"score": float(values[0])}

    return one_by_one(score)


if __name__ == "__main__":
    serve(start, ["RaTEScore", "medspacy", "torch", "transformers"])
