"""RadCliQ from its parts, and the metrics whose package gives one number, through real workers with stand-in packages."""

import json

import numpy as np
import pytest

from rrg.metrics.external import radcliq, single
from rrg.metrics.external.radcliq import MEANS, WEIGHTS
from rrg.metrics.external.scoring import Conditions, score_external
from rrg.metrics.external.supervisor import StudyTexts
from rrg.metrics.external.weights import MetricFile
from tests.metrics.external.test_radgraph import PACKAGE, config

BERT_SCORE = """
import math
class _Tokens:
    model_max_length = 6
    def tokenize(self, text): return text.split()
class _Scores(list):
    def tolist(self): return list(self)
class BERTScorer:
    def __init__(self, model_type, num_layers, lang, rescale_with_baseline, baseline_path, nthreads, device):
        assert num_layers == 5 and lang == "en" and rescale_with_baseline and device == "cpu" and nthreads == 0
        if not open(model_type + "/config.json").read(): raise OSError
        self._tokenizer = _Tokens()
    def score(self, cands, refs):
        f = _Scores(math.nan if "nan" in c else len(c.split()) / (1 + len(r.split())) for c, r in zip(cands, refs))
        return None, None, f
"""
# The package drops reports without sentences, which shifts the scores of those after them.
RATE = """
class RaTEScore:
    def __init__(self, bert_model, eval_model, use_gpu, affinity_matrix):
        assert not use_gpu and affinity_matrix == "long" and bert_model != eval_model
    def compute_score(self, candidates, references):
        kept = [r for r in references if r.strip()], [c for c in candidates if c.strip()]
        return [0.25 for _ in zip(*kept)]
"""
GREEN = """
import json, os
class GREEN:
    def __init__(self, model, cpu, num_gpus):
        config = json.load(open(os.path.join(model, "config.json")))
        assert "auto_map" not in config and not os.path.exists(os.path.join(model, "modeling.py")) and cpu
        assert os.path.exists(os.path.join(model, "model.safetensors"))
    def __call__(self, refs, hyps):
        good = "[Clinically Significant Errors]:\\\\n(a) x: 1. y\\\\n\\\\n[Matched Findings]:\\\\n1. y"
        self.completions = [good if "good" in h else "I cannot" for h in hyps]
        return 0.5, 0.0, [0.5 if "good" in h else 0 for h in hyps], None
""".replace("\\\\n", "\\n")


@pytest.fixture
def folder(tmp_path):
    """A model's folder with code of its own beside its weights."""
    path = tmp_path / "a-model"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "modeling.X"}}')
    (path / "model.safetensors").write_text("w")
    (path / "modeling.py").write_text("raise SystemExit")
    return path


def score(names, texts, files, pythons):
    found = {name: {key: MetricFile(path) for key, path in keys.items()} for name, keys in files.items()}
    columns = [[f"s{n}" for n in range(len(texts))], *map(list, zip(*texts, strict=True))]
    return score_external(names, *columns, conditions=Conditions(found, pythons), bootstrap=10)


def test_packages_that_give_one_number(bare_venv, folder, tmp_path):
    python = bare_venv({"bert_score": BERT_SCORE, "RaTEScore": RATE, "radeval.metrics.green_score.green": GREEN})
    baseline = next(python.parent.parent.glob("lib/python*/site-packages/bert_score")) / "rescale_baseline" / "en"
    baseline.mkdir(parents=True)
    (baseline / "distilbert-base-uncased.tsv").write_text("LAYER,P,R,F\n")
    (tmp_path / "encoder").mkdir()
    files = {
        "bertscore": {"model": folder},
        "radcliq_bertscore": {"model": folder},
        "rate": {"ner": folder, "encoder": tmp_path / "encoder"},
        "green": {"model": folder},
    }
    pythons = dict.fromkeys(("bertscore", "rate", "green"), python)
    texts = [("good heart", "a b"), ("", "a"), ("nan good", "a b c"), ("one two three four five", "a")]
    found = score(list(files), texts, files, pythons)
    assert found["bertscore"].values["bertscore"] == (pytest.approx(2 / 3), 0.0, None, 2.5)
    assert found["bertscore"].failed == {"s2": "the score is not finite"}
    assert found["bertscore"].notes == {"cut_reports": 1, "empty_reports": 1}
    assert found["radcliq_bertscore"].missing == "bert-score has no baseline for distilroberta-base"
    assert found["rate"].values["rate"] == (0.25, None, 0.25, 0.25)
    assert "without sentences" in found["rate"].failed["s1"]
    assert found["green"].values["green"] == (0.5, None, 0.5, None)
    assert set(found["green"].failed.values()) == {"the model's answer has not the asked form"}
    assert found["green"].scores["green"].value == 0.5 and found["green"].scores["green"].count == 2


