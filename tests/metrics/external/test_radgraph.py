"""RadGraph: scores by hand, the worker with a package of the same interface under its own interpreter, and the real package."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from rrg.errors import UserError
from rrg.metrics.external import radgraph
from rrg.metrics.external.scoring import Conditions, score_external
from rrg.metrics.external.weights import MetricFile
from tests.metrics.external.conftest import TEXTS, tiny_bert, write_vocabulary
from tests.metrics.external.tiny_radgraph import config

# What the package does to its users: reads the folder of the model, prints, wants "None" for nothing, numbers entities from "1".
PACKAGE = """
import json, os, sys, time
class RadGraph:
    def __init__(self, model_type, model_cache_dir, cuda):
        folder = os.path.join(model_cache_dir, model_type)
        config = json.load(open(os.path.join(folder, "config.json")))
        name = config["dataset_reader"]["token_indexers"]["bert"]["model_name"]
        assert name == config["model"]["embedder"]["token_embedders"]["bert"]["model_name"] and os.path.isdir(name), name
        if open(os.path.join(folder, "weights.th")).read() != "tensors": raise RuntimeError("state_dict")
        assert os.listdir(os.path.join(folder, "vocabulary"))
        print("Using device: cpu")
    def __call__(self, texts):
        assert len(texts) == 1 and texts[0].strip()
        words = texts[0].split()
        if "kill" in words: os._exit(9)
        if "hang" in words:
            open(os.path.join(os.path.dirname(__file__), "silent"), "w").close()
            time.sleep(6000)
        if "skip" in words: return {}
        if "raise" in words: raise KeyError(texts[0])
        found = {str(n + 1): {"tokens": word, "label": "OBS", "relations": []} for n, word in enumerate(words)}
        if len(words) > 1: found["1"]["relations"] = [["modify", "2"]]
        return {"0": {"entities": found}}
"""


@pytest.fixture
def archive(tmp_path):
    """An archive of the published layout, and an encoder's folder."""
    model = tmp_path / "model"
    (model / "vocabulary").mkdir(parents=True)
    (model / "vocabulary" / "non_padded_namespaces.txt").write_text("*labels\n")
    (model / "config.json").write_text(json.dumps(config()))
    (model / "weights.th").write_text("tensors")
    (tmp_path / "encoder").mkdir()
    return {"model": model, "encoder": tmp_path / "encoder"}


def score(python, files, texts, name="radgraph", seconds=900.0):
    found = {name: {key: MetricFile(path) for key, path in files.items()}}
    conditions = Conditions(found, {"radgraph": python}, answer_seconds=seconds, start_seconds=900)
    studies = [f"s{number}" for number in range(len(texts))]
    generated, references = map(list, zip(*texts, strict=True))
    return score_external([name], studies, generated, references, conditions=conditions, bootstrap=10)[name]


def test_levels_by_hand():
    """effusion modifies lung in one, nothing in the other; heart is the same but for its label."""
    generated = [["Effusion", "OBS", [["located_at", 1]]], ["lung", "ANAT", []], ["heart", "ANAT", []]]
    reference = [["Effusion", "OBS", []], ["lung", "ANAT", []], ["heart", "OBS", []], ["small", "OBS", [["modify", 0]]]]
    values = radgraph.scores(generated, reference)
    assert values["simple"] == pytest.approx(2 * 2 / (3 + 4))  # effusion, lung
    assert values["partial"] == pytest.approx(2 * 1 / (3 + 4))  # lung: effusion has a relation on one side only
    assert values["complete"] == pytest.approx(2 * 1 / (3 + 4))  # lung
    assert values["combined"] == pytest.approx((4 / 7 + 0) / 2)
    same = radgraph.scores(reference, reference)
    assert same == {"simple": 1, "partial": 1, "complete": 1, "combined": 1}
    assert radgraph.scores([], reference) == radgraph.scores([], []) == dict.fromkeys(same, 0.0)
    twice = [["small", "OBS", [["modify", 1], ["modify", 1]]], ["effusion", "OBS", []], ["effusion", "OBS", []]]
    assert radgraph.entities_and_relations(twice) == {("small", "OBS", "modify", "effusion"), ("effusion", "OBS")}
    upper = [["Small", "OBS", [["modify", 1]]], ["EFFUSION", "OBS", []]]
    assert ("small", "OBS", "modify", "effusion") in radgraph.entities_and_relations(upper)


def test_shapes_that_are_no_graph():
    good = [["a", "OBS", [["modify", 0]]]]
    assert radgraph.well_formed({"generated": good, "reference": []})
    for bad in (
        None,
        [["a", "OBS"]],
        [[1, "OBS", []]],
        [["a", "OBS", [["modify", 1]]]],
        [["a", "OBS", [["modify", True]]]],
        [[]],
    ):
        assert not radgraph.well_formed({"generated": good, "reference": bad}), bad


def test_its_own_interpreter_folder_and_archive(bare_venv, archive, tmp_path):
    python = bare_venv({"radgraph": PACKAGE})
    texts = [(t.generated, t.reference) for t in TEXTS] + [("small left effusion", "small left pleural effusion")]
    result = score(python, archive, texts)
    assert not result.missing and not result.failed and "torch" not in result.versions
    assert result.notes == {"reports_without_entities": 2, "empty_reports": 2}
    assert result.values["radgraph_simple"][1] == result.values["radgraph_simple"][3] == 0.0
    assert result.values["radgraph_simple"][5] == pytest.approx(6 / 7)
    assert result.values["radgraph_partial"][5] == pytest.approx(6 / 7)
    assert result.values["radgraph_combined"][5] == pytest.approx((6 / 7 + 1) / 2)
    assert result.scores["radgraph_simple"].value == pytest.approx(sum(result.values["radgraph_simple"]) / 6)
    with tarfile.open(tmp_path / "radgraph.tar.gz", "w:gz") as tar:
        for name in ("config.json", "vocabulary", "weights.th"):
            tar.add(archive["model"] / name, name)
    packed = score(python, {**archive, "model": tmp_path / "radgraph.tar.gz"}, texts)
    assert packed.values == result.values and packed.weights["model"] != result.weights["model"]


