"""BERTScore F by the `bert-score` package (Zhang et al. 2020, arXiv:1904.09675), without idf, rescaled with the package's
baseline.

The model is a local folder; layer and baseline are those of the model that the settings name. Without idf a study's score
does not depend on the others of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wire import Answer, Answers, Refused, Study, answered, existing, failed, serve


def start(settings: dict[str, Any]) -> Answers:
    """Load the model. Raises Refused where the folder holds none, or the package has no such baseline."""
    import bert_score

    baseline = Path(bert_score.__file__).parent / "rescale_baseline" / "en" / f"{settings['baseline']}.tsv"
    if not baseline.is_file():
        raise Refused(f"bert-score has no baseline for {settings['baseline']}")
    model = existing(settings, "model")
    try:
        scorer = bert_score.BERTScorer(
            model_type=model,
            num_layers=settings["layers"],
            lang="en",
            rescale_with_baseline=True,
            baseline_path=str(baseline),
            nthreads=0,
            device=settings.get("device") or "cpu",
        )
    except (AssertionError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise Refused(f"{model}: the package cannot load it ({type(error).__name__})") from None
    most = scorer._tokenizer.model_max_length

    def answers(batch: list[Study]) -> Iterator[Answer]:
        generated = [" ".join(study["generated"].split()) for study in batch]
        references = [" ".join(study["reference"].split()) for study in batch]
        _, _, f1 = scorer.score(generated, references)
        for study, score, texts in zip(batch, f1.tolist(), zip(generated, references)):  # noqa: B905 (Python 3.9)
            if math.isfinite(score):
                cut = sum(len(scorer._tokenizer.tokenize(text)) + 2 > most for text in texts)
                yield answered(study, {"score": score, "cut": cut})
            else:
                yield failed(study, "the score is not finite")

    return answers


if __name__ == "__main__":
    serve(start, ["bert-score", "torch", "transformers"])