def test_radcliq_by_hand():
    assert radcliq.radcliq(np.array([MEANS]))[0] == pytest.approx(0.0, abs=1e-9)
    one = radcliq.radcliq(np.array([MEANS, np.array(MEANS) + [0.30282584, 0, 0, 0]]))
    assert one[1] - one[0] == pytest.approx(WEIGHTS[0])
    assert radcliq.bleu_2([StudyTexts("a", "The heart.", "the HEART .")]) == [pytest.approx(1.0)]
    assert not single.well_formed({"score": True}) and not single.well_formed({"score": "1"})


def test_radcliq_from_its_parts(bare_venv, chexbert, folder, tmp_path):
    """BERTScore and RadGraph by stand-in packages, CheXbert for real; a study that one part fails has no value."""
    python = bare_venv({"radgraph": PACKAGE, "bert_score": BERT_SCORE})
    baseline = next(python.parent.parent.glob("lib/python*/site-packages/bert_score")) / "rescale_baseline" / "en"
    baseline.mkdir(parents=True)
    (baseline / "distilroberta-base.tsv").write_text("LAYER,P,R,F\n")
    model = tmp_path / "model"
    (model / "vocabulary").mkdir(parents=True)
    (model / "vocabulary" / "x.txt").write_text("x")
    (model / "config.json").write_text(json.dumps(config()))
    (model / "weights.th").write_text("tensors")
    files = {
        "radgraph": {"model": model, "encoder": folder},
        "radcliq_bertscore": {"model": folder},
        "chexbert": chexbert,
    }
    texts = [("no edema", "no edema"), ("nan", "clear"), ("small effusion", "large effusion"), ("raise", "clear")]
    names = ["radcliq", "radgraph", "chexbert", "radcliq_bertscore"]
    found = score(names, texts, files, {"radgraph": python, "bertscore": python})
    result = found["radcliq"]
    assert result.failed == {
        "s1": "radcliq_bertscore: the score is not finite",
        "s3": "radgraph: KeyError",
    }
    parts = [
        found[metric].values[score]
        for metric, score in (
            ("radgraph", "radgraph_combined"),
            ("radcliq_bertscore", "radcliq_bertscore"),
            ("chexbert", "chexbert_similarity"),
        )
    ]
    bleu = radcliq.bleu_2([StudyTexts("s", *text) for text in texts])
    for place in (0, 2):
        row = [column[place] for column in parts] + [bleu[place]]
        assert result.values["radcliq"][place] == pytest.approx(radcliq.radcliq(np.array([row]))[0])
    value = result.scores["radcliq"]
    assert value.count == 2 and not value.higher_is_better and list(found) == names
    assert set(result.weights) == {
        *("radgraph.model", "radgraph.encoder", "radcliq_bertscore.model", "chexbert.weights", "chexbert.vocab")
    }
    del files["radgraph"]
    lacking = score(["radcliq"], texts, files, {"radgraph": python, "bertscore": python})["radcliq"]
    assert lacking.missing.startswith("radgraph: no file for model, encoder") and not lacking.scores