def test_crash_hang_and_failures_of_the_package(bare_venv, archive, metrics_folder, silent_from):
    python = bare_venv({"radgraph": PACKAGE})
    texts = [("a b", "a")] * 9 + [("raise tumour", "a"), ("skip", "a"), ("kill", "a"), ("a", "a")]
    result = score(python, archive, texts)
    assert list(result.failed) == ["s9", "s10", "s11", "s12"] and result.failed["s9"] == "KeyError"
    assert result.failed["s10"] == "the package could not parse the report" and "exit code 9" in result.failed["s11"]
    assert result.scores["radgraph_simple"].count == 9 and result.values["radgraph_simple"][9:] == (None,) * 4
    assert "tumour" not in (metrics_folder / "radgraph" / "worker.log").read_text()
    assert score(python, archive, [("kill", "a")]).missing.startswith("all 1 studies failed (the worker was lost twice")
    (package,) = python.parent.parent.glob("lib/python*/site-packages/radgraph")
    silent_from(package / "silent")
    hung = score(python, archive, [("a", "a"), ("hang", "a")], seconds=1.0)
    assert list(hung.failed) == ["s1"] and "said nothing for 1 s" in hung.failed["s1"]


def test_what_is_no_archive(bare_venv, archive, tmp_path):
    python = bare_venv({"radgraph": PACKAGE})
    one = [("a", "a")]
    (archive["model"] / "weights.th").write_text("other")
    assert "cannot load the model (RuntimeError): is it an archive of 'radgraph'?" in score(python, archive, one).missing
    (archive["model"] / "weights.th").unlink()
    assert "has no weights.th" in score(python, archive, one).missing
    (archive["model"] / "weights.th").write_text("tensors")
    (archive["model"] / "config.json").write_text("{}")
    assert "its config.json is not RadGraph's" in score(python, archive, one).missing
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(b"nothing")
    assert "cannot be unpacked" in score(python, {**archive, "model": bad}, one).missing
    with tarfile.open(bad, "w:gz") as tar:
        tar.add(archive["model"] / "config.json", "../outside.json")
    assert "leads out of it" in score(python, {**archive, "model": bad}, one).missing
    (archive["model"] / "config.json").write_text(json.dumps(config()))
    for package in python.parent.parent.glob("lib/python*/site-packages/radgraph"):
        shutil.rmtree(package)
    assert "package 'radgraph' cannot be imported" in score(python, archive, one, "radgraph_xl").missing


def test_wrong_hash(bare_venv, archive):
    wrong = Conditions({"radgraph": {"model": MetricFile(archive["model"], "a" * 64)}}, {"radgraph": Path(sys.executable)})
    with pytest.raises(UserError, match=r"radgraph.model: .* has sha256 .*, not a{64}"):
        score_external(["radgraph"], ["s"], ["a"], ["b"], conditions=wrong)


@pytest.mark.slow
def test_the_real_package_on_tiny_random_weights(tmp_path):
    """Parsed by the package, scored by us and by it: the same rewards."""
    python = os.environ.get("RRG_RADGRAPH_PYTHON")
    if not python:
        pytest.skip("set RRG_RADGRAPH_PYTHON to an interpreter with the package radgraph (`rrg metrics install radgraph`)")
    encoder = write_vocabulary(tmp_path / "encoder").parent
    tiny_bert(encoder / "vocab.txt").save_pretrained(encoder)
    maker = Path(__file__).with_name("tiny_radgraph.py")
    texts = [(t.generated, t.reference) for t in TEXTS] + [("No pleural effusion. The heart is normal.", "no edema (left), 5%")]
    for name, kind in (("radgraph", "radgraph"), ("radgraph_xl", "radgraph-xl")):
        model = tmp_path / kind
        subprocess.run([python, str(maker), str(model), str(encoder), kind], check=True, capture_output=True)
        result = score(Path(python), {"model": model, "encoder": encoder}, texts, name)
        assert not result.missing and not result.failed and result.versions["radgraph"]
        (tmp_path / "in.json").write_text(
            json.dumps({"texts": texts, "model": str(model), "encoder": str(encoder), "kind": kind})
        )
        done = subprocess.run([python, "-c", REWARDS, str(tmp_path / "in.json")], check=True, capture_output=True, text=True)
        rewards = json.loads(done.stdout.splitlines()[-1])
        for level, theirs in zip(("simple", "partial", "complete"), zip(*rewards, strict=True), strict=True):
            assert result.values[f"{name}_{level}"] == pytest.approx(theirs), (name, level)
        assert any(result.values[f"{name}_complete"])


REWARDS = """
import json, os, shutil, sys, tempfile
asked = json.load(open(sys.argv[1]))
home = tempfile.mkdtemp()
shutil.copytree(asked["model"], os.path.join(home, asked["kind"]))
path = os.path.join(home, asked["kind"], "config.json")
text = open(path).read().replace("microsoft/no-such-encoder", asked["encoder"])
open(path, "w").write(text)
from radgraph import F1RadGraph
scorer = F1RadGraph(reward_level="all", model_type=asked["kind"], model_cache_dir=home, cuda=-1)
hyps, refs = zip(*asked["texts"])
_, rewards, _, _ = scorer(hyps=list(hyps), refs=list(refs))
print(json.dumps(list(zip(*rewards))))
"""
